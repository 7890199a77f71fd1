"""What becomes of a fault: which alerts fire, which messages people get, and when all is quiet again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from apis import Prometheus
from client import Message, SinkClient

POLL_SECONDS = 1.0
WATCHDOG = "Watchdog"
SOON_SECONDS = 600
"""The budgets' tickets want hours, of a history that here is of minutes."""
TITLE = re.compile(r"\[(FIRING|RESOLVED)[^]]*\] (\w+)(?: \((\w+)\))?")

OUTAGES = {"PublishDelayHigh", "TargetFlapping", "BackendRestartingTooOften"}
"""What several outages within half an hour give besides: posts went out late, a target comes and goes, restarts."""

Told = tuple[str, str]
"""Name and severity of the alert that a message is about."""


@dataclass
class Observation:
    """What was seen since `begin`; times are Unix seconds.

    Attributes:
        told: when the first message of an alert came.
        resolved: when the newest message came that says that it is over; not there while the newest one says otherwise.
    """

    prometheus: Prometheus
    sinks: SinkClient
    began: float = field(default_factory=time.time)
    told: dict[Told, float] = field(default_factory=dict)
    resolved: dict[Told, float] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    seen: int = 0

    @classmethod
    def begin(cls, prometheus: Prometheus, sinks: SinkClient) -> Observation:
        """Start to look; what came before does not count."""
        return cls(prometheus, sinks, seen=sinks.last_id())

    def look(self) -> None:
        """Take in the messages that have come since the last look."""
        for message in self.sinks.messages("slack", self.seen):
            self.seen = message.id
            found = TITLE.match(message.title)
            if found is None:
                continue
            self.messages.append(message)
            told = found[2], found[3] or ""
            at = message.received.timestamp()
            self.told.setdefault(told, at)
            if found[1] == "RESOLVED":
                self.resolved[told] = at
            else:
                self.resolved.pop(told, None)

    def states(self) -> dict[str, str]:
        """Return the alerts of the moment: name -> pending or firing. What is pending for hours to come is left out."""
        states: dict[str, str] = {}
        for rule in self.prometheus.rules():
            for alert in rule.get("alerts", []):
                if alert["state"] == "firing" or rule["duration"] <= SOON_SECONDS:
                    states[rule["name"]] = (
                        "firing" if "firing" in (alert["state"], states.get(rule["name"])) else "pending"
                    )
        return {name: state for name, state in states.items() if name != WATCHDOG}

    def fired(self) -> set[str]:
        """Return the names of the alerts that have fired since the beginning, as Prometheus has recorded them."""
        seconds = int(time.time() - self.began) + 1
        found = self.prometheus.query(
            f'group by (alertname) (last_over_time(ALERTS{{alertstate="firing"}}[{seconds}s]))'
        )
        return {one["metric"]["alertname"] for one in found} - {WATCHDOG}

    def names(self) -> set[str]:
        """Return the names of the alerts that people were told of."""
        return {name for name, _ in self.told}

    def wait(self, accept: Callable[[], bool], *, within: float, what: str) -> None:
        """Look until `accept` is content, or raise AssertionError after so many seconds: `what`, and what was seen."""
        deadline = time.monotonic() + within
        while True:
            self.look()
            if accept():
                return
            if time.monotonic() > deadline:
                lines = "".join(f"\n  {message}" for message in self.messages)
                raise AssertionError(
                    f"not within {within:g} s: {what}; alerts now: {self.states()}; messages:{lines or ' none'}"
                )
            time.sleep(POLL_SECONDS)

    def is_quiet(self) -> bool:
        """Say whether no alert fires, none is about to, and people were told that each is over."""
        return self.states() == {} and self.resolved.keys() == self.told.keys()
