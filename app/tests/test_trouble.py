"""What the API does while something that it needs is gone, and when that is back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.engine import URL
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.settings import load
from services import PostgreSQL
from support import PASSWORD, is_problem, make_settings, sign_up, value

ANN = {"email": "ann@example.com", "password": PASSWORD}


@pytest.fixture
def client(postgresql_url: URL, registry: CollectorRegistry) -> Iterator[TestClient]:
    """A client of an application on PostgreSQL."""
    settings = load({"ALLIN_DATABASE_URL": postgresql_url.render_as_string(hide_password=False)})
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def stoppable(postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """The database server, which runs again when the test has ended."""
    yield postgresql
    postgresql.stop()
    postgresql.start()


def test_database_that_is_gone_comes_back(
    stoppable: PostgreSQL, postgresql_url: URL, ann: TestClient, registry: CollectorRegistry
) -> None:
    assert ann.get("/api/v1/users/me").status_code == 200  # in the cache now
    stoppable.execute(postgresql_url, "CHECKPOINT")  # this server may forget what it was told last when it crashes
    stoppable.stop()

    for _ in range(2):
        for refused in (
            ann.post("/api/v1/posts", json={"text": "hello"}),
            ann.get("/api/v1/posts?limit=1"),
            ann.post("/api/v1/sessions", json=ANN),
            ann.post("/api/v1/users", json=ANN | {"name": "Ann"}),
            ann.delete("/api/v1/users/me"),
        ):
            assert "database" in is_problem(refused, 503)
            assert refused.headers["retry-after"] == "5"
        not_ready = ann.get("/ready")
        assert "database" in is_problem(not_ready, 503)
        assert not_ready.headers["retry-after"] == "5"
    assert ann.get("/health").status_code == 200
    assert "allin_http_requests_total" in ann.get("/metrics").text
    assert ann.get("/api/v1/users/me").status_code == 200
    assert value(registry, "allin_sign_ins_total", status="wrong_credentials") == 0
    assert value(registry, "allin_user_actions_total", action="post_create") == 0

    stoppable.start()
    assert ann.get("/ready").status_code == 200
    assert ann.post("/api/v1/posts", json={"text": "hello"}).status_code == 201
    assert [post["text"] for post in ann.get("/api/v1/posts").json()["items"]] == ["hello"]


def test_service_that_starts_before_its_database(
    stoppable: PostgreSQL, postgresql_url: URL, registry: CollectorRegistry
) -> None:
    settings = load({"ALLIN_DATABASE_URL": postgresql_url.render_as_string(hide_password=False)})
    stoppable.stop()
    with TestClient(create_app(settings, registry)) as client:
        assert "database" in is_problem(client.get("/ready"), 503)
        assert client.get("/health").status_code == 200
        stoppable.start()
        assert client.get("/ready").status_code == 200
        sign_up(client)


def test_without_the_cache_everything_works(tmp_path: Path, registry: CollectorRegistry) -> None:
    # Nothing listens on port 1.
    settings = make_settings(tmp_path, ALLIN_CACHE_URL="redis://127.0.0.1:1/0")
    with TestClient(create_app(settings, registry)) as client:
        client.headers.update(sign_up(client))
        for number in range(10):
            client.post("/api/v1/posts", json={"text": str(number)})
            assert client.get("/api/v1/posts").json()["items"][0]["text"] == str(number)
        assert client.get("/ready").status_code == 200
        assert client.delete("/api/v1/sessions/current").status_code == 204
        is_problem(client.get("/api/v1/users/me"), 401)

    assert value(registry, "allin_cache_available") == 0
    assert value(registry, "allin_cache_hits_total", cache_type="session") == 0
    misses = value(registry, "allin_cache_misses_total", cache_type="session")
    assert misses is not None
    assert misses >= 20
