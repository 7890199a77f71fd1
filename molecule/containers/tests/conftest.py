"""What the tests of this scenario share: the host with its Docker engine, and its Prometheus."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(ROOT / "molecule" / "shared"))

from apis import Prometheus, get  # noqa: E402
from estate import address_of  # noqa: E402

HOST = "allin-containers"
IMAGE = "allin-test:1"


@pytest.fixture(scope="session")
def host() -> Any:
    """The host as root, where containers are started and services run."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def prometheus() -> Prometheus:
    return Prometheus(f"http://{address_of(HOST)}:9090")


@pytest.fixture(scope="session")
def version() -> list[int]:
    """The version of the cAdvisor that is deployed."""
    text = get(f"http://{address_of(HOST)}:8080/metrics")
    found = text.partition('cadvisorVersion="')[2].partition('"')[0]
    return [int(part) for part in found.lstrip("v").partition("+")[0].split(".")]


@pytest.fixture
def container(host: Any) -> Iterator[Callable[..., str]]:
    """Start a container with these options, name and command; it is removed after the test."""
    started = []

    def start(name: str, *command: str, options: str = "") -> str:
        started.append(name)
        return str(host.check_output(f"docker run --detach --name {name} {options} {IMAGE} {shlex.join(command)}"))

    yield start
    for name in started:
        host.run(f"docker rm --force {name}")
