"""The performance targets that panels draw in, and where alerts begin.

A target is documented and stands here. Where an alert begins is read from the defaults of the role prometheus, so that
a line in a panel and the alert are one number. An inventory that sets other thresholds moves its alerts, not the lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]


def _limits() -> dict[str, Any]:
    variables = yaml.safe_load((ROOT / "roles/prometheus/vars/main.yml").read_text())
    limits: dict[str, Any] = variables["__prometheus_alert_threshold_defaults"]
    return limits


LIMITS: Final = _limits()
"""Defaults of prometheus_alert_thresholds."""


@dataclass(frozen=True)
class Target:
    """Up to `target` all is well, from `alert` on people are told; the other way round if higher is better."""

    target: float
    alert: float
    higher_is_better: bool = False


P50: Final = Target(0.05, LIMITS["slow_median_response_time"]["seconds"])
P95: Final = Target(0.2, LIMITS["slow_response_time"]["warning_seconds"])
P99: Final = Target(1.0, LIMITS["slow_tail_response_time"]["seconds"])
SUCCESS: Final = Target(0.99, 1 - LIMITS["high_error_rate"]["ratio"], higher_is_better=True)
CACHE_HITS: Final = Target(0.9, LIMITS["low_cache_hit_rate"]["ratio"], higher_is_better=True)
CPU: Final = Target(0.7, LIMITS["high_cpu_usage"]["ratio"])
MEMORY: Final = Target(LIMITS["high_memory_usage"]["warning_bytes"], LIMITS["high_memory_usage"]["critical_bytes"])
EVENT_LOOP_LAG: Final = Target(0.05, LIMITS["high_event_loop_lag"]["seconds"])
