"""What the tests of this scenario share: the host with Docker and Prometheus, and the one with services alone."""

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
SERVICES = "allin-services"
IMAGE = "allin-test:1"


@pytest.fixture(scope="session")
def host() -> Any:
    """The host as root, where containers are started and services run."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def services() -> Any:
    """The host without a Docker engine, as root."""
    return testinfra.get_host(f"docker://{SERVICES}")


@pytest.fixture(scope="session")
def prometheus() -> Prometheus:
    return Prometheus(f"http://{address_of(HOST)}:9090")


def version_on(host: str) -> str:
    """Return the version of the cAdvisor that runs on a host. Raises OSError where none answers."""
    text = get(f"http://{address_of(host)}:8080/metrics")
    return text.partition('cadvisorVersion="')[2].partition('"')[0]


@pytest.fixture(scope="session")
def version() -> list[int]:
    """The version of the cAdvisor that is deployed."""
    return [int(part) for part in version_on(HOST).lstrip("v").partition("+")[0].split(".")]


def firing(prometheus: Prometheus, alert: str) -> set[str]:
    """Return the containers, services or units about which an alert fires."""
    return {
        one["labels"].get("name", one["labels"].get("service", ""))
        for one in prometheus.api("alerts")["alerts"]
        if one["labels"]["alertname"] == alert and one["state"] == "firing"
    }


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


@pytest.fixture
def unit(services: Any) -> Iterator[Callable[..., None]]:
    """Start a script as a unit of this name with these properties, where services are alone; it goes after the test."""
    started = []

    def start(name: str, script: str, *properties: str) -> None:
        started.append(name)
        options = shlex.join(f"--property={one}" for one in properties)
        services.check_output(f"systemd-run --quiet --unit {name} {options} sh -c {shlex.quote(script)}")

    yield start
    for name in started:
        services.run(f"systemctl stop {name}; systemctl reset-failed {name}")
