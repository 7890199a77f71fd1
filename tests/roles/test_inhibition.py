"""Causes hide their consequences: what a running Alertmanager of each Debian suite tells of alerts at once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.roles.rendering import MAIL, ROOT, SLACK, render
from tests.sinks.alertmanagers import SUITES, Alertmanager, running

APP1 = {"host": "app1", "environment": "production"}
APP2 = {"host": "app2", "environment": "production"}
BACKEND = {"job": "backend-api-production", "environment": "production"}
#: What the rules about the backend are about; the files are in the role prometheus.
BACKEND_COMPONENTS = {
    component
    for number in ("20", "25", "26", "30")
    for file in (ROOT / "roles/prometheus/templates/rules").glob(f"{number}-*.j2")
    for component in re.findall(r"component: (\w+)", file.read_text())
}

# name of the case, the cause, what it hides, what it does not hide
CASES: list[tuple[str, dict[str, str], list[dict[str, str]], list[dict[str, str]]]] = [
    (
        "critical hides the same thing's warning",
        {"alertname": "HostDiskSpaceLow", "severity": "critical", "mountpoint": "/var", **APP1},
        [
            {"alertname": "HostDiskSpaceLow", "severity": "warning", "mountpoint": "/var", **APP1},
            {"alertname": "HostDiskSpaceLow", "severity": "info", "mountpoint": "/var", **APP1},
        ],
        [
            {"alertname": "HostDiskSpaceLow", "severity": "warning", "mountpoint": "/", **APP1},
            {"alertname": "HostDiskSpaceLow", "severity": "warning", "mountpoint": "/var", **APP2},
            {"alertname": "HostDiskSpaceLow", "severity": "warning", "mountpoint": "/var", "host": "app1"},
            {"alertname": "HostMemoryLow", "severity": "warning", "mountpoint": "/var", **APP1},
            {"alertname": "HostDiskSpaceLow", "severity": "critical", "mountpoint": "/srv", **APP1},
        ],
    ),
    (
        "a platform's critical leaves other platforms alone",
        {"alertname": "SocialApiErrors", "severity": "critical", "platform": "tiktok", **BACKEND},
        [{"alertname": "SocialApiErrors", "severity": "warning", "platform": "tiktok", **BACKEND}],
        [{"alertname": "SocialApiErrors", "severity": "warning", "platform": "twitter", **BACKEND}],
    ),
    (
        "a host that is down hides what is on it",
        {"alertname": "HostDown", "severity": "critical", "component": "host", **APP1},
        [
            {"alertname": "TargetDown", "severity": "warning", "component": "target", "job": "node", **APP1},
            {"alertname": "BackendInstanceDown", "severity": "warning", "instance": "app1:7000", **APP1, **BACKEND},
            {"alertname": "AlertmanagerDown", "severity": "critical", "component": "alertmanager", **APP1},
            {"alertname": "InventoryTargetMissing", "severity": "warning", "component": "target", "job": "x", **APP1},
        ],
        [
            {"alertname": "TargetDown", "severity": "warning", "component": "target", "job": "node", **APP2},
            {"alertname": "TargetDown", "severity": "warning", "host": "app1", "environment": "staging"},
            # Without a host nobody can say that it is on that one.
            {"alertname": "HighErrorRate", "severity": "critical", "component": "http", **BACKEND},
            {"alertname": "Watchdog", "severity": "none", "environment": "production"},
        ],
    ),
    (
        "a host that has no name hides nothing",
        {"alertname": "HostDown", "severity": "critical", "component": "host", "environment": "production"},
        [],
        [{"alertname": "HighErrorRate", "severity": "critical", "component": "http", **BACKEND}],
    ),
    (
        "a backend that is down hides what is measured on it",
        {"alertname": "BackendDown", "severity": "critical", "component": "backend", **BACKEND},
        [
            {"alertname": f"Of{component}", "severity": "critical", "component": component, **BACKEND}
            for component in (*sorted(BACKEND_COMPONENTS), "target", "scrape")
        ],
        [
            {"alertname": "HighErrorRate", "severity": "critical", "component": "http", **BACKEND, "job": "other"},
            {"alertname": "HighErrorRate", "severity": "critical", "component": "http", **BACKEND, "environment": "x"},
            {"alertname": "HostMemoryLow", "severity": "critical", "component": "host", **BACKEND},
            {"alertname": "BackendAbsent", "severity": "critical", "component": "backend", **BACKEND},
        ],
    ),
    (
        "one instance hides its own alerts",
        {"alertname": "BackendInstanceDown", "severity": "warning", "instance": "app1:7000", **BACKEND},
        [
            {
                "alertname": "HighMemoryUsage",
                "severity": "warning",
                "component": "runtime",
                "instance": "app1:7000",
                **BACKEND,
            }
        ],
        [
            {
                "alertname": "HighMemoryUsage",
                "severity": "warning",
                "component": "runtime",
                "instance": "app2:7000",
                **BACKEND,
            },
            {
                "alertname": "HighErrorRate",
                "severity": "critical",
                "component": "http",
                "instance": "app1:7000",
                **BACKEND,
            },
        ],
    ),
    (
        "without cAdvisor nothing is known of containers",
        {"alertname": "TargetDown", "severity": "warning", "component": "target", "job": "cadvisor", **APP1},
        [{"alertname": "ContainerAbsent", "severity": "warning", "component": "container", "name": "x", **APP1}],
        [
            {"alertname": "ContainerAbsent", "severity": "warning", "component": "container", "name": "x", **APP2},
            {"alertname": "HostMemoryLow", "severity": "warning", "component": "host", **APP1},
        ],
    ),
    (
        "a cAdvisor that is not scraped hides the containers of its host, and what has no host",
        {
            "alertname": "InventoryTargetMissing",
            "severity": "warning",
            "component": "target",
            "job": "cadvisor",
            **APP1,
        },
        [
            {"alertname": "ContainerOomKilled", "severity": "warning", "component": "container", "name": "x", **APP1},
            {
                "alertname": "ContainerAbsent",
                "severity": "warning",
                "component": "container",
                "environment": APP1["environment"],
            },
        ],
        [
            {"alertname": "ContainerOomKilled", "severity": "warning", "component": "container", "name": "x", **APP2},
            {"alertname": "HostMemoryLow", "severity": "warning", "component": "host", **APP1},
        ],
    ),
    (
        "errors now are why the budget burns",
        {"alertname": "HighErrorRate", "severity": "critical", "component": "http", **BACKEND},
        [{"alertname": "AvailabilityBudgetBurn", "severity": "warning", "component": "slo", **BACKEND}],
        [
            {"alertname": "AvailabilityBudgetBurn", "severity": "critical", "component": "slo", **BACKEND},
            {"alertname": "DatabaseErrors", "severity": "warning", "component": "database", **BACKEND},
        ],
    ),
    (
        "slow responses hide their median and their tail",
        {"alertname": "SlowResponseTime", "severity": "warning", **BACKEND},
        [
            {"alertname": "SlowMedianResponseTime", "severity": "warning", **BACKEND},
            {"alertname": "SlowTailResponseTime", "severity": "warning", **BACKEND},
        ],
        [
            {"alertname": "LatencyBudgetBurn", "severity": "warning", "slo": "latency", **BACKEND},
            {"alertname": "SlowTailResponseTime", "severity": "warning", **BACKEND, "job": "other"},
        ],
    ),
    (
        "a page for slow responses hides the tickets for their budget",
        {"alertname": "SlowResponseTime", "severity": "critical", **BACKEND},
        [{"alertname": "LatencyBudgetBurn", "severity": "warning", "slo": "latency", **BACKEND}],
        [
            {"alertname": "LatencyBudgetBurn", "severity": "critical", "slo": "latency", **BACKEND},
            {"alertname": "AvailabilityBudgetBurn", "severity": "warning", "slo": "availability", **BACKEND},
        ],
    ),
    (
        "a slow database hides what waits for it, and no page",
        {"alertname": "SlowDatabaseQueries", "severity": "warning", "operation": "select", "table": "posts", **BACKEND},
        [
            {"alertname": "DatabaseErrors", "severity": "warning", **BACKEND},
            {"alertname": "DatabasePoolExhausted", "severity": "warning", "instance": "app1:7000", **BACKEND},
            {"alertname": "SlowResponseTime", "severity": "warning", **BACKEND},
            {"alertname": "SlowMedianResponseTime", "severity": "warning", **BACKEND},
            {"alertname": "SlowTailResponseTime", "severity": "warning", **BACKEND},
            {"alertname": "BackgroundTaskFailing", "severity": "warning", "task": "publisher", **BACKEND},
            {"alertname": "OldestDuePost", "severity": "warning", "platform": "tiktok", **BACKEND},
            {"alertname": "PublishDelayHigh", "severity": "warning", "platform": "tiktok", **BACKEND},
        ],
        [
            {"alertname": "DatabaseErrors", "severity": "critical", **BACKEND},
            {"alertname": "SlowResponseTime", "severity": "critical", **BACKEND},
            {"alertname": "OldestDuePost", "severity": "critical", "platform": "twitter", **BACKEND},
            {"alertname": "HighErrorRate", "severity": "critical", **BACKEND},
            {"alertname": "SlowTailResponseTime", "severity": "warning", **BACKEND, "job": "other"},
        ],
    ),
    (
        "a database that fails hides what waits for it",
        {"alertname": "DatabaseErrors", "severity": "critical", **BACKEND},
        [{"alertname": "BackgroundTaskFailing", "severity": "warning", "task": "publisher", **BACKEND}],
        [{"alertname": "SlowDatabaseQueries", "severity": "warning", "table": "posts", **BACKEND}],
    ),
    (
        "an event loop that is blocked is why responses are slow",
        {"alertname": "HighEventLoopLag", "severity": "warning", "instance": "app1:7000", **BACKEND},
        [{"alertname": "SlowResponseTime", "severity": "warning", **BACKEND}],
        [
            {"alertname": "HighErrorRate", "severity": "critical", **BACKEND},
            {"alertname": "SlowDatabaseQueries", "severity": "warning", **BACKEND},
        ],
    ),
    (
        "a cache that is gone hits nothing",
        {"alertname": "CacheUnavailable", "severity": "warning", **BACKEND},
        [
            {"alertname": "LowCacheHitRate", "severity": "info", "cache_type": "user", **BACKEND},
            {"alertname": "CacheErrors", "severity": "warning", **BACKEND},
        ],
        [{"alertname": "SlowResponseTime", "severity": "warning", **BACKEND}],
    ),
    (
        "a platform that does not answer is why posts to it wait",
        {"alertname": "SocialCircuitOpen", "severity": "warning", "platform": "tiktok", **BACKEND},
        [
            {"alertname": name, "severity": "warning", "platform": "tiktok", **BACKEND}
            for name in (
                "SocialApiFailures",
                "SocialApiSlow",
                "OAuthFailures",
                "TokensNotRefreshed",
                "PostsFailing",
                "OldestDuePost",
                "PublishDelayHigh",
            )
        ],
        [
            {"alertname": "OldestDuePost", "severity": "warning", "platform": "twitter", **BACKEND},
            {"alertname": "OldestDuePost", "severity": "critical", "platform": "tiktok", **BACKEND},
            {"alertname": "SocialQuotaUsed", "severity": "warning", "platform": "tiktok", **BACKEND},
        ],
    ),
    (
        "a full disk fills no more",
        {"alertname": "HostDiskSpaceLow", "severity": "critical", "device": "/dev/a", "instance": "app1:9100", **APP1},
        [
            {
                "alertname": "HostDiskFillingUp",
                "severity": "warning",
                "device": "/dev/a",
                "instance": "app1:9100",
                **APP1,
            }
        ],
        [
            {
                "alertname": "HostDiskFillingUp",
                "severity": "warning",
                "device": "/dev/b",
                "instance": "app1:9100",
                **APP1,
            }
        ],
    ),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inhibition") / "config"
    # Nothing is sent while the test looks.
    render(folder, **SLACK, **MAIL, alertmanager_group_wait="1h", alertmanager_group_wait_critical="1h")
    return folder / "alertmanager.yml"


@pytest.fixture(scope="module", params=SUITES)
def alertmanager(
    request: pytest.FixtureRequest, config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Alertmanager]:
    with running(request.param, config, tmp_path_factory.mktemp("alertmanager")) as sender:
        sender.wait_until_ready()
        yield sender


def send(sender: Alertmanager, alerts: list[dict[str, str]], *, ended: bool = False) -> None:
    now = time.time()
    times = {"startsAt": stamp(now - 60 if ended else now), "endsAt": stamp(now if ended else now + 3600)}
    sender.call("/api/v2/alerts", [{"labels": labels, **times} for labels in alerts])


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def hidden(sender: Alertmanager) -> list[dict[str, str]]:
    found: list[dict[str, Any]] = json.loads(sender.call("/api/v2/alerts?active=false&silenced=false"))
    return [one["labels"] for one in found if one["status"]["inhibitedBy"]]


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_a_cause_hides_its_consequences_and_nothing_else(
    alertmanager: Alertmanager, case: tuple[str, dict[str, str], list[dict[str, str]], list[dict[str, str]]]
) -> None:
    _, cause, consequences, others = case
    everything = [cause, *consequences, *others]
    send(alertmanager, everything)
    try:
        deadline = time.monotonic() + 10
        # The last of what was sent must have been looked at: an alert is judged when it is asked for.
        while True:
            known = json.loads(alertmanager.call("/api/v2/alerts"))
            if len(known) >= len(everything) and len(hidden(alertmanager)) >= len(consequences):
                break
            assert time.monotonic() < deadline, f"hidden: {hidden(alertmanager)}"
            time.sleep(0.05)
        found = hidden(alertmanager)
        assert sorted(found, key=str) == sorted(consequences, key=str)
    finally:
        send(alertmanager, everything, ended=True)
        deadline = time.monotonic() + 10
        while json.loads(alertmanager.call("/api/v2/alerts")) and time.monotonic() < deadline:
            time.sleep(0.05)
