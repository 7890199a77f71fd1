"""From the death of the backend to the message in Slack, with the roles' own intervals."""

from __future__ import annotations

import os
import random
import statistics
import time
from datetime import datetime
from typing import Any

import pytest
from apis import Alertmanager, Prometheus
from client import SinkClient
from conftest import ONLY, Table
from estate import run_site
from injection import kill, start
from observing import OUTAGES, Observation

JOB = "backend-api-dev"
ALERT = "BackendDown"
TOLD = (ALERT, "critical")
SUM = 6
"""The column with the whole time."""
TIMES = 10
SCRAPE_INTERVAL_SECONDS = 15.0
GROUP_WAIT_SECONDS = 5.0
LIMIT_SECONDS = 60.0
# Alertmanager looks every 30 s for groups whose resolved message has gone out, and forgets them. An alert that comes
# before that joins the group, and waits for its group_interval: with this and the way to Alertmanager it comes after.
FORGOTTEN_SECONDS = 15.0
# A cache in memory never gets warm either.
AFTER_MANY = {"LowCacheHitRate", *OUTAGES}

pytestmark = pytest.mark.skipif(ONLY not in ("", "message"), reason="another case is asked for")


def first_sample(prometheus: Prometheus, series: str, value: float, since: float) -> float:
    """Return when a series first had a value after a moment, in Unix seconds, as Prometheus has it."""
    (found,) = prometheus.query(f"{series}[5m]")
    return min(at for at, text in found["values"] if at > since and float(text) == value)


def measure(host: Any, prometheus: Prometheus, alertmanager: Alertmanager, sinks: SinkClient) -> list[float]:
    """Kill the backend once and start it again; return the seconds of each part, their sum, and those to resolved."""
    watch = Observation.begin(prometheus, sinks)
    watch.wait(lambda: ALERT not in watch.states(), within=120, what=f"no {ALERT} before the kill")
    time.sleep(FORGOTTEN_SECONDS + random.uniform(0, SCRAPE_INTERVAL_SECONDS))  # noqa: S311
    killed = time.time()
    kill(host)
    handed: list[float] = []

    def is_told() -> bool:
        # When it comes first: Prometheus sends it again every minute.
        if not handed:
            alerts = [one for one in alertmanager.api("alerts") if one["labels"]["alertname"] == ALERT]
            updated = [datetime.fromisoformat(one["updatedAt"]).timestamp() for one in alerts]
            handed.extend(at for at in updated if at > killed)
        return TOLD in watch.told

    try:
        watch.wait(is_told, within=180, what=f"the message about {ALERT}")
        told = watch.told[TOLD]
        labels = f'alertname="{ALERT}",job="{JOB}"'
        scraped = first_sample(prometheus, f'up{{job="{JOB}"}}', 0, killed)
        active = first_sample(prometheus, f'ALERTS{{alertstate="pending",{labels}}}', 1, killed)
        firing = first_sample(prometheus, f'ALERTS{{alertstate="firing",{labels}}}', 1, killed)
    finally:
        start(host)
    started = time.time()
    watch.wait(lambda: TOLD in watch.resolved, within=420, what=f"the message that {ALERT} is over")
    assert watch.fired() - AFTER_MANY == {ALERT}
    assert watch.names() - AFTER_MANY == {ALERT}
    parts = [scraped - killed, active - scraped, firing - active, handed[0] - firing, GROUP_WAIT_SECONDS]
    parts.append(told - handed[0] - GROUP_WAIT_SECONDS)
    return [*parts, told - killed, watch.resolved[TOLD] - started]


def test_a_dead_backend_is_told_within_a_minute(
    host: Any, prometheus: Prometheus, alertmanager: Alertmanager, sinks: SinkClient, tables: list[Table]
) -> None:
    """Prevents: an alert chain that works, but while people hear of it from their customers."""
    run = run_site()
    assert run.code == 0, run.output[-3000:]
    table = Table(
        "Backend killed -> message in Slack, in seconds, with the default settings",
        [*("kill", "scrape", "evaluation", "for", "hand-over", "group_wait", "delivery", "sum"), "resolved", "load"],
    )
    tables.append(table)
    found = []
    for number in range(1, TIMES + 1):
        load = os.getloadavg()[0]
        found.append([*measure(host, prometheus, alertmanager, sinks), load])
        table.add(str(number), *(f"{one:.1f}" for one in found[-1]))
        print(f"\n{' | '.join(table.rows[-1])}", end="", flush=True)
    columns = list(zip(*found, strict=True))
    table.add("median", *(f"{statistics.median(column):.1f}" for column in columns))
    table.add("max", *(f"{max(column):.1f}" for column in columns))
    assert statistics.median(columns[SUM]) <= LIMIT_SECONDS
