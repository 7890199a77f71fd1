"""The container host of a scenario, and playbooks run on it again."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Molecule asks for colours, which hide the recap from a reader of text.
PLAIN = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}


@dataclass(frozen=True)
class Run:
    """What a run of a playbook said: its exit code, and everything it printed, in the order in which it was printed."""

    code: int
    output: str

    def changed(self, host: str) -> int:
        """Return the recap's number of changes on a host."""
        recap = next(
            line for line in reversed(self.output.splitlines()) if line.startswith(host) and "changed=" in line
        )
        return int(recap.partition("changed=")[2].split()[0])


def run_site(*options: str) -> Run:
    """Run site.yml on the scenario's inventory with these options of ansible-playbook."""
    return run_playbook("site.yml", *options)


def run_playbook(playbook: str, *options: str) -> Run:
    """Run a playbook on the scenario's inventory with these options of ansible-playbook."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"], playbook, *options],
        cwd=ROOT,
        env=os.environ | PLAIN | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Run(done.returncode, done.stdout)


def address_of(host: str) -> str:
    """Return a container's address on the Docker network. Raises CalledProcessError where there is none."""
    return str(_network_of(host)["IPAddress"])


def gateway_of(host: str) -> str:
    """Return the address under which a container reaches this machine. Raises CalledProcessError where there is none.

    The container is asked and not its network: Docker 20.10 does not say the gateway of a network whose configuration
    names none.
    """
    return str(_network_of(host)["Gateway"])


def _network_of(host: str) -> dict[str, Any]:
    output = subprocess.run(["docker", "inspect", host], check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output)[0]["NetworkSettings"]
    return found
