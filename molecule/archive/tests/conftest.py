"""What the tests of this scenario share: the host, its Prometheus, and a way to run site.yml on it again."""

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

from apis import Prometheus  # noqa: E402
from estate import Run, address_of, run_site  # noqa: E402

HOST = "allin-archive"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "allin-artifacts"


Site = Callable[..., Run]


@pytest.fixture(scope="session")
def site() -> Site:
    """Run site.yml for Prometheus with these variables on top."""

    def run(*options: str, **variables: Any) -> Run:
        return run_site("--tags", "prometheus", "--extra-vars", json.dumps(variables), *options)

    return run


@pytest.fixture(scope="session")
def host() -> Any:
    """The host as root, for what only its own file system can tell: which release is unpacked."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def archives() -> Path:
    """The folder of the test archives."""
    return CACHE / "test-archives"


@pytest.fixture(scope="session")
def prometheus() -> Prometheus:
    return Prometheus(f"http://{address_of(HOST)}:9090")
