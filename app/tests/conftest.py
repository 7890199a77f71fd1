from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend.app import create_app
from allin_backend.settings import Settings
from support import make_settings, sign_up


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
