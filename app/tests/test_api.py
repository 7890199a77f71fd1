"""The routes as callers see them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.database.engine import Database
from allin_backend.security.tokens import new_token
from allin_backend.web.requests import make_cursor
from support import PASSWORD, Caller, http_scope, is_problem, make_settings, sign_up


def test_index_names_the_other_paths(client: TestClient) -> None:
    links = client.get("/").json()["links"]

    assert links["metrics"] == "/metrics"
    for path in links.values():
        assert client.get(path).status_code in (200, 401, 405), path


def test_health_asks_nothing_of_the_database(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_self: Database, _timeout: float) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(Database, "check", never)
    assert client.get("/health").json() == {"status": "ok"}


def test_ready_names_the_release(tmp_path: Path, registry: CollectorRegistry) -> None:
    with TestClient(create_app(make_settings(tmp_path, ALLIN_RELEASE="2026.11.1"), registry)) as client:
        response = client.get("/ready")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "release": "2026.11.1"}


def test_not_ready_when_no_connection_comes_free_in_time(tmp_path: Path, registry: CollectorRegistry) -> None:
    settings = make_settings(
        tmp_path, ALLIN_DATABASE_POOL_SIZE="1", ALLIN_READY_TIMEOUT_SECONDS="0.2", ALLIN_DATABASE_TIMEOUT_SECONDS="60"
    )
    app = create_app(settings, registry)
    database = _database(app)

    async def scenario() -> Caller:
        async with app.router.lifespan_context(app), database.engine.connect():
            caller = Caller(http_scope("/ready"))
            async with asyncio.timeout(5):
                await caller.run(app)
            return caller

    assert asyncio.run(scenario()).status == 503


def test_not_ready_when_the_schema_is_gone(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/ready").status_code == 200
    with sqlite3.connect(tmp_path / "test.db") as connection:
        connection.execute("DROP TABLE alembic_version")
    connection.close()

    is_problem(client.get("/ready"), 503)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(("found", "status"), [("0001", 503), ("0002", 200), ("0003", 200), ("0004", 503)])
def test_ready_with_the_schema_of_this_release_and_of_the_next(
    client: TestClient, tmp_path: Path, found: str, status: int
) -> None:
    with sqlite3.connect(tmp_path / "test.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (found,))
    connection.close()

    assert client.get("/ready").status_code == status


def test_life_of_a_user(client: TestClient) -> None:
    user = {"email": "Ann@Example.com", "name": "Ann", "password": PASSWORD}
    created = client.post("/api/v1/users", json=user)
    assert created.status_code == 201
    assert created.headers["location"] == "/api/v1/users/me"
    assert created.json() == {
        "id": created.json()["id"],
        "email": "ann@example.com",
        "name": "Ann",
        "created_at": created.json()["created_at"],
    }
    assert created.json()["created_at"].endswith("Z")

    client.headers["Authorization"] = (
        f"Bearer {client.post('/api/v1/sessions', json=_credentials(user)).json()['token']}"
    )
    assert client.get("/api/v1/users/me").json() == created.json()
    client.post("/api/v1/posts", json={"text": "hello"})
    assert client.delete("/api/v1/users/me").status_code == 204
    is_problem(client.get("/api/v1/users/me"), 401)
    is_problem(client.get("/api/v1/posts"), 401)
    assert is_problem(client.post("/api/v1/sessions", json=_credentials(user)), 401)


def test_id_of_a_deleted_user_is_not_used_again(ann: TestClient) -> None:
    user_id = ann.get("/api/v1/users/me").json()["id"]
    ann.delete("/api/v1/users/me")

    body = {"email": "bob@example.com", "name": "Bob", "password": PASSWORD}
    assert ann.post("/api/v1/users", json=body).json()["id"] > user_id


def test_email_belongs_to_one_user(ann: TestClient) -> None:
    body = {"email": "ANN@example.com", "name": "Other", "password": PASSWORD}

    is_problem(ann.post("/api/v1/users", json=body), 409)


def test_life_of_a_post(ann: TestClient) -> None:
    created = ann.post("/api/v1/posts", json={"text": "grüße 👋"})
    assert created.status_code == 201
    post = created.json()
    assert created.headers["location"] == f"/api/v1/posts/{post['id']}"
    assert post == {"id": post["id"], "text": "grüße 👋", "created_at": post["created_at"], "publications": []}

    assert ann.get(f"/api/v1/posts/{post['id']}").json() == post
    assert ann.delete(f"/api/v1/posts/{post['id']}").status_code == 204
    is_problem(ann.get(f"/api/v1/posts/{post['id']}"), 404)
    is_problem(ann.delete(f"/api/v1/posts/{post['id']}"), 404)


def test_posts_of_others_do_not_exist(ann: TestClient) -> None:
    path = ann.post("/api/v1/posts", json={"text": "mine"}).headers["location"]
    bob = sign_up(ann, "bob@example.com")

    is_problem(ann.get(path, headers=bob), 404)
    is_problem(ann.delete(path, headers=bob), 404)
    assert ann.get("/api/v1/posts", headers=bob).json()["items"] == []
    assert ann.get(path).status_code == 200


def test_first_page_shows_each_change(ann: TestClient, registry: CollectorRegistry) -> None:
    def texts() -> list[str]:
        return [post["text"] for post in ann.get("/api/v1/posts").json()["items"]]

    path = ann.post("/api/v1/posts", json={"text": "one"}).headers["location"]
    assert texts() == texts() == ["one"]
    assert registry.get_sample_value("allin_cache_hits_total", {"cache_type": "posts"}) == 1
    ann.post("/api/v1/posts", json={"text": "two"})
    assert texts() == ["two", "one"]
    ann.delete(path)
    assert texts() == ["two"]


def test_pages_cover_every_post_once(ann: TestClient) -> None:
    made = [ann.post("/api/v1/posts", json={"text": str(n)}).json()["id"] for n in range(7)]

    def pages() -> Iterator[list[int]]:
        params: dict[str, str | int] = {"limit": 3}
        while True:
            page = ann.get("/api/v1/posts", params=params).json()
            yield [post["id"] for post in page["items"]]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    assert list(pages()) == [made[:-4:-1], made[3:0:-1], made[:1]]


def test_last_page_that_is_full_has_no_next(ann: TestClient) -> None:
    for number in range(2):
        ann.post("/api/v1/posts", json={"text": str(number)})

    assert ann.get("/api/v1/posts?limit=2").json()["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=" + "9" * 5000),
        *("limt=1", "limit=1&limt=1"),
        *("cursor=x", "cursor=", "cursor=ü", "cursor=" + "9" * 5000),
        *(f"cursor={make_cursor(number)}" for number in (0, 2**63)),
    ],
)
def test_bad_queries(ann: TestClient, query: str) -> None:
    is_problem(ann.get(f"/api/v1/posts?{query}"), 400)


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.0", "٣", "9223372036854775808", "9" * 5000, "1%00", "%20"])
def test_ids_that_cannot_exist(ann: TestClient, text: str) -> None:
    is_problem(ann.get(f"/api/v1/accounts/{text}"), 404)
    is_problem(ann.get(f"/api/v1/posts/{text}"), 404)
    is_problem(ann.delete(f"/api/v1/posts/{text}"), 404)
    is_problem(ann.delete(f"/api/v1/posts/{text}/schedule"), 404)


_GOOD = {"email": "a@example.com", "name": "A", "password": PASSWORD}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("\xff", 400),
        ('{"email": "a@example.com", "name": "\\ud800"}', 400),
        ("[]", 422),
        ("null", 422),
        ("{}", 422),
        ("[" * 100_000, 422),
        *(
            (json.dumps(_GOOD | change), 422)
            for change in (
                {"email": "a example.com"},
                {"email": "@"},
                {"email": "a@example.com\n"},
                {"email": "a@ex\u00a0ample.com"},
                {"email": "a@" + "x" * 190},
                {"email": "\u0130" * 64 + "@" + "\u0130" * 100},  # becomes longer in lower case
                {"name": ""},
                {"name": 1},
                {"name": "x" * 201},
                {"name": "a\0b"},
                {"password": "short"},
                {"password": "x" * 201},
                {"admin": True},
            )
        ),
        *((json.dumps({name: text for name, text in _GOOD.items() if name != left}), 422) for left in _GOOD),
    ],
    ids=lambda parameter: str(parameter)[:60],
)
def test_bad_bodies(client: TestClient, body: str, status: int) -> None:
    response = client.post(
        "/api/v1/users", content=body.encode("latin-1"), headers={"Content-Type": "application/json; charset=utf-8"}
    )

    is_problem(response, status)


@pytest.mark.parametrize("email", ["a@b", "grüße@straße.example", "a" * 64 + "@" + "b" * 189, "!#$%&'*+/=?^_`{|}~@x"])
def test_addresses_that_are_possible(client: TestClient, email: str) -> None:
    assert client.post("/api/v1/users", json=_GOOD | {"email": email}).status_code == 201


@pytest.mark.parametrize("text", ["", "x" * 10_001, "a\0b", 1, None])
def test_bad_posts(ann: TestClient, text: object) -> None:
    is_problem(ann.post("/api/v1/posts", json={"text": text}), 422)


def test_body_must_be_declared_as_json(client: TestClient) -> None:
    is_problem(client.post("/api/v1/users", content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    is_problem(client.post("/api/v1/users", content=b"{}"), 415)


@pytest.mark.parametrize("announced", [True, False])
def test_body_limit(tmp_path: Path, registry: CollectorRegistry, announced: bool) -> None:
    app = create_app(make_settings(tmp_path, ALLIN_REQUEST_BODY_LIMIT_BYTES="2048"), registry)

    def send(size: int) -> Caller:
        headers = {"content-type": "application/json"} | ({"content-length": str(size)} if announced else {})
        caller = Caller(http_scope("/api/v1/users", "POST", headers), body=[b" " * 512] * (size // 512))
        asyncio.run(caller.run(app))
        return caller

    assert send(2048).status == 400  # not too large, but no JSON
    refused = send(4096)
    assert refused.status == 413
    assert (b"content-type", b"application/problem+json") in refused.sent[0]["headers"]
    assert refused.chunks_read == (0 if announced else 5)  # no more than it takes to know
    labels = {"method": "POST", "route": "/api/v1/users", "status_code": "413"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/api/v1/posts", "/api/v1/users"])
def test_header_limit(tmp_path: Path, registry: CollectorRegistry, path: str) -> None:
    settings = make_settings(tmp_path, ALLIN_REQUEST_HEADER_LIMIT_BYTES="1024")
    with TestClient(create_app(settings, registry)) as client:
        usual = sum(len(name) + len(value) for name, value in client.get("/").request.headers.items())
        assert client.get(path, headers={"x": "y" * (1023 - usual)}).status_code in (200, 401, 405)
        refused = client.get(path, headers={"x": "y" * 1024})

    if path != "/api/v1/users":  # there is no GET
        is_problem(refused, 431)
        assert refused.headers["connection"] == "close"
    if path not in ("/metrics", "/api/v1/users"):
        labels = {"method": "GET", "route": path, "status_code": "431"}
        assert registry.get_sample_value("allin_http_requests_total", labels) == 1


def test_methods_that_do_not_exist(client: TestClient) -> None:
    response = client.put("/api/v1/posts")

    is_problem(response, 405)
    assert sorted(response.headers["allow"].split(", ")) == ["GET", "HEAD", "POST"]


def test_paths_that_do_not_exist(client: TestClient) -> None:
    for path in ("/nowhere", "/health/", "/api/v1/posts/", "/api/v1/posts/1/2", "/api//v1/posts"):
        response = client.get(path, follow_redirects=False)
        is_problem(response, 404)
        assert "location" not in response.headers


def test_head_is_answered_like_get(client: TestClient) -> None:
    assert client.head("/health").status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_3", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ('"', False), ("", False)],
)
def test_request_id(client: TestClient, given: str, kept: bool) -> None:
    returned = client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]

    assert (returned == given) is kept
    assert kept or len(returned) == 32


def test_database_that_fails_is_503_and_logged_without_what_people_wrote(
    ann: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(tmp_path / "test.db") as connection:
        connection.execute("DROP TABLE posts")
    connection.close()
    response = ann.post("/api/v1/posts", json={"text": "private words"})

    assert "database" in is_problem(response, 503)
    assert response.headers["retry-after"] == "5"
    assert "no such table" in caplog.text
    assert "private words" not in caplog.text


def test_no_free_connection_is_503(tmp_path: Path, registry: CollectorRegistry) -> None:
    settings = make_settings(tmp_path, ALLIN_DATABASE_POOL_SIZE="1", ALLIN_DATABASE_TIMEOUT_SECONDS="0.2")
    app = create_app(settings, registry)
    database = _database(app)

    async def scenario() -> Caller:
        async with app.router.lifespan_context(app), database.engine.connect():
            headers = {"authorization": f"Bearer {new_token()}"}
            caller = Caller(http_scope("/api/v1/posts", headers=headers))
            await caller.run(app)
            return caller

    assert asyncio.run(scenario()).status == 503


def test_applications_do_not_share_anything(tmp_path: Path) -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    with ExitStack() as stack:
        clients = []
        for number, registry in enumerate(registries):
            directory = tmp_path / str(number)
            directory.mkdir()
            clients.append(stack.enter_context(TestClient(create_app(make_settings(directory), registry))))
        headers = sign_up(clients[0])
        assert clients[1].get("/api/v1/users/me", headers=headers).status_code == 401

    labels = {"method": "POST", "route": "/api/v1/users", "status_code": "201"}
    assert [registry.get_sample_value("allin_http_requests_total", labels) for registry in registries] == [1, 0]


def _database(app: Starlette) -> Database:
    """The database inside an application, for tests that occupy its connections."""
    database = app.state.database
    assert isinstance(database, Database)
    return database


def _credentials(user: dict[str, str]) -> dict[str, str]:
    return {name: user[name] for name in ("email", "password")}
