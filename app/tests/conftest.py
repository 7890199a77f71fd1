from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from prometheus_client import CollectorRegistry
from sqlalchemy.engine import URL, make_url
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.settings import Settings
from redis_server import redis_server
from services import PostgreSQL
from support import database_url, make_database, make_settings, sign_up

__all__ = ["redis_server"]

# The same examples on every machine, however slow it is: a verdict is about the change that is tested. For other
# examples each time: pytest --hypothesis-profile=default.
hypothesis_settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("steady")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(settings: Settings, registry: CollectorRegistry) -> Starlette:
    return create_app(settings, registry)


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def ann(client: TestClient) -> TestClient:
    """The client of a user who has signed in."""
    client.headers.update(sign_up(client))
    return client


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's own checker. A missing one fails the tests that need it: skipped checks are not seen by anybody."""
    named = os.environ.get("PROMTOOL")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(named) if named else cache / "allin-artifacts/debian/sid/usr/bin/promtool"
    if shutil.which(path) is None:
        pytest.fail(f"promtool is not at {path}: set PROMTOOL to its path, or install it there", pytrace=False)
    return path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL cluster, one for each process that runs tests: each may stop and start its own."""
    cluster = PostgreSQL()
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """The kind of database; a test that uses this runs on both."""
    return str(request.param)


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[URL]:
    """A PostgreSQL database with the present schema."""
    url = postgresql.make_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def empty_postgresql_url(postgresql: PostgreSQL) -> Iterator[URL]:
    """A PostgreSQL database without tables."""
    url = postgresql.make_database(migrated=False)
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def empty_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> URL:
    """A database without tables."""
    if engine == "sqlite":
        return make_url(database_url(tmp_path))
    return cast(URL, request.getfixturevalue("empty_postgresql_url"))


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> URL:
    """A database with the present schema."""
    if engine == "sqlite":
        return make_url(make_database(tmp_path))
    return cast(URL, request.getfixturevalue("postgresql_url"))
