"""A dead Prometheus or Alertmanager tells nobody; the heartbeat receiver does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from client import Message, SinkClient
from conftest import ONLY, Table
from estate import run_site
from waiting import eventually

# Alertmanager holds on to the last Watchdog of a dead Prometheus for so long, and calls once a minute.
HELD_SECONDS = 240
INTERVAL_SECONDS = 60
# The shortest that the role takes.
LIMIT_SECONDS = 2 * INTERVAL_SECONDS
PATH = "/slack/heartbeat"

pytestmark = pytest.mark.skipif(ONLY not in ("", "heartbeat"), reason="another case is asked for")


@pytest.fixture(scope="module")
def table(tables: list[Table]) -> Iterator[Table]:
    """A receiver that waits for 120 s instead of 300, and the table of what it noticed."""
    settings = {"heartbeat_receiver_expected": [{"name": "allin", "limit_seconds": LIMIT_SECONDS}]}
    run = run_site("--tags", "heartbeat_receiver", "--extra-vars", json.dumps(settings))
    assert run.code == 0, run.output[-3000:]
    found = Table(
        f"Monitoring dead -> message of the heartbeat receiver, in seconds, with limit_seconds: {LIMIT_SECONDS}",
        ["stopped", "s to the message", "s to resolved after the start"],
    )
    tables.append(found)
    return found


@pytest.mark.parametrize(
    ("unit", "longest"),
    [("alertmanager", LIMIT_SECONDS + 10), ("prometheus", LIMIT_SECONDS + HELD_SECONDS + INTERVAL_SECONDS + 10)],
)
def test_the_silence_of_a_dead_service_is_heard(
    host: Any, sinks: SinkClient, table: Table, unit: str, longest: int
) -> None:
    """Prevents: a monitoring that is dead since last week, and nobody who wondered."""

    def heard() -> int:
        return int(json.loads(host.check_output("curl -fsS http://127.0.0.1:8095/"))["allin"]["calls"])

    def is_from_the_receiver(message: Message, begin: str) -> bool:
        return message["path"] == PATH and message.title.startswith(f"[{begin}] Heartbeat allin")

    calls = heard()
    eventually(heard, lambda now: now > calls, within=INTERVAL_SECONDS * 2, what="Alertmanager calls")
    mark = sinks.last_id()
    stopped = time.time()
    host.check_output(f"systemctl stop {unit}")
    try:
        missing = sinks.wait_for(lambda one: is_from_the_receiver(one, "MISSING"), longest, "slack", mark)
    finally:
        host.check_output(f"systemctl start {unit}")
    started = time.time()
    back = sinks.wait_for(lambda one: is_from_the_receiver(one, "RESOLVED"), INTERVAL_SECONDS * 3, "slack", mark)
    seconds = [missing.received.timestamp() - stopped, back.received.timestamp() - started]
    table.add(unit, *(f"{one:.0f}" for one in seconds))
    print(f"\n{' | '.join(table.rows[-1])}")
