"""How each fault of tools/faults.py is made on the host, and ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from waiting import eventually

from tools.faults import FAULTS

UNIT = "allin-backend.service"
FAULTS_FILE = "/run/allin-backend/faults.json"
SIMULATOR = "http://127.0.0.1:7080/control/platforms"
DISK = "/srv/small"
"""Made by prepare.yml."""
TARGETS = "/etc/prometheus/targets/node.yml"
LONGEST_SECONDS = 1800
"""After so long a fault of the backend ends by itself."""


def kill(host: Any) -> None:
    """Kill the backend at once; stopping the unit keeps systemd from starting it again."""
    host.check_output(f"systemctl kill --signal=KILL {UNIT} && systemctl stop {UNIT}")


def start(host: Any) -> None:
    """Start the backend, and wait until it serves."""
    host.check_output(f"systemctl start {UNIT}")
    ready = "curl --silent --fail --max-time 5 http://127.0.0.1:7000/ready"
    eventually(lambda: host.run(ready).rc, lambda code: code == 0, within=60, what="the backend is ready")


def write_faults(host: Any, faults: dict[str, Any]) -> None:
    """Replace the backend's faults file in one step."""
    new = f"{FAULTS_FILE}.new"
    host.check_output(f"printf %s '{json.dumps(faults)}' > {new} && chmod 0644 {new} && mv {new} {FAULTS_FILE}")


def turn_platforms(host: Any, *, down: bool) -> None:
    """Have the simulator answer for no platform, or for all of them again."""
    for platform in json.loads(host.check_output(f"curl -fsS {SIMULATOR}")):
        body = json.dumps({"down": down})
        host.check_output(f"curl -fsS -X PUT -H 'Content-Type: application/json' -d '{body}' {SIMULATOR}/{platform}")


@contextmanager
def injected(host: Any, name: str) -> Iterator[None]:
    """A fault; it is over when the context is left, however that happens."""
    begin, end = WAYS.get(name, (backend_fault(name), lambda host: write_faults(host, {})))
    begin(host)
    try:
        yield
    finally:
        end(host)


def backend_fault(name: str) -> Callable[[Any], None]:
    """Return what makes a fault that the backend has itself."""

    def begin(host: Any) -> None:
        write_faults(host, {name: {**FAULTS[name].parameters, "until": int(time.time()) + LONGEST_SECONDS}})

    return begin


WAYS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "killed": (kill, start),
    "hung": (
        lambda host: host.check_output(f"systemctl kill --signal=STOP {UNIT}"),
        lambda host: host.check_output(f"systemctl kill --signal=CONT {UNIT}"),
    ),
    "platform-down": (lambda host: turn_platforms(host, down=True), lambda host: turn_platforms(host, down=False)),
    "disk-full": (
        # It ends with an error, because no space is left: that is what it is for.
        lambda host: host.run(f"dd if=/dev/zero of={DISK}/filled bs=1M"),
        lambda host: host.check_output(f"rm {DISK}/filled"),
    ),
    "target-lost": (
        lambda host: host.check_output(f"cp --preserve {TARGETS} /root/targets && echo '[]' > {TARGETS}"),
        # In place: owner and mode stay.
        lambda host: host.check_output(f"cat /root/targets > {TARGETS} && rm /root/targets"),
    ),
}
