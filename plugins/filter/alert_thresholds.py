"""Filters about the thresholds of alerts: how each must be written, and how the times fit the scrapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
SHORTEST_BRIDGE_MS = 60_000
LOOKBACK_MS = 300_000
"""After this time Prometheus forgets a sample."""
LONGEST_INTERVAL_MS = 120_000
"""Of jobs that alerts are about."""
SHORTEST_MEMORY_MS = 3_600_000
"""How long the latest probe of a certificate stands for those that fail, at least."""
EXTRA = "prometheus_extra_scrape_configs"
BRIDGED = (
    *("high_cpu_usage", "high_memory_usage", "high_event_loop_lag", "high_open_file_descriptors", "cache_unavailable"),
    *("database_pool_exhausted", "oldest_due_post", "background_task_failing", "social_circuit_open"),
    *("social_rate_limit_running_out", "social_quota_used", "tokens_not_refreshed"),
)
"""Alerts about gauges that are carried over failed scrapes."""
OF_JOBS = {
    "scrape_samples_rejected": "prometheus",
    **dict.fromkeys(("inventory_target_missing", "target_", "scrape_", "host_down", "monitoring_restarting"), "any"),
    "host_": "node",
    **dict.fromkeys(("container_", "service_memory_"), "cadvisor"),
    "prometheus_": "prometheus",
    "alertmanager_": "alertmanager",
    "grafana_": "grafana",
    "certificate_": "certificates",
}
"""What the keys of alerts begin with, and whose targets they are about; the first that fits counts, and the rest is
about the backend's."""
KNOWN_JOBS = ("prometheus", "node", "cadvisor")
"""As the wiring names them; the names of the other jobs that we know are settings."""
OF_ONE_JOB = ("alertmanager_down", "grafana_down")
"""Alerts that ask for up of the job of this name; others ask for metrics."""

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


def is_for(key: str) -> bool:
    """Say whether a threshold is how long something must hold."""
    return key.split("_")[-1] == "for"


@dataclass(frozen=True)
class Scrapes:
    """How often targets are scraped: by default, and those of each job."""

    interval: str
    jobs: Sequence[Mapping[str, Any]] = ()
    extra: Sequence[Mapping[str, Any]] = ()
    inventory: Sequence[Mapping[str, Any]] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Scrapes:
        """Return the scrapes that the role's settings give.

        Args:
            settings: C(interval), a Prometheus duration; C(jobs), `prometheus_scrape_jobs`; C(extra),
                `prometheus_extra_scrape_configs`; C(inventory), `prometheus_inventory_targets`; C(names), of the jobs
                that the rules tell apart. All but the first may be left out.
        """
        return cls(**settings)

    def known(self) -> set[str]:
        """Return the names of the jobs that the rules tell apart."""
        return {*KNOWN_JOBS, *self.names.values()}

    def extra_jobs(self) -> dict[str, tuple[str, str]]:
        """Return the extra jobs that have an interval of their own: name -> setting, interval."""
        return {
            name: (f"the scrape_interval of the job {name} in {EXTRA}", job["scrape_interval"])
            for job in self.extra
            if (name := job.get("job_name")) and job.get("scrape_interval") is not None
        }

    def of(self, alert: str) -> tuple[str, str]:
        """Return the interval that matters to an alert, and the setting that it comes from."""
        general = ("prometheus_scrape_interval", self.interval)
        known, extra = self.known(), self.extra_jobs()
        own = {name: setting for name, setting in extra.items() if name in known}
        own |= {
            str(job["name"]): general
            if job.get("scrape_interval") is None
            else (f"the scrape_interval of the job {job['name']}", job["scrape_interval"])
            for job in self.jobs
        }
        about = next((job for start, job in OF_JOBS.items() if alert.startswith(start)), "backend")
        if about == "any":
            found = [general, *own.values()]
            # A host is down when the targets of several jobs are; those that are scraped more often say how long.
            if alert != "host_down":
                expected = {entry["job"] for entry in self.inventory}
                found += [
                    setting
                    for name, setting in extra.items()
                    if milliseconds(setting[1]) < LOOKBACK_MS
                    if name in expected or alert != "inventory_target_missing"
                ]
        elif about == "backend" or alert in OF_ONE_JOB:
            found = [own.get(self.names.get(about, ""), general)]
        else:
            # The rules ask for metrics, whichever job brings them: one whose name says nothing may be another such job.
            others = known - {self.names.get(about, about)}
            found = [setting for name, setting in own.items() if name not in others] or [general]
        setting, interval = max(found, key=lambda one: milliseconds(one[1]))
        return interval, setting

    def rare(self) -> list[dict[str, Any]]:
        """Return the jobs whose scrapes are further apart than Prometheus remembers one, for rules of their own.

        Each has its C(name), its C(interval), the C(window) in which there is a scrape, whether it succeeded or not,
        and whether the inventory expects it (C(expected)).
        """
        expected = {entry["job"] for entry in self.inventory}
        return [
            {
                "name": name,
                "interval": interval,
                "window": duration_of(milliseconds(interval) + LOOKBACK_MS),
                "expected": name in expected,
            }
            for name, (_, interval) in self.extra_jobs().items()
            if milliseconds(interval) >= LOOKBACK_MS
        ]

    def problems(self) -> Iterator[str]:
        """Yield one line for each extra job that is scraped too rarely for the rules that ask for it by name."""
        for name, (_, interval) in self.extra_jobs().items():
            if name in self.known() and milliseconds(interval) > LONGEST_INTERVAL_MS:
                yield (
                    f"{EXTRA}: the scrape_interval of the job {name}, {interval!r}, is too long for the alerts about "
                    "it; at most 2m. Write for example: scrape_interval: 30s"
                )

    def bridge(self) -> int:
        """Return how long a gauge of the backend is carried over failed scrapes, in milliseconds."""
        return max(SHORTEST_BRIDGE_MS, SCRAPES_IN_WINDOW * milliseconds(self.of("backend_down")[0]))

    def least(self, alert: str, key: str) -> int:
        """Return the shortest time that fits a threshold, in milliseconds; 0 where the threshold is no time."""
        interval = milliseconds(self.of(alert)[0])
        if is_window(key):
            return SCRAPES_IN_WINDOW * interval
        if not is_for(key):
            return 0
        # Longer than the bridge, or the last sample of an instance that is gone would do.
        return interval + self.bridge() if alert in BRIDGED and self.bridge() > SHORTEST_BRIDGE_MS else interval


