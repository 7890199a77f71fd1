"""Faults and the alerts that each of them gives: `make demo-fault` says it, `make faults` proves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        meaning: what breaks, in words.
        told: the alerts that people get messages of, firing and resolved.
        hidden: alerts that fire as a consequence of those; Alertmanager keeps them from people.
        may: consequences that come or not, by how much people ask for at the time.
        parameters: of a fault that the backend itself makes, as its faults file has them.
        when: how long it takes with the default settings, in words.
    """

    meaning: str
    told: frozenset[str]
    hidden: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    parameters: Mapping[str, float] = field(default_factory=dict)
    when: str = "about half a minute"

    @property
    def alerts(self) -> frozenset[str]:
        """All alerts that fire."""
        return self.told | self.hidden

    def announcement(self) -> str:
        """What is to be expected, in a sentence."""
        hidden = f"; behind them, told to nobody: {', '.join(sorted(self.hidden))}" if self.hidden else ""
        may = f"; perhaps {', '.join(sorted(self.may))}" if self.may else ""
        return f"{', '.join(sorted(self.told))} after {self.when}{hidden}{may}"


# In the order of `make faults`: the objectives' budgets look back over a history that is minutes long there, so what
# wastes them comes last.
FAULTS: Final[Mapping[str, Fault]] = {
    "killed": Fault("the backend is killed and does not come back", frozenset({"BackendDown"})),
    "hung": Fault("the backend stands still: it takes connections and answers nothing", frozenset({"BackendDown"})),
    "target-lost": Fault(
        "somebody takes a target out of Prometheus by hand",
        frozenset({"InventoryTargetMissing"}),
        when="about a minute and a half",
    ),
    "disk-full": Fault(
        "a file system is filled to the last byte",
        frozenset({"HostDiskSpaceLow"}),
        when="about 10 minutes",
    ),
    "leak": Fault(
        "the process takes 32 MiB more memory each second, up to 1.2 GiB",
        frozenset({"HighMemoryUsage"}),
        parameters={"bytes_per_second": 32 * 2**20, "limit_bytes": 1.2 * 2**30},
        when="about 6 minutes",
    ),
    "platform-down": Fault(
        "no social platform answers",
        frozenset({"SocialCircuitOpen"}),
        may=frozenset({"HighRouteErrorRate"}),
        when="about 3 minutes (when it lasts, OldestDuePost behind it, and HighErrorRate; PublishDelayHigh afterwards)",
    ),
    "cache-off": Fault("the cache answers nothing", frozenset({"LowCacheHitRate"}), when="about 12 minutes"),
    "loop-block": Fault(
        "something blocks the event loop for 0.3 s, again and again",
        frozenset({"HighEventLoopLag"}),
        parameters={"seconds": 0.3, "every_seconds": 0.4},
        when="about 3 minutes",
    ),
    "errors": Fault(
        "three of ten API requests fail with 500",
        frozenset({"HighErrorRate"}),
        parameters={"ratio": 0.3},
        when="about 3 minutes",
    ),
    "slow-db": Fault(
        "every database statement takes 2.2 s longer",
        # The first says why, and the others, which page somebody, what people see of it.
        frozenset({"SlowDatabaseQueries", "SlowResponseTime", "HighErrorRate"}),
        may=frozenset({"DatabaseErrors"}),
        parameters={"seconds": 2.2},
        when="about 7 minutes",
    ),
}
