"""What the tests of this scenario share: the host, and the services' addresses on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(ROOT / "molecule" / "shared"))
sys.path.insert(0, str(ROOT / "molecule" / "shared" / "sinks"))

from apis import Alertmanager, Prometheus  # noqa: E402
from client import SinkClient  # noqa: E402
from estate import address_of  # noqa: E402

HOST = "allin-molecule"


@pytest.fixture(scope="session")
def host() -> Any:
    """The host as root, for what only its own shell can do: stop a service, read a mode."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def address() -> str:
    """The host's address on the Docker network."""
    return address_of(HOST)


@pytest.fixture(scope="session")
def backend(address: str) -> str:
    return f"http://{address}:7000"


@pytest.fixture(scope="session")
def prometheus(address: str) -> Prometheus:
    return Prometheus(f"http://{address}:9090")


@pytest.fixture(scope="session")
def alertmanager(address: str) -> Alertmanager:
    return Alertmanager(f"http://{address}:9093")


@pytest.fixture(scope="session")
def sinks(address: str) -> SinkClient:
    return SinkClient(f"http://{address}:8025")
