#!/usr/bin/env python3
"""Prints what of the local stack runs where: service, version, URL, state.

Everything is asked over the services' own public APIs, as a person would. Exit code 0 when all of them answer,
1 when one does not.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 3.0
LEFT_OUT = "left out (its archive was not to be had)"
FIRST_SCRAPES_SECONDS = 25.0  # more than the scrape interval of 15 s


@dataclass(frozen=True)
class Service:
    """One row of the table.

    name: what people call it; url: where they open it; probe: address that answers when it works;
    version: takes the probe's body to a version string; job: of a service that may be left out, the job that scrapes it
    where it is not.
    """

    name: str
    url: str
    probe: str
    version: Callable[[str], str]
    job: str = ""


def _json_path(*keys: str) -> Callable[[str], str]:
    def read(body: str) -> str:
        value = json.loads(body)
        for key in keys:
            value = value[key]
        return str(value)

    return read


def _build_info(metric: str, label: str) -> Callable[[str], str]:
    def read(body: str) -> str:
        found = re.search(rf'^{metric}\{{(?:[^}}]*,)?{label}="([^"]+)"', body, re.MULTILINE)
        return found[1] if found else "?"

    return read


# Made by the first run (inventories/local/group_vars/all/vars.yml).
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
SECRET = CACHE / "allin-artifacts/local-secrets/grafana-admin-password"

SERVICES = (
    Service("Backend", "http://127.0.0.1:7000/", "http://127.0.0.1:7000/ready", _json_path("release")),
    Service(
        "Prometheus",
        "http://127.0.0.1:9090/",
        "http://127.0.0.1:9090/api/v1/status/buildinfo",
        _json_path("data", "version"),
    ),
    Service(
        "Alertmanager",
        "http://127.0.0.1:9093/",
        "http://127.0.0.1:9093/api/v2/status",
        _json_path("versionInfo", "version"),
    ),
    Service(
        "cAdvisor",
        "http://127.0.0.1:8080/",
        "http://127.0.0.1:8080/metrics",
        _build_info("cadvisor_version_info", "cadvisorVersion"),
    ),
    Service(
        "Grafana", "http://127.0.0.1:3001/", "http://127.0.0.1:3001/api/health", _json_path("version"), job="grafana"
    ),
    Service("Messages (Slack, mail)", "http://127.0.0.1:8025/", "http://127.0.0.1:8025/health", lambda _: "-"),
)


def fetch(url: str) -> str:
    """Return the body of `url`. Raises OSError when nobody answers with a 2xx within TIMEOUT_SECONDS."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - our own constants
        return str(response.read().decode())


def row(service: Service, jobs: set[str]) -> tuple[str, str, str, str]:
    """Ask one service and return its row: name, version, URL, state. `jobs` are those that Prometheus scrapes."""
    try:
        version = service.version(fetch(service.probe))
    except (OSError, ValueError, KeyError) as error:
        if service.job and jobs and service.job not in jobs:
            return service.name, "-", service.url, LEFT_OUT
        return service.name, "?", service.url, f"NOT ANSWERING ({error})"
    return service.name, version, service.url, "up"


def targets() -> list[tuple[str, str, str, str]]:
    """Return a row for each target of Prometheus: job, instance, health.

    Waits FIRST_SCRAPES_SECONDS at most until all have been scraped once, which a fresh Prometheus has not done yet.
    """
    deadline = time.monotonic() + FIRST_SCRAPES_SECONDS
    found: list[dict[str, Any]] = []
    while True:
        try:
            found = json.loads(fetch("http://127.0.0.1:9090/api/v1/targets?state=active"))["data"]["activeTargets"]
        except (OSError, ValueError, KeyError):
            return []
        if (found and all(one["health"] != "unknown" for one in found)) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    rows = [(f"  scrapes {one['labels']['job']}", "", one["labels"]["instance"], one["health"]) for one in found]
    return sorted(rows)


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """Return the rows as aligned columns."""
    widths = [max(len(line[column]) for line in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows
    )


def main() -> int:
    """Print the table; return the process's exit code."""
    scraped = targets()
    jobs = {name.removeprefix("  scrapes ") for name, *_ in scraped}
    services = [row(service, jobs) for service in SERVICES]
    prometheus = 1 + next(number for number, service in enumerate(SERVICES) if service.name == "Prometheus")
    rows = [*services[:prometheus], *scraped, *services[prometheus:]]
    print(table([("SERVICE", "VERSION", "WHERE", "STATE"), *rows]))
    if any(state not in ("up", LEFT_OUT) for *_, state in rows):
        print("\nSomething does not answer. Look at it with: docker exec allin-local systemctl --failed")
        return 1
    print("\nSee a message arrive: open http://127.0.0.1:8025/, then")
    print("  docker exec allin-local systemctl stop allin-backend    # about half a minute later: BackendDown")
    print("  docker exec allin-local systemctl start allin-backend   # and its resolved message")
    if SECRET.is_file() and not any(state == LEFT_OUT for *_, state in rows):
        print(f"Sign in to Grafana as admin; the password is in {SECRET}")
    print("Remove everything: make down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
