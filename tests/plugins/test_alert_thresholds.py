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


def test_the_defaults_in_force_fit_the_default_interval() -> None:
    """Prevents: a role that refuses its own defaults."""
    assert plugin.threshold_problems(DEFAULTS, DEFAULTS, "15s") == []


def test_each_problem_is_a_line_of_its_own() -> None:
    thresholds = {"high_error_rate": {"window": "59s", "ratio": None}, "target_down": None}
    window, ratio, alert = plugin.threshold_problems(thresholds, DEFAULTS, "15s")
    assert window == (
        "prometheus_alert_thresholds.high_error_rate.window: '59s' is too short, it must have room for 4 scrapes. "
        "Make it at least 1m, or lower prometheus_scrape_interval (15s). Write for example: "
        "prometheus_alert_thresholds: {high_error_rate: {window: 5m}}"
    )
    assert ratio.startswith("prometheus_alert_thresholds.high_error_rate.ratio: null is no value. Delete the line")
    assert alert.endswith("prometheus_alert_thresholds: {target_down: {for: 5m}}")


def test_an_example_fits_the_interval_too() -> None:
    (line,) = plugin.threshold_problems({"high_error_rate": {"window": "5m"}}, DEFAULTS, "2m")
    assert line.endswith("prometheus_alert_thresholds: {high_error_rate: {window: 8m}}")


@pytest.mark.parametrize("interval", ["1ms", "15s", "30s", "2m"])
def test_the_times_that_grow_with_the_interval_fit_it(interval: str) -> None:
    """Prevents: a role that refuses what it made of its own defaults."""
    grown = plugin.fitting_thresholds(DEFAULTS, interval)
    assert plugin.threshold_problems(grown, DEFAULTS, interval) == []


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
        return plugin.fitting_thresholds(defaults, "15s", jobs, "backend")[alert]["for"]

    assert grown({"name": "backend", "scrape_interval": "1m"}, {"name": "node"}) == backends
    assert grown({"name": "backend"}, {"name": "old backend", "scrape_interval": "90s"}) == others
    assert grown({"name": "backend"}, {"name": "node"}) == general


def test_the_backends_own_interval_counts_for_its_alerts_where_it_is_shorter() -> None:
    jobs = [{"name": "backend", "scrape_interval": "15s"}]
    grown = plugin.fitting_thresholds(DEFAULTS, "1m", jobs, "backend")
    assert grown["backend_down"] == {"for": "15s"}
    assert grown["high_error_rate"]["window"] == "5m"
    assert plugin.gauge_bridge("1m", jobs, "backend") == "1m"
    assert plugin.gauge_bridge("1m", jobs, "another") == "4m"
