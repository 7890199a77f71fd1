"""Signing in and out, what a session opens, and how often it may be tried."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.database.engine import Database
from allin_backend.database.tables import now
from allin_backend.database.users import UserStore
from allin_backend.security.tokens import digest, new_token
from allin_backend.web import guard
from allin_backend.web.limits import RateLimiter
from support import PASSWORD, is_problem, make_settings, sign_up, value

ANN = {"email": "ann@example.com", "password": PASSWORD}


def token_of(client: TestClient) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


def test_session_is_told_once_and_stored_as_a_digest(client: TestClient, tmp_path: Path) -> None:
    sign_up(client)
    response = client.post("/api/v1/sessions", json=ANN | {"email": "ANN@example.com"})

    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    session = response.json()
    assert sorted(session) == ["expires_at", "token"]
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert digest(session["token"]) in dump
    assert session["token"] not in dump
    assert PASSWORD not in dump


@pytest.mark.parametrize("wrong", [{"password": PASSWORD + "x"}, {"email": "bob@example.com"}])
def test_wrong_credentials_are_not_told_apart(
    ann: TestClient, registry: CollectorRegistry, wrong: dict[str, str]
) -> None:
    response = ann.post("/api/v1/sessions", json=ANN | wrong)

    assert is_problem(response, 401) == "No user has this email address and password."
    assert response.headers["www-authenticate"] == "Bearer"
    assert value(registry, "allin_sign_ins_total", status="wrong_credentials") == 1
    assert value(registry, "allin_sign_ins_total", status="success") == 1


def test_user_of_the_release_before_cannot_sign_in(client: TestClient, app: Starlette) -> None:
    async def make() -> None:
        database: Database = app.state.database
        await UserStore(database).create("old@example.com", "Old", None)

    portal = client.portal
    assert portal is not None
    portal.call(make)

    is_problem(client.post("/api/v1/sessions", json={"email": "old@example.com", "password": "x"}), 401)


def test_without_a_session_nothing_opens(ann: TestClient) -> None:
    token = token_of(ann)
    del ann.headers["authorization"]

    for text in (
        "",
        token,
        f"Basic {token}",
        f"Bearer  {token}",
        f"Bearer {token[:-1]}",
        f"Bearer {token}x",
        f"Bearer {digest(token)}",
        f"Bearer {new_token()}",
    ):
        response = ann.get("/api/v1/users/me", headers={"Authorization": text})
        is_problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    is_problem(ann.get("/api/v1/users/me"), 401)
    assert ann.get("/api/v1/users/me", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_every_operation_is_open_or_asks_for_a_session(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    opened = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            response = client.request(method, path.format(post_id=1, account_id=1, platform="facebook"))
            assert (response.status_code == 401) == (operation["security"] == [{"session": []}]), (method, path)
            if not operation["security"]:
                opened.add((method, path))

    assert opened == {
        ("get", "/"),
        ("get", "/health"),
        ("get", "/ready"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
        ("post", "/api/v1/users"),
        ("post", "/api/v1/sessions"),
    }


def test_sign_out_ends_this_session_only(ann: TestClient, registry: CollectorRegistry) -> None:
    other = ann.post("/api/v1/sessions", json=ANN).json()["token"]

    assert ann.get("/api/v1/users/me").status_code == 200  # in the cache now
    assert ann.delete("/api/v1/sessions/current").status_code == 204
    is_problem(ann.get("/api/v1/users/me"), 401)
    is_problem(ann.delete("/api/v1/sessions/current"), 401)
    assert ann.get("/api/v1/users/me", headers={"Authorization": f"Bearer {other}"}).status_code == 200
    assert value(registry, "allin_user_actions_total", action="sign_out") == 1


def test_deleted_user_has_no_session_left(ann: TestClient) -> None:
    other = {"Authorization": f"Bearer {ann.post('/api/v1/sessions', json=ANN).json()['token']}"}
    for headers in ({}, other):
        assert ann.get("/api/v1/users/me", headers=headers).status_code == 200

    assert ann.delete("/api/v1/users/me").status_code == 204
    for headers in ({}, other):
        is_problem(ann.get("/api/v1/users/me", headers=headers), 401)


def test_session_of_a_user_whom_another_process_deleted_writes_nothing(ann: TestClient, tmp_path: Path) -> None:
    assert ann.get("/api/v1/users/me").status_code == 200  # in the cache now
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM users")
        connection.commit()

    is_problem(ann.post("/api/v1/posts", json={"text": "hello"}), 401)


def test_session_ends(ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ann.get("/api/v1/users/me").status_code == 200  # in the cache now
    end = now() + timedelta(days=7)
    monkeypatch.setattr(guard, "now", lambda: end)

    is_problem(ann.get("/api/v1/users/me"), 401)


def test_look_ups_go_through_the_cache(ann: TestClient, registry: CollectorRegistry) -> None:
    for _ in range(5):
        ann.get("/api/v1/users/me")

    for cache_type in ("session", "user"):
        assert value(registry, "allin_cache_misses_total", cache_type=cache_type) == 1
        assert value(registry, "allin_cache_hits_total", cache_type=cache_type) == 4
    assert value(registry, "allin_db_queries_total", operation="select", table="sessions", status="success") == 1


def test_text_that_is_no_token_costs_no_look_up(client: TestClient, registry: CollectorRegistry) -> None:
    for text in ("", "x", "allin_", "allin_" + "x" * 500):
        client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {text}"})

    assert value(registry, "allin_cache_misses_total", cache_type="session") == 0


def test_entries_of_another_release_are_read_anew(ann: TestClient, app: Starlette) -> None:
    cache = app.state.cache
    portal = ann.portal
    assert portal is not None
    ann.get("/api/v1/users/me")
    for key in ("session", digest(token_of(ann))), ("user", "1"):
        portal.call(cache.set, *key, b'{"other": "fields"}', 60)

    assert ann.get("/api/v1/users/me").status_code == 200


@pytest.fixture
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bucket is filled up during the test, however slow the machine."""
    standing = partial(RateLimiter, clock=lambda: 0.0)
    monkeypatch.setattr("allin_backend.app.RateLimiter", standing)
    monkeypatch.setattr("allin_backend.web.sessions.RateLimiter", standing)


