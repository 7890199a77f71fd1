"""Filters about the thresholds of alerts: how each must be written, and what is wrong with those that are set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

DOCUMENTATION = r"""
name: threshold_formats
author: AllIN operations
short_description: The formats of alert thresholds, from their defaults
description:
  - Takes the defaults by alert and key, and returns the format of each for the action C(check_settings), by the path
    of the setting.
  - The key says what it is. C(for) is a duration or 0, C(window) a duration, C(ratio) and C(objective) a share, and
    everything else a number; a key that ends with one of these words, behind C(_), is the same.
options:
  _input:
    description: The defaults, alert -> key -> value.
    type: dict
    required: true
"""

EXAMPLES = r"""
formats: "{{ {'high_error_rate': {'ratio': 0.05}} | threshold_formats }}"
"""

RETURN = r"""
_value:
  description: Path of the setting -> name of the format.
  type: dict
"""

VARIABLE = "prometheus_alert_thresholds"
BY_LAST_WORD = {"for": "duration_or_zero", "window": "duration", "ratio": "share", "objective": "share"}
EXCEPTIONS = {
    # Cores: a process whose libraries run threads of their own uses more than one.
    ("high_cpu_usage", "ratio"): "positive",
    # Reached, not exceeded: 1 is a pool of which every connection is in use.
    ("database_pool_exhausted", "ratio"): "share_or_all",
    # Less than this share is left: 1 is whatever is left.
    ("host_disk_filling_up", "ratio"): "share_or_all",
    ("social_rate_limit_running_out", "ratio"): "share_or_all",
    # A time that is left: 0 is what has ended.
    ("tokens_not_refreshed", "seconds"): "zero_or_more",
    ("certificate_expiry", "warning_days"): "zero_or_more",
    ("certificate_expiry", "critical_days"): "zero_or_more",
    # Fewer failures than this are passed over: 0 is none.
    ("alertmanager_notifications_failing", "webhook_failures"): "zero_or_more",
}
# social_quota_used.ratio is no exception, though some platforms count beyond 100 %: there they refuse requests already,
# and an alert before that is what it is for.
SCRAPES_IN_WINDOW = 4
"""A rate needs two samples, and is to stand a failed scrape."""

UNITS_MS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def format_of(alert: str, key: str, default: object) -> str:
    """Return the name of the format of one threshold."""
    if (alert, key) in EXCEPTIONS:
        return EXCEPTIONS[alert, key]
    words = key.split("_")
    if words[-1] in BY_LAST_WORD:
        return BY_LAST_WORD[words[-1]]
    # None must be exceeded, or is demanded: no restart is allowed, one error is enough.
    if default == 0 or "minimum" in words or words[-1] == "restarts":
        return "zero_or_more"
    return "positive"


def threshold_formats(defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the format of each threshold, by the path of the setting."""
    return {
        f"{VARIABLE}.{alert}.{key}": format_of(alert, key, default)
        for alert, options in defaults.items()
        for key, default in options.items()
    }


def milliseconds(duration: object) -> int:
    """Return a Prometheus duration, which was checked before, in milliseconds; 0 is one."""
    return sum(int(number) * UNITS_MS[unit] for number, unit in re.findall(r"(\d+)(ms|[ywdhms])", str(duration)))


def duration_of(length: int) -> str:
    """Write milliseconds as a Prometheus duration of one unit, the largest that fits."""
    unit = next((unit for unit in ("h", "m", "s") if length % UNITS_MS[unit] == 0), "ms")
    return f"{length // UNITS_MS[unit]}{unit}"


def flow(value: object) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(json.loads(json.dumps(value)), default_flow_style=True, width=10**6, sort_keys=False)
    return str(text).strip().removesuffix("...").strip()


def write(alert: str, value: object) -> str:
    """Return the words that end a message."""
    return f"Write for example: {VARIABLE}: {flow({alert: value})}"


def is_window(key: str) -> bool:
    """Say whether a threshold is what an alert looks back over."""
    return key.split("_")[-1] == "window"


def threshold_problems(
    thresholds: Mapping[str, Any] | None, defaults: Mapping[str, Mapping[str, Any]], scrape_interval: str
) -> list[str]:
    """Return one line for each threshold that is null, or does not fit the interval of the scrapes.

    Args:
        thresholds: what the user has set; each value that is there was checked before.
        defaults: alert -> key -> value.
        scrape_interval: a Prometheus duration.
    """
    if thresholds is None:
        return [f"{VARIABLE}: null is no value. Delete the line, or write {VARIABLE}: {{}}"]
    return [
        line
        for alert, options in thresholds.items()
        for line in problems_of(alert, options, defaults[alert], scrape_interval)
    ]


def problems_of(
    alert: str, options: Mapping[str, Any] | None, defaults: Mapping[str, Any], scrape_interval: str
) -> Iterator[str]:
    """Yield the problems of one alert."""
    if options is None:
        yield f"{VARIABLE}.{alert}: null is no value. Delete the line for the defaults. {write(alert, defaults)}"
        return
    for key, value in options.items():
        place = f"{VARIABLE}.{alert}.{key}"
        example = write(alert, {key: defaults[key]})
        least = SCRAPES_IN_WINDOW * milliseconds(scrape_interval)
        fitting = defaults[key] if milliseconds(defaults[key]) >= least else duration_of(least)
        if value is None:
            yield f"{place}: null is no value. Delete the line for the default. {example}"
        elif is_window(key) and milliseconds(value) < least:
            yield (
                f"{place}: {str(value)!r} is too short, it must have room for {SCRAPES_IN_WINDOW} scrapes. Make it at "
                f"least {duration_of(least)}, or lower prometheus_scrape_interval ({scrape_interval}). "
                f"{write(alert, {key: fitting})}"
            )


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return filter name -> function."""
        return {"threshold_formats": threshold_formats, "threshold_problems": threshold_problems}
