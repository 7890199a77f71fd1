"""Rarer scrapes than by default: one that fails is no outage, two are, and gauges are still carried over a gap."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.alert_thresholds import BRIDGED, milliseconds
from tests.rules.rule_files import SUITES, RuleFiles, render, run_promtool, write_cases

UP = 'up{job="backend-api-dev", instance="a"}'
LAG = 'allin_nodejs_eventloop_lag_p95_seconds{job="backend-api-dev", instance="a"}'


def counted(alert: str, seconds: int, number: int) -> dict[str, Any]:
    """So many of an alert fire at a time."""
    samples = [{"labels": "{}", "value": number}] if number else []
    expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    return {"expr": expression, "eval_time": f"{seconds}s", "exp_samples": samples}


def case(interval: int, series: dict[str, str], *expected: tuple[str, int, int]) -> dict[str, Any]:
    values = [{"series": name, "values": text} for name, text in series.items()]
    return {
        "interval": f"{interval}s",
        "input_series": values,
        "promql_expr_test": [counted(alert, at, number) for alert, at, number in expected],
    }


def pass_on_every_release(rules: RuleFiles, tests: list[dict[str, Any]], tmp_path: Path) -> None:
    """The rules do what the cases say, by the promtool of each release of Prometheus."""
    cases = tmp_path / "cases"
    cases.mkdir()
    (cases / "intervals.yml").write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": tests}))
    write_cases(tmp_path / "ready", rules, cases)
    for release in SUITES:
        run = run_promtool(release, "test", "rules", tmp_path / "ready" / "intervals.yml")
        assert run.returncode == 0, f"{release}: {run.stdout}{run.stderr}"


@pytest.mark.parametrize("interval", [30, 60, 120])
def test_alerts_fit_the_interval_of_the_scrapes(interval: int, tmp_path: Path) -> None:
    rules = render(tmp_path / "rendered", prometheus_scrape_interval=f"{interval}s")
    late = {
        'up{job="backend-api-dev", instance="192.0.2.1:7001"}': "_ 1x60",
        'up{job="node", instance="192.0.2.1:9100"}': "_ 1x60",
    }
    tests = [
        case(interval, {UP: "1x4 0 1x60"}, *[("BackendDown", at, 0) for at in range(0, 9 * interval, 15)]),
        case(interval, {UP: "1x4 0x20"}, ("BackendDown", 5 * interval, 0), ("BackendDown", 6 * interval, 1)),
        # Of three targets in the inventory one is never scraped, the others one interval after the first deployment.
        case(
            interval,
            late,
            *[("InventoryTargetMissing", at, 0) for at in range(0, interval, 15)],
            ("InventoryTargetMissing", 2 * interval, 1),
        ),
        # A blocked loop with every other scrape failing; and an instance that is gone after one blocked scrape.
        case(interval, {LAG: "3 stale 3 stale 3 stale " * 10}, ("HighEventLoopLag", 20 * interval, 1)),
        case(interval, {LAG: "0.01x4 3 stale"}, *[("HighEventLoopLag", n * interval, 0) for n in range(20)]),
    ]
    pass_on_every_release(rules, tests, tmp_path)


GROWING = " ".join("stale" if scrape % 5 == 4 else str(100 * scrape) for scrape in range(25))
STANDING = "7x3 stale " * 5
# What makes each alert fire, with every fifth scrape failing.
RARE_AND_FAILING = {
    "HostCpuSaturated": {'node_cpu_seconds_total{job="node", instance="a", cpu="0", mode="idle"}': STANDING},
    "ContainerCpuThrottled": {
        f'container_cpu_cfs_{name}_total{{job="cadvisor", instance="a", name="web"}}': GROWING
        for name in ("throttled_periods", "periods")
    },
    "GrafanaErrors": {
        'grafana_http_request_duration_seconds_count{job="grafana", instance="a", status_code="500"}': GROWING
    },
    "PrometheusNotificationsFailing": {
        'prometheus_notifications_errors_total{job="prometheus", instance="a", alertmanager="b"}': GROWING
    },
}


def test_windows_fit_the_intervals_of_the_jobs_that_they_look_at(tmp_path: Path) -> None:
    """Prevents: alerts that never fire, since their windows have fewer than two samples after each failed scrape."""
    often: list[dict[str, Any]] = [{"name": name, "targets": []} for name in ("backend-api-dev", "alertmanager")]
    rare: list[dict[str, Any]] = [
        {"name": name, "targets": [], "scrape_interval": "2m"} for name in ("node", "cadvisor", "grafana", "prometheus")
    ]
    rules = render(tmp_path / "rendered", prometheus_scrape_jobs=[*often, *rare])
    tests = [case(120, series, (alert, 40 * 60, 1)) for alert, series in RARE_AND_FAILING.items()]
    pass_on_every_release(rules, tests, tmp_path)


def test_alerts_see_targets_that_are_scraped_more_rarely_than_prometheus_remembers(tmp_path: Path) -> None:
    """Prevents: a target that is down and of which nobody is told, as its up is gone before the alert has waited."""
    extra = [{"job_name": "rare", "scrape_interval": "10m"}, {"job_name": "probes", "scrape_interval": "40m"}]
    targets = {"a": {"host": "h"}, "b": {}}
    inventory = [
        {"job": "rare", "targets": list(targets), "target_labels": targets},
        {"job": "node", "targets": ["d"]},
    ]
    rules = render(tmp_path / "rendered", prometheus_extra_scrape_configs=extra, prometheus_inventory_targets=inventory)
    up = 'up{{job="{}", instance="a", host="h"}}'
    certificate = 'probe_ssl_earliest_cert_expiry{job="probes", instance="c"}'
    minute = 60
    tests = [
        # One failed scrape is no outage, two are; and what is no target any more ends.
        case(600, {up.format("rare"): "1 0 1x8"}, *[("TargetDown", at * minute, 0) for at in range(60)]),
        case(
            600,
            {up.format("rare"): "1 0 0 0 stale"},
            *[("TargetDown", at * minute, 0) for at in range(20)],
            *[("TargetDown", at * minute, 1) for at in range(21, 44)],
            ("TargetDown", 46 * minute, 0),
        ),
        # Of two targets in the inventory one is never scraped, the other one interval after the first deployment.
        # A third, of a job that is scraped often, is missing at once.
        case(
            600,
            {up.format("rare"): "_ 1x8"},
            *[("InventoryTargetMissing", at * minute, 1) for at in range(1, 10)],
            *[("InventoryTargetMissing", at * minute, 2) for at in range(11, 60)],
        ),
        # The last of the rare scrapes neither keeps a host up nor makes one of a process that is down.
        case(
            60,
            {up.format("node"): "0x30", up.format("backend-api-dev"): "0x30", up.format("rare"): "1 _x9 0 _x19"},
            *[("HostDown", at * minute, 1) for at in range(2, 20)],
        ),
        case(
            60,
            {up.format("node"): "0x30", up.format("rare"): "0 _x9 0 _x19"},
            *[("HostDown", at * minute, 0) for at in range(20)],
        ),
        # The last probe stands for one that fails.
        case(2400, {certificate: "86400 stale 86400 86400"}, ("CertificateExpiry", 75 * minute, 2)),
    ]
    pass_on_every_release(rules, tests, tmp_path)


def test_each_alert_over_a_bridge_waits_longer_than_it(tmp_path: Path) -> None:
    """Prevents: an alert whose gauges are carried over gaps, that the last sample of an instance that is gone fires."""
    rules = render(tmp_path / "rendered", prometheus_scrape_interval="37s")
    # Four intervals; no time but the bridge is as long, since all windows are longer by default.
    bridged = [alert for alert in rules.alerts() if "[148s]" in alert["expr"]]
    keys = {re.sub(r"(?<!^)(?=[A-Z])", "_", alert["alert"]).lower() for alert in bridged}
    assert keys == set(BRIDGED)
    for alert in bridged:
        assert milliseconds(alert["for"]) >= (148 + 37) * 1000, alert["alert"]
