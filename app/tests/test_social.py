"""From signing up to the figures of a published post, with simulated platforms."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from allin_backend.metrics.contract import PLATFORMS
from social_support import Social, social
from support import is_problem, sign_up, value


@pytest.fixture
def ann(tmp_path: Path, registry: CollectorRegistry) -> Iterator[Social]:
    """A user of an application that is set up for all platforms."""
    with social(tmp_path, registry) as target:
        target.http.headers.update(sign_up(target.http))
        yield target


def published(ann: Social, *accounts: dict[str, Any]) -> str:
    """The path of a post that is on these accounts."""
    body = {
        "text": "hello",
        "account_ids": [account["id"] for account in accounts],
        "publish_at": datetime.now(UTC).isoformat(),
    }
    path = ann.http.post("/api/v1/posts", json=body).headers["location"]
    ann.publish()
    return path


@pytest.mark.parametrize("platform", PLATFORMS)
def test_from_connecting_to_figures(ann: Social, registry: CollectorRegistry, platform: str) -> None:
    account = ann.connect(platform)
    assert account == ann.http.get(f"/api/v1/accounts/{account['id']}").json()
    assert (account["platform"], account["state"]) == (platform, "active")
    assert account["handle"]

    path = published(ann, account)
    (publication,) = ann.http.get(path).json()["publications"]
    assert publication["state"] == "published"
    assert publication["published_at"] >= publication["due_at"]
    answer = ann.http.get(f"{path}/figures")
    assert answer.status_code == 200
    (item,) = answer.json()["items"]
    assert (item["account_id"], item["platform"]) == (account["id"], platform)
    assert isinstance(item["figures"]["likes"], int)
    assert sorted(item["figures"]) == ["comments", "impressions", "likes", "shares"]

    assert value(registry, "allin_oauth_operations_total", platform=platform, operation="callback", status="success")
    for action in ("sign_up", "sign_in", "account_connect", "post_create", "post_schedule", "figures_view"):
        assert value(registry, "allin_user_actions_total", action=action) == 1


def test_connecting_again_gives_the_same_account(ann: Social) -> None:
    first = ann.connect("twitter")

    assert ann.connect("twitter")["id"] == first["id"]
    assert len(ann.http.get("/api/v1/accounts").json()["items"]) == 1


def test_tokens_are_stored_encrypted_and_shown_to_nobody(ann: Social, tmp_path: Path) -> None:
    account = ann.connect("facebook")

    assert not {"access_token", "refresh_token", "scopes", "platform_user_id"} & account.keys()
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        (token,) = connection.execute("SELECT access_token FROM accounts").fetchone()
    assert token.startswith("gAAAA")  # as Fernet writes them


def test_permission_that_is_not_given(ann: Social, registry: CollectorRegistry) -> None:
    begun = ann.http.post("/api/v1/platforms/twitter/authorizations").json()
    brought = ann.permit(begun["url"], decision="deny")
    assert "code" not in brought

    body = {"state": brought["state"], "error": brought["error"]}
    is_problem(ann.http.post("/api/v1/platforms/twitter/callback", json=body), 422)
    assert ann.http.get("/api/v1/accounts").json()["items"] == []
    labels = {"platform": "twitter", "operation": "callback", "status": "denied"}
    assert value(registry, "allin_oauth_operations_total", **labels) == 1


def test_authorization_belongs_to_one_user_and_one_use(ann: Social) -> None:
    begun = ann.http.post("/api/v1/platforms/twitter/authorizations").json()
    brought = ann.permit(begun["url"])
    path = "/api/v1/platforms/twitter/callback"
    bob = sign_up(ann.http, "bob@example.com")

    is_problem(ann.http.post(path, json=brought, headers=bob), 422)
    assert ann.http.post(path, json=brought).status_code == 201
    is_problem(ann.http.post(path, json=brought), 422)
    is_problem(ann.http.post(path, json=brought | {"state": "x"}), 422)


@pytest.mark.parametrize("body", [{}, {"code": "x", "error": "y"}, {"code": ""}, {"error": ""}])
def test_bad_returns(ann: Social, body: dict[str, str]) -> None:
    is_problem(ann.http.post("/api/v1/platforms/twitter/callback", json={"state": "x"} | body), 422)


@pytest.mark.parametrize("platform", ["myspace", "Twitter", "x" * 500, "%00"])
def test_unknown_platforms(ann: Social, platform: str) -> None:
    is_problem(ann.http.post(f"/api/v1/platforms/{platform}/authorizations"), 404)
    is_problem(ann.http.post(f"/api/v1/platforms/{platform}/callback", json={"state": "x", "code": "y"}), 404)


def test_disconnecting_revokes_and_takes_posts_off_the_queue(ann: Social, registry: CollectorRegistry) -> None:
    account = ann.connect("twitter")
    path = published(ann, account)
    bob = sign_up(ann.http, "bob@example.com")

    is_problem(ann.http.delete(f"/api/v1/accounts/{account['id']}", headers=bob), 404)
    assert ann.http.get("/api/v1/posts").json()["items"][0]["publications"]
    assert ann.http.delete(f"/api/v1/accounts/{account['id']}").status_code == 204
    is_problem(ann.http.delete(f"/api/v1/accounts/{account['id']}"), 404)
    assert ann.http.get("/api/v1/posts").json()["items"][0]["publications"] == []
    assert ann.http.get(f"{path}/figures").json() == {"items": []}
    labels = {"platform": "twitter", "operation": "revoke", "status": "success"}
    assert value(registry, "allin_oauth_operations_total", **labels) == 1
    assert value(registry, "allin_user_actions_total", action="account_disconnect") == 1


def test_platform_that_is_gone_keeps_nobody_from_leaving(ann: Social, registry: CollectorRegistry) -> None:
    twitter, linkedin = ann.connect("twitter"), ann.connect("linkedin")
    ann.turn("twitter", down=True)

    assert ann.http.delete(f"/api/v1/accounts/{twitter['id']}").status_code == 204
    assert ann.http.delete("/api/v1/users/me").status_code == 204
    for platform, status in (("twitter", "error"), ("linkedin", "success")):
        labels = {"platform": platform, "operation": "revoke", "status": status}
        assert value(registry, "allin_oauth_operations_total", **labels) == 1
    assert linkedin


@pytest.mark.parametrize(
    ("knobs", "status", "says_when"),
    [
        ({"error_ratio": 1, "error_status": 500}, 502, False),
        ({"error_ratio": 1, "error_status": 400}, 502, False),
        ({"error_ratio": 1, "error_status": 429}, 429, True),
        ({"timeout_ratio": 1}, 503, True),
        ({"down": True}, 503, True),
        ({"deny_tokens": True}, 409, False),
    ],
    ids=str,
)
def test_trouble_of_a_platform(ann: Social, knobs: dict[str, object], status: int, says_when: bool) -> None:
    facebook, linkedin = ann.connect("facebook"), ann.connect("linkedin")
    path, both = published(ann, facebook), published(ann, facebook, linkedin)
    ann.turn("facebook", **knobs)

    answer = ann.http.get(f"{path}/figures")

    detail = is_problem(answer, status)
    assert "facebook" in detail
    assert ("retry-after" in answer.headers) == says_when
    assert "imulat" not in answer.text  # nothing of the platform's own words
    # One platform that does its part is enough for an answer.
    items = ann.http.get(f"{both}/figures").json()["items"]
    assert {item["platform"]: item["figures"] is None for item in items} == {"facebook": True, "linkedin": False}


def test_figures_are_kept_for_a_while(ann: Social, registry: CollectorRegistry) -> None:
    path = published(ann, ann.connect("linkedin"))
    first = ann.http.get(f"{path}/figures").json()
    ann.turn("linkedin", down=True)

    assert ann.http.get(f"{path}/figures").json() == first
    assert value(registry, "allin_cache_hits_total", cache_type="figures") == 1
    labels = {"platform": "linkedin", "endpoint": "figures", "status": "success"}
    assert value(registry, "allin_social_api_calls_total", **labels) == 1


def test_post_that_is_nowhere_has_no_figures(ann: Social) -> None:
    path = ann.http.post("/api/v1/posts", json={"text": "draft"}).headers["location"]
    bob = sign_up(ann.http, "bob@example.com")

    assert ann.http.get(f"{path}/figures").json() == {"items": []}
    is_problem(ann.http.get(f"{path}/figures", headers=bob), 404)
    is_problem(ann.http.get("/api/v1/posts/x/figures"), 404)
