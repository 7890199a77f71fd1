"""What the tests of this scenario share: the host, Grafana as each person, and a way to deploy Grafana again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(ROOT / "molecule" / "shared"))

from apis import Grafana, Prometheus  # noqa: E402
from estate import Run, address_of, run_playbook  # noqa: E402

HOST = "allin-grafana"

Deploy = Callable[..., Run]
Person = Callable[[str], Grafana]


@pytest.fixture(scope="session")
def deploy() -> Deploy:
    """Run Grafana's playbook with these variables on top."""

    def run(*options: str, **variables: Any) -> Run:
        return run_playbook("playbooks/grafana.yml", "--extra-vars", json.dumps(variables), *options)

    return run


@pytest.fixture(scope="session")
def host() -> Any:
    """The host as root, for what only its own file system can tell: the mode of a secret, a token."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def url() -> str:
    return f"http://{address_of(HOST)}:3001"


@pytest.fixture(scope="session")
def prometheus() -> Prometheus:
    return Prometheus(f"http://{address_of(HOST)}:9090")


@pytest.fixture(scope="session")
def person(url: str) -> Person:
    """Grafana as the person of that login, with the inventory's password."""
    return lambda login: Grafana(url, login, f"molecule-{login}-password")


@pytest.fixture(scope="session")
def admin(person: Person) -> Grafana:
    return person("admin")


@pytest.fixture(scope="session")
def nobody(url: str) -> Grafana:
    return Grafana(url)
