"""PromQL in small pieces, so that a selector is written once and a brace is never doubled."""

from __future__ import annotations

from typing import Final

RATE_INTERVAL: Final = "$__rate_interval"
USERS: Final = 'route!~"/health|/ready|/metrics"'
"""Leaves out probes, which would dilute every ratio; as the recording rules do."""


def select(metric: str, *matchers: str) -> str:
    """Return a selector: select("up", 'job="a"') is up{job="a"}."""
    return f"{metric}{{{', '.join(matchers)}}}" if matchers else metric


def of_backend(metric: str, *matchers: str) -> str:
    """The chosen processes of the chosen environment's backend."""
    return select(metric, 'job="$job"', 'instance=~"$instance"', *matchers)


def of_job(metric: str, *matchers: str) -> str:
    """The chosen environment's backend as a whole; for what is the same in every process, and for records."""
    return select(metric, 'job="$job"', *matchers)


def of_platform(metric: str, *matchers: str) -> str:
    """The chosen platforms, as the chosen environment's backend sees them."""
    return of_job(metric, 'platform=~"$platform"', *matchers)


def of_host(metric: str, *matchers: str) -> str:
    """The chosen hosts."""
    return select(metric, 'host=~"$host"', *matchers)


def rate(selector: str, window: str = RATE_INTERVAL) -> str:
    """Return the increase of a counter a second."""
    return f"rate({selector}[{window}])"


def increase(selector: str, window: str = RATE_INTERVAL) -> str:
    """Return the increase of a counter in a window."""
    return f"increase({selector}[{window}])"


def total(expression: str, *by: str) -> str:
    """Return the sum, over everything or by labels."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def highest(expression: str, *by: str) -> str:
    """Return the highest value, over everything or by labels."""
    return f"max by ({', '.join(by)}) ({expression})" if by else f"max({expression})"


def ratio(part: str, whole: str) -> str:
    """Return part / whole; nothing, instead of NaN, where the whole is 0."""
    return f"{part} / ({whole} > 0)"


def quantile(level: float, buckets: str, *by: str) -> str:
    """Return a quantile of a histogram; nothing, instead of NaN, where nothing was observed."""
    return f"histogram_quantile({level}, {total(buckets, *by, 'le')}) >= 0"


def by_class(requests: str) -> str:
    """Return requests by the class of their status: 2xx, 4xx and so on."""
    # Grafana leaves ${1} alone, because no variable has that name.
    return f'sum by (class) (label_replace({requests}, "class", "${{1}}xx", "status_code", "([1-5]).."))'