def fitting(value: object, least: int) -> Any:
    """Return a duration that is at least so long, and 0 as it is: there the alert does not wait."""
    length = milliseconds(value) if least else 0
    return duration_of(least) if 0 < length < least else value


def gauge_bridge(settings: Mapping[str, Any]) -> str:
    """Return how long a gauge of the backend is carried over failed scrapes."""
    return duration_of(Scrapes.read(settings).bridge())


def rare_jobs(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the jobs whose scrapes are further apart than Prometheus remembers one, see `Scrapes.rare`."""
    return Scrapes.read(settings).rare()


def probe_memory(settings: Mapping[str, Any]) -> str:
    """Return how long the latest probe of a certificate stands for those that fail: longer than two intervals."""
    intervals = [milliseconds(job["interval"]) for job in rare_jobs(settings)]
    return duration_of(max(SHORTEST_MEMORY_MS, *(2 * length + LOOKBACK_MS for length in intervals), 0))


def at_least(value: object, duration: str) -> Any:
    """Return a duration that is at least as long as another, and 0 as it is."""
    return fitting(value, milliseconds(duration))


def longest(durations: Sequence[object]) -> Any:
    """Return the longest of several Prometheus durations, as it is written; what is none counts as the shortest."""
    return max(durations, key=milliseconds)


def fitting_thresholds(
    defaults: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the defaults, each window and each "for" as long as the scrapes of the alert's targets need it."""
    scrapes = Scrapes.read(settings)
    return {
        alert: {key: fitting(value, scrapes.least(alert, key)) for key, value in options.items()}
        for alert, options in defaults.items()
    }


def threshold_problems(
    thresholds: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[str]:
    """Return one line for each threshold or interval that does not fit the other, and for each null.

    Args:
        thresholds: what the user has set; each value that is there was checked before.
        defaults: alert -> key -> value.
        settings: how often targets are scraped, see `Scrapes.read`.
    """
    if settings["interval"] is None:  # Prometheus would take a minute for it.
        name = "prometheus_scrape_interval"
        return [f"{name}: null is no value. Delete the line, or write {name}: 15s"]
    scrapes = Scrapes.read(settings)
    fitted = fitting_thresholds(defaults, settings)
    lines = [
        line for alert, options in thresholds.items() for line in problems_of(alert, options, fitted[alert], scrapes)
    ]
    return [*scrapes.problems(), *lines]


def problems_of(
    alert: str, options: Mapping[str, Any] | None, defaults: Mapping[str, Any], scrapes: Scrapes
) -> Iterator[str]:
    """Yield the problems of one alert."""
    if options is None:
        yield f"{VARIABLE}.{alert}: null is no value. Delete the line for the defaults. {write(alert, defaults)}"
        return
    for key, value in options.items():
        place = f"{VARIABLE}.{alert}.{key}"
        example = write(alert, {key: defaults[key]})
        least = scrapes.least(alert, key)
        interval, setting = scrapes.of(alert)
        if value is None:
            yield f"{place}: null is no value. Delete the line for the default. {example}"
        elif fitting(value, least) != value:
            why = (
                f"it must have room for {SCRAPES_IN_WINDOW} scrapes"
                if is_window(key)
                else "one failed scrape, or the last sample of what is gone, would fire"
            )
            yield (
                f"{place}: {str(value)!r} is too short, {why}. Make it at least {duration_of(least)}, or lower "
                f"{setting} ({interval}). {example}"
            )


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return filter name -> function."""
        return {
            "at_least": at_least,
            "fitting_thresholds": fitting_thresholds,
            "gauge_bridge": gauge_bridge,
            "longest": longest,
            "probe_memory": probe_memory,
            "rare_jobs": rare_jobs,
            "threshold_formats": threshold_formats,
            "threshold_problems": threshold_problems,
        }