def limited(directory: Path, registry: CollectorRegistry, **variables: str) -> TestClient:
    return TestClient(create_app(make_settings(directory, **variables), registry))


@pytest.mark.usefixtures("standing_clock")
def test_requests_of_a_user_are_limited(tmp_path: Path, registry: CollectorRegistry) -> None:
    with limited(tmp_path, registry, ALLIN_RATE_LIMIT_PER_MINUTE="4") as client:
        ann, bob = sign_up(client), sign_up(client, "bob@example.com")  # four without a session
        answers = [client.get("/api/v1/users/me", headers=ann) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        is_problem(answers[-1], 429)
        assert answers[-1].headers["retry-after"] == "15"
        assert client.get("/api/v1/users/me", headers=bob).status_code == 200  # a share of their own
        for path in ("/health", "/ready", "/metrics"):
            assert {client.get(path).status_code for _ in range(10)} == {200}, path

    labels = {"method": "GET", "route": "/api/v1/users/me", "status_code": "429"}
    assert value(registry, "allin_http_requests_total", **labels) == 2


@pytest.mark.usefixtures("standing_clock")
@pytest.mark.parametrize("path", ["/", "/nowhere", "/openapi.json", "/api/v1/users/me", "/api/v1/posts?limit=1"])
def test_requests_of_an_address_are_limited(tmp_path: Path, registry: CollectorRegistry, path: str) -> None:
    variables = {"ALLIN_RATE_LIMIT_PER_MINUTE": "3", "ALLIN_TRUSTED_PROXIES": "192.0.2.0/24"}
    with limited(tmp_path, registry, **variables) as client:
        client = TestClient(client.app, client=("192.0.2.1", 1))
        statuses = [client.get(path, headers={"X-Forwarded-For": "198.51.100.7"}).status_code for _ in range(5)]
        assert statuses[3:] == [429, 429]
        assert 429 not in statuses[:3]
        assert client.get(path, headers={"X-Forwarded-For": "198.51.100.8"}).status_code == statuses[0]


@pytest.mark.usefixtures("standing_clock")
def test_attempts_to_sign_in_are_limited_for_each_address(tmp_path: Path, registry: CollectorRegistry) -> None:
    variables = {"ALLIN_SIGN_IN_LIMIT_PER_MINUTE": "3", "ALLIN_TRUSTED_PROXIES": "192.0.2.0/24"}
    with limited(tmp_path, registry, **variables) as client:
        client = TestClient(client.app, client=("192.0.2.1", 1))
        body = {"email": "ann@example.com", "name": "Ann", "password": PASSWORD}
        client.post("/api/v1/users", json=body)
        guess = ANN | {"password": "a guess"}

        def attempt(credentials: dict[str, str], address: str) -> Any:
            return client.post("/api/v1/sessions", json=credentials, headers={"X-Forwarded-For": address})

        assert [attempt(guess, "198.51.100.7").status_code for _ in range(3)] == [401] * 3
        refused = attempt(ANN | {"email": "ANN@example.com"}, "198.51.100.7")
        is_problem(refused, 429)
        assert refused.headers["retry-after"] == "20"
        assert attempt(guess | {"email": "bob@example.com"}, "198.51.100.7").status_code == 401
        assert attempt(ANN, "198.51.100.8").status_code == 201  # nobody is kept out by somebody else's guesses
        assert value(registry, "allin_sign_ins_total", status="rate_limited") == 1
        assert value(registry, "allin_sign_ins_total", status="wrong_credentials") == 4

        # From many addresses, too, there are not endless tries at one user.
        statuses = [attempt(guess, f"198.51.100.{number}").status_code for number in range(10, 50)]
        assert statuses[:26] == [401] * 26
        assert statuses[26:] == [429] * 14
