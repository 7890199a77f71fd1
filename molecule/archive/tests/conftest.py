"""What the tests of this scenario share: the host, its Prometheus, and a way to run site.yml on it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(ROOT / "molecule" / "shared"))

from apis import Prometheus  # noqa: E402

# Molecule asks for colours, which hide the recap from a reader of text.
PLAIN = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
HOST = "allin-archive"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "allin-artifacts"


@dataclass(frozen=True)
class Run:
    """What a run of site.yml said: its exit code, and everything it printed."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """The recap's number of changes on our host."""
        recap = next(
            line for line in reversed(self.output.splitlines()) if line.startswith(HOST) and "changed=" in line
        )
        return int(recap.partition("changed=")[2].split()[0])


Site = Callable[..., Run]


@pytest.fixture(scope="session")
def site() -> Site:
    """Run site.yml for Prometheus with these variables on top."""

    def run(*options: str, **variables: Any) -> Run:
        environment = os.environ | PLAIN | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        command = ["ansible-playbook", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"], "site.yml"]
        command += ["--tags", "prometheus", "--extra-vars", json.dumps(variables), *options]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return Run(done.returncode, done.stdout + done.stderr)

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
    output = subprocess.run(["docker", "inspect", HOST], check=True, capture_output=True, text=True).stdout
    return Prometheus(f"http://{json.loads(output)[0]['NetworkSettings']['IPAddress']}:9090")
