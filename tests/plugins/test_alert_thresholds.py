"""The filters about thresholds of alerts: every default has a format that it fits, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.action.check_settings import FORMATS
from plugins.filter import alert_thresholds as plugin

ROLE = Path(__file__).parents[2] / "roles" / "prometheus"
DEFAULTS: dict[str, dict[str, Any]] = yaml.safe_load((ROLE / "vars/main.yml").read_text())[
    "__prometheus_alert_threshold_defaults"
]


def test_every_threshold_has_a_format_that_its_default_fits() -> None:
    """Prevents: a new threshold that nobody checks, and a check that refuses what the role itself sets."""
    formats = plugin.threshold_formats(DEFAULTS)
    for alert, options in DEFAULTS.items():
        for key, default in options.items():
            name = formats.pop(f"prometheus_alert_thresholds.{alert}.{key}")
            if "{{" not in str(default):
                assert FORMATS[name].check(default) is None, f"{alert}.{key}"
    assert not formats


def test_every_exception_is_of_a_threshold_that_there_is() -> None:
    assert all(key in DEFAULTS[alert] for alert, key in plugin.EXCEPTIONS)


@pytest.mark.parametrize(
    ("length", "duration"),
    [(60_000, "1m"), (90_000, "90s"), (7_200_000, "2h"), (1500, "1500ms"), (86_400_000, "24h"), (0, "0h")],
)
def test_durations_are_written_and_read(length: int, duration: str) -> None:
    assert plugin.duration_of(length) == duration
    assert plugin.milliseconds(duration) == length


def test_durations_of_several_units_are_read() -> None:
    assert plugin.milliseconds("1y1w1d1h1m1s1ms") == 32_230_861_001
    assert plugin.milliseconds(0) == 0


def scrapes(interval: str | None = "15s", *jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What the role says of its scrapes."""
    names = {"backend": "backend", "alertmanager": "alerts", "grafana": "graphs"}
    return {"interval": interval, "jobs": jobs, "names": names, **more}


def test_the_defaults_in_force_fit_the_default_interval() -> None:
    """Prevents: a role that refuses its own defaults."""
    assert plugin.threshold_problems(DEFAULTS, DEFAULTS, scrapes()) == []


def test_each_problem_is_a_line_of_its_own() -> None:
    thresholds = {"high_error_rate": {"window": "59s", "ratio": None}, "target_down": None}
    window, ratio, alert = plugin.threshold_problems(thresholds, DEFAULTS, scrapes())
    assert window == (
        "prometheus_alert_thresholds.high_error_rate.window: '59s' is too short, it must have room for 4 scrapes. "
        "Make it at least 1m, or lower prometheus_scrape_interval (15s). Write for example: "
        "prometheus_alert_thresholds: {high_error_rate: {window: 5m}}"
    )
    assert ratio.startswith("prometheus_alert_thresholds.high_error_rate.ratio: null is no value. Delete the line")
    assert alert.endswith("prometheus_alert_thresholds: {target_down: {for: 5m}}")


def test_an_example_fits_the_interval_too() -> None:
    (line,) = plugin.threshold_problems({"high_error_rate": {"window": "5m"}}, DEFAULTS, scrapes("2m"))
    assert line.endswith("prometheus_alert_thresholds: {high_error_rate: {window: 8m}}")


@pytest.mark.parametrize("interval", ["1ms", "15s", "30s", "2m"])
def test_the_times_that_grow_with_the_interval_fit_it(interval: str) -> None:
    """Prevents: a role that refuses what it made of its own defaults."""
    grown = plugin.fitting_thresholds(DEFAULTS, scrapes(interval))
    assert plugin.threshold_problems(grown, DEFAULTS, scrapes(interval)) == []


@pytest.mark.parametrize(
    ("alert", "backends", "others", "general"),
    [
        ("backend_absent", "2m", "2m", "2m"),
        ("backend_down", "1m", "15s", "15s"),
        ("background_task_failing", "5m", "1m", "1m"),
        ("target_down", "5m", "5m", "5m"),
        ("inventory_target_missing", "1m", "90s", "15s"),
        ("host_down", "1m", "90s", "1m"),
        ("host_unit_failed", "5m", "5m", "5m"),
    ],
)
def test_the_interval_of_a_job_counts_for_alerts_about_it(alert: str, backends: str, others: str, general: str) -> None:
    defaults = {**DEFAULTS, "inventory_target_missing": {"for": "15s"}}

    def grown(*jobs: dict[str, str]) -> Any:
        return plugin.fitting_thresholds(defaults, scrapes("15s", *jobs))[alert]["for"]

    assert grown({"name": "backend", "scrape_interval": "1m"}, {"name": "node"}) == backends
    assert grown({"name": "backend"}, {"name": "old backend", "scrape_interval": "90s"}) == others
    assert grown({"name": "backend"}, {"name": "node"}) == general


def test_the_backends_own_interval_counts_for_its_alerts_where_it_is_shorter() -> None:
    settings = scrapes("1m", {"name": "backend", "scrape_interval": "15s"})
    grown = plugin.fitting_thresholds(DEFAULTS, settings)
    assert grown["backend_down"] == {"for": "15s"}
    assert grown["high_error_rate"]["window"] == "5m"
    assert plugin.gauge_bridge(settings) == "1m"
    assert plugin.gauge_bridge({**settings, "names": {"backend": "another"}}) == "4m"


