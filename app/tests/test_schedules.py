"""The time and the accounts of a post."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.database.accounts import AccountStore
from support import is_problem, make_settings, sign_up, value


@pytest.fixture
def client(tmp_path: Path, registry: CollectorRegistry) -> Iterator[TestClient]:
    """A client of an application that is set up for two platforms."""
    keys, platforms = tmp_path / "keys", tmp_path / "platforms.json"
    keys.write_text("OTRrbTdiZXNhbWVjaGFyYWN0ZXJzLWZvci1hLWtleTA=\n")
    client_of = {"client_id": "id", "client_secret": "secret"}
    platforms.write_text(json.dumps({"twitter": client_of, "linkedin": client_of}))
    settings = make_settings(tmp_path, ALLIN_TOKEN_KEYS_FILE=str(keys), ALLIN_PLATFORMS_FILE=str(platforms))
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as client:
        yield client


def connect(client: TestClient, user_id: int, platform: str, number: int = 1) -> int:
    """The id of a connected account."""
    store = AccountStore(client.app.state.database)  # type: ignore[attr-defined]

    async def insert() -> int:
        account = await store.connect(
            user_id,
            platform,
            str(number),
            handle="ann",
            scopes="",
            access_token="x",
            refresh_token=None,
            token_expires_at=None,
        )
        return account.id

    assert client.portal is not None
    return client.portal.call(insert)


def at(**after: float) -> str:
    return (datetime.now(UTC) + timedelta(**after)).isoformat()


def counts(registry: CollectorRegistry, name: str) -> dict[str, float]:
    return {
        sample.labels["platform"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    }


def test_platforms_are_those_of_the_file(ann: TestClient) -> None:
    assert [platform["name"] for platform in ann.get("/api/v1/platforms").json()["items"]] == ["linkedin", "twitter"]


def test_accounts_of_a_user(ann: TestClient) -> None:
    account_id = connect(ann, 1, "twitter")
    bob = sign_up(ann, "bob@example.com")

    account = ann.get(f"/api/v1/accounts/{account_id}").json()
    assert account == {
        "id": account_id,
        "platform": "twitter",
        "handle": "ann",
        "state": "active",
        "created_at": account["created_at"],
    }
    assert ann.get("/api/v1/accounts").json() == {"items": [account]}
    assert ann.get("/api/v1/accounts", headers=bob).json() == {"items": []}
    is_problem(ann.get(f"/api/v1/accounts/{account_id}", headers=bob), 404)


def test_life_of_a_schedule(ann: TestClient, registry: CollectorRegistry) -> None:
    twitter, twitter_too, linkedin = (
        connect(ann, 1, "twitter"),
        connect(ann, 1, "twitter", 2),
        connect(ann, 1, "linkedin"),
    )
    draft = ann.post("/api/v1/posts", json={"text": "hello"}).json()
    path = f"/api/v1/posts/{draft['id']}"
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

    body = {"account_ids": [twitter, twitter_too, linkedin, twitter], "publish_at": when.isoformat()}
    scheduled = ann.put(f"{path}/schedule", json=body)
    assert scheduled.status_code == 200
    assert scheduled.json() == ann.get(path).json()
    assert ann.get("/api/v1/posts").json()["items"] == [scheduled.json()]
    publications = scheduled.json()["publications"]
    assert sorted(publications, key=lambda publication: int(publication["account_id"])) == [
        {
            "account_id": account_id,
            "platform": platform,
            "state": "scheduled",
            "due_at": when.isoformat().replace("+00:00", "Z"),
            "published_at": None,
            "url": None,
            "failure_reason": None,
        }
        for account_id, platform in [(twitter, "twitter"), (twitter_too, "twitter"), (linkedin, "linkedin")]
    ]
    assert counts(registry, "allin_posts_scheduled_total") == {"twitter": 1, "linkedin": 1}

    moved = ann.put(f"{path}/schedule", json={"account_ids": [linkedin], "publish_at": at(hours=2)}).json()
    assert [publication["account_id"] for publication in moved["publications"]] == [linkedin]
    assert ann.delete(f"{path}/schedule").status_code == 204
    assert ann.get("/api/v1/posts").json()["items"] == [draft]
    is_problem(ann.delete(f"{path}/schedule"), 409)
    assert value(registry, "allin_user_actions_total", action="post_schedule") == 2
    assert value(registry, "allin_user_actions_total", action="post_cancel") == 1


def test_post_that_is_scheduled_at_once(ann: TestClient, registry: CollectorRegistry) -> None:
    account_id = connect(ann, 1, "twitter")
    body = {"text": "hello", "account_ids": [account_id], "publish_at": at(minutes=-0.5)}

    post = ann.post("/api/v1/posts", json=body)

    assert post.status_code == 201
    assert [publication["state"] for publication in post.json()["publications"]] == ["scheduled"]
    ann.post("/api/v1/posts", json={"text": "draft"})
    assert counts(registry, "allin_posts_created_total") == {"twitter": 1, "none": 1}
    assert counts(registry, "allin_posts_scheduled_total") == {"twitter": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"account_ids": []}, "account_ids"),
        ({"account_ids": [0]}, "account_ids"),
        ({"account_ids": list(range(1, 22))}, "account_ids"),
        ({"account_ids": [99]}, "There is no account 99."),
        ({"account_ids": ["bob's"]}, "There is no account"),
        ({"account_ids": ["facebook"]}, "not set up for facebook"),
        ({"account_ids": ["ended"]}, "connected again"),
        ({"text": "x" * 281}, "281 characters; twitter takes 280"),
        ({"publish_at": "tomorrow"}, "publish_at"),
        ({"publish_at": "2030-01-01T00:00:00"}, "publish_at"),
        ({"publish_at": timedelta(minutes=-2)}, "publish_at"),
        ({"publish_at": timedelta(days=367)}, "publish_at"),
        ({"publish_at": "9999-12-31T23:59:59-23:59"}, "publish_at"),
        ({"publish_at": "0001-01-01T00:00:00+23:59"}, "publish_at"),
    ],
    ids=str,
)
def test_schedules_that_cannot_be(
    ann: TestClient, registry: CollectorRegistry, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    sign_up(ann, "bob@example.com")
    accounts = {
        "mine": connect(ann, 1, "twitter"),
        "bob's": connect(ann, 2, "twitter"),
        "facebook": connect(ann, 1, "facebook"),
        "ended": connect(ann, 1, "linkedin"),
    }
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute("UPDATE accounts SET state = 'needs_reconnect' WHERE platform = 'linkedin'")
        connection.commit()
    body = {"text": "hello", "account_ids": ["mine"], "publish_at": at(hours=1)} | change
    if isinstance(body["publish_at"], timedelta):
        body["publish_at"] = (datetime.now(UTC) + body["publish_at"]).isoformat()
    body["account_ids"] = [accounts.get(name, name) for name in body["account_ids"]]

    assert reason in is_problem(ann.post("/api/v1/posts", json=body), 422)
    assert ann.get("/api/v1/posts").json()["items"] == []
    post = ann.post("/api/v1/posts", json={"text": body.pop("text")}).json()
    assert reason in is_problem(ann.put(f"/api/v1/posts/{post['id']}/schedule", json=body), 422)
    assert ann.get(f"/api/v1/posts/{post['id']}").json()["publications"] == []
    assert counts(registry, "allin_posts_scheduled_total") == {}


@pytest.mark.parametrize("missing", ["account_ids", "publish_at"])
def test_accounts_and_time_go_together(ann: TestClient, missing: str) -> None:
    body = {"text": "hello", "account_ids": [connect(ann, 1, "twitter")], "publish_at": at(hours=1)}
    del body[missing]

    is_problem(ann.post("/api/v1/posts", json=body), 422)


def test_schedules_of_others_do_not_exist(ann: TestClient) -> None:
    account_id = connect(ann, 1, "twitter")
    body = {"account_ids": [account_id], "publish_at": at(hours=1)}
    post = ann.post("/api/v1/posts", json=body | {"text": "mine"}).json()
    bob = sign_up(ann, "bob@example.com")
    path = f"/api/v1/posts/{post['id']}/schedule"

    is_problem(ann.put(path, json=body, headers=bob), 404)
    is_problem(ann.delete(path, headers=bob), 404)
    assert ann.get(f"/api/v1/posts/{post['id']}").json() == post
