"""What the tests of this scenario share: the host, the services' addresses on it, and the tables at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
for directory in (ROOT, ROOT / "molecule" / "shared", ROOT / "molecule" / "shared" / "sinks"):
    sys.path.insert(0, str(directory))

from apis import Alertmanager, Prometheus  # noqa: E402
from client import SinkClient  # noqa: E402
from estate import address_of  # noqa: E402

from tools.faults import FAULTS  # noqa: E402

HOST = "allin-faults"
ONLY = os.environ.get("ALLIN_FAULT", "")
"""The one case that is asked for; empty: all."""
CASES = ("", *FAULTS, "heartbeat", "deployment", "message")
TABLES = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    if ONLY not in CASES:
        raise pytest.UsageError(f"there is no fault {ONLY}; there are: {', '.join(CASES[1:])}")


@pytest.fixture(scope="session")
def host() -> Any:
    """The host as root, for what only its own shell can do: stop a service, fill a disk."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def address() -> str:
    """The host's address on the Docker network."""
    return address_of(HOST)


@pytest.fixture(scope="session")
def prometheus(address: str) -> Prometheus:
    return Prometheus(f"http://{address}:9090")


@pytest.fixture(scope="session")
def alertmanager(address: str) -> Alertmanager:
    return Alertmanager(f"http://{address}:9093")


@pytest.fixture(scope="session")
def sinks(address: str) -> SinkClient:
    return SinkClient(f"http://{address}:8025")


class Table:
    """Lines that are shown when a test has ended, and once more when all have.

    Args:
        title: what it is about.
        columns: their names.
    """

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self.title = title
        self.rows: list[Sequence[str]] = [columns]

    def add(self, *cells: str) -> None:
        """Add a line."""
        self.rows.append(cells)

    def __str__(self) -> str:
        """Return it in Markdown, aligned."""
        widths = [max(len(row[column]) for row in self.rows) for column in range(len(self.rows[0]))]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in self.rows
        ]
        return "\n".join(
            [f"\n{self.title}\n", lines[0], f"| {' | '.join('-' * width for width in widths)} |", *lines[1:]]
        )


@pytest.fixture(scope="module")
def tables(request: pytest.FixtureRequest) -> Iterator[list[Table]]:
    """The tables of a module, which it fills; printed at the end of the run, also after a failure."""
    found: list[Table] = []
    yield found
    request.config.stash.setdefault(TABLES, []).extend(str(table) for table in found if len(table.rows) > 1)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for table in config.stash.get(TABLES, []):
        terminalreporter.write_line(table)
