"""Ten faults: each gives its alerts and no others, people are told of the cause, and it ends when the fault does."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from apis import Prometheus
from client import SinkClient
from conftest import ONLY, Table
from estate import run_site
from injection import injected
from observing import Observation

from tools.faults import FAULTS

# Only how long something must last is shortened, so that the ten fit into an hour: no threshold, no window of a rate.
HURRIED = {
    "alertmanager_group_interval": "15s",
    "alertmanager_group_interval_critical": "15s",
    "prometheus_alert_thresholds": {
        "slow_response_time": {"for": "1m"},
        "slow_database_queries": {"for": "1m"},
        "social_circuit_open": {"for": "30s"},
        "low_cache_hit_rate": {"for": "1m", "minimum_lookups": 200},
        "high_memory_usage": {"for": "1m"},
        "host_disk_space_low": {"critical_for": "1m"},
    },
}
TOLD_SECONDS = 900
QUIET_SECONDS = 1200

pytestmark = pytest.mark.skipif(ONLY not in ("", *FAULTS), reason="another case is asked for")


@pytest.fixture(scope="module")
def hurried(tables: list[Table]) -> Table:
    """The stack with some "for" shortened, and the table of what the faults gave."""
    run = run_site("--extra-vars", json.dumps(HURRIED))
    assert run.code == 0, run.output[-3000:]
    print(f"\nFor the faults these settings are shortened: {json.dumps(HURRIED)}")
    table = Table(
        f"Faults, with {json.dumps(HURRIED)}",
        ["fault", "expected", "perhaps", "told", "fired", "s to the message", "s to resolved"],
    )
    tables.append(table)
    return table


@pytest.mark.parametrize("name", [name for name in FAULTS if ONLY in ("", name)])
def test_a_fault_gives_exactly_its_alerts(
    host: Any, prometheus: Prometheus, sinks: SinkClient, hurried: Table, name: str
) -> None:
    """Prevents: a fault that nobody hears of, one that raises a dozen alarms, and an alarm that does not end."""
    fault = FAULTS[name]
    before = Observation.begin(prometheus, sinks)
    before.wait(before.is_quiet, within=QUIET_SECONDS, what="no alert before the fault")
    watch = Observation.begin(prometheus, sinks)
    expected = {
        "told": set(fault.told),
        "fired": set(fault.alerts),
    }
    told = resolved = "-"
    try:
        with injected(host, name):
            watch.wait(
                lambda: watch.names() >= fault.told and watch.fired() >= fault.alerts,
                within=TOLD_SECONDS,
                what=f"messages about {sorted(fault.told)} while {sorted(fault.alerts)} fire",
            )
            told = f"{max(at for (alert, _), at in watch.told.items() if alert in fault.told) - watch.began:.0f}"
        ended = time.time()
        watch.wait(watch.is_quiet, within=QUIET_SECONDS, what="everything is over, and people know")
        resolved = f"{max(watch.resolved.values()) - ended:.0f}"
    finally:
        found = {"told": watch.names(), "fired": watch.fired()}
        row = [sorted(fault.alerts), sorted(fault.may), sorted(found["told"]), sorted(found["fired"])]
        hurried.add(name, *(", ".join(names) or "-" for names in row), told, resolved)
        print(f"\n{' | '.join(hurried.rows[-1])}", flush=True)
    assert {kind: names - fault.may for kind, names in found.items()} == expected