@pytest.mark.parametrize(
    ("alert", "key", "subject"),
    [
        ("host_oom_kill", "window", "node"),
        ("host_unit_failed", "for", "node"),
        ("container_absent", "window", "cadvisor"),
        ("service_memory_near_limit", "for", "cadvisor"),
        ("prometheus_notifications_failing", "window", "prometheus"),
        ("scrape_samples_rejected", "window", "prometheus"),
        ("alertmanager_down", "for", "alerts"),
        ("alertmanager_notifications_failing", "window", "alerts"),
        ("grafana_down", "for", "graphs"),
        ("grafana_errors", "window", "graphs"),
        ("certificate_expiry", "for", "an exporter"),
    ],
)
def test_the_interval_of_each_job_counts_for_the_alerts_about_its_targets(alert: str, key: str, subject: str) -> None:
    """Prevents: alerts whose windows have no room for the scrapes of their job, and alerts that wait for another's."""
    names = ("backend", "prometheus", "node", "cadvisor", "alerts", "graphs", "an exporter")
    counting = [
        name
        for name in names
        if plugin.threshold_problems(
            {alert: {key: "1m"}}, DEFAULTS, scrapes("15s", {"name": name, "scrape_interval": "2m"})
        )
    ]
    # A metric may come from any job; up{job="..."} may not.
    others = set() if alert.endswith("_down") else {"an exporter"}
    assert set(counting) == {subject, *others}


def test_the_interval_of_a_job_is_named_with_what_is_too_short_for_it() -> None:
    settings = scrapes("15s", {"name": "node", "scrape_interval": "2m"})
    (line,) = plugin.threshold_problems({"host_cpu_saturated": {"window": "1m"}}, DEFAULTS, settings)
    assert line == (
        "prometheus_alert_thresholds.host_cpu_saturated.window: '1m' is too short, it must have room for 4 scrapes. "
        "Make it at least 8m, or lower the scrape_interval of the job node (2m). Write for example: "
        "prometheus_alert_thresholds: {host_cpu_saturated: {window: 8m}}"
    )


def test_the_interval_of_an_extra_job_counts_for_the_alerts_that_look_at_every_target() -> None:
    extra = [{"job_name": "probes", "scrape_interval": "4m"}, {"job_name": "usual"}, {"scrape_interval": "4m"}]
    defaults = {**DEFAULTS, "inventory_target_missing": {"for": "15s"}}
    grown = plugin.fitting_thresholds(defaults, scrapes("15s", extra=extra))
    changed = {alert for alert, options in grown.items() if options != defaults[alert]}
    assert not changed  # four minutes fit every default
    own = {alert: {"for": "1m"} for alert in ("target_down", "host_down", "backend_down", "host_unit_failed")}
    (line,) = plugin.threshold_problems(own, defaults, scrapes("15s", extra=extra))
    assert "target_down.for: '1m' is too short" in line
    assert "lower the scrape_interval of the job probes in prometheus_extra_scrape_configs (4m)" in line


def test_a_new_target_of_an_extra_job_is_awaited_where_the_inventory_names_it() -> None:
    extra = [{"job_name": "probes", "scrape_interval": "4m"}]
    defaults = {"inventory_target_missing": {"for": "15s"}}
    expected = scrapes("15s", extra=extra, inventory=[{"job": "probes", "targets": []}])
    assert plugin.fitting_thresholds(defaults, expected) == {"inventory_target_missing": {"for": "4m"}}
    assert plugin.fitting_thresholds(defaults, scrapes("15s", extra=extra)) == defaults


def test_what_is_scraped_more_rarely_than_prometheus_remembers_has_rules_of_its_own() -> None:
    """Prevents: alerts of all targets that wait for one that is scraped once an hour."""
    intervals = {"often": "299s", "rare": "5m", "hourly": "1h"}
    extra = [{"job_name": name, "scrape_interval": interval} for name, interval in intervals.items()]
    settings = scrapes("15s", extra=extra, inventory=[{"job": "hourly", "targets": []}])
    assert plugin.rare_jobs(settings) == [
        {"name": "rare", "interval": "5m", "window": "10m", "expected": False},
        {"name": "hourly", "interval": "1h", "window": "65m", "expected": True},
    ]
    assert plugin.fitting_thresholds(DEFAULTS, settings) == DEFAULTS
    assert plugin.probe_memory(settings) == "125m"
    assert plugin.probe_memory(scrapes("15s", extra=extra[:1])) == "1h"


def test_a_wait_of_rules_of_their_own_is_one_interval_at_least() -> None:
    assert [plugin.at_least(value, "10m") for value in ("5m", "15m", "0s", 0)] == ["10m", "15m", "0s", 0]


@pytest.mark.parametrize("name", ["backend", "alerts", "graphs", "prometheus", "node", "cadvisor"])
def test_an_extra_job_that_alerts_are_about_is_scraped_often(name: str) -> None:
    """Prevents: BackendDown that never fires, since up is gone before the next scrape."""
    extra = [{"job_name": name, "scrape_interval": "150s"}]
    (line,) = plugin.threshold_problems({}, DEFAULTS, scrapes("15s", extra=extra))
    assert line == (
        f"prometheus_extra_scrape_configs: the scrape_interval of the job {name}, '150s', is too long for the alerts "
        "about it; at most 2m. Write for example: scrape_interval: 30s"
    )
    extra = [{"job_name": name, "scrape_interval": "2m"}, {"job_name": "other", "scrape_interval": "1d"}]
    assert plugin.threshold_problems({}, DEFAULTS, scrapes("15s", extra=extra)) == []


def test_the_interval_of_an_extra_job_that_alerts_are_about_counts_for_them() -> None:
    settings = scrapes("15s", extra=[{"job_name": "backend", "scrape_interval": "1m"}])
    assert plugin.fitting_thresholds(DEFAULTS, settings)["backend_down"] == {"for": "1m"}
    assert plugin.gauge_bridge(settings) == "4m"
