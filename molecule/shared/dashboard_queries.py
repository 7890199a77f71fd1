"""Asks a live Prometheus every query of every dashboard: a panel that would be empty is a failure.

    python molecule/shared/dashboard_queries.py http://127.0.0.1:9090

What may be empty is listed here with its reason.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

sys.path.insert(0, str(Path(__file__).parents[2]))

from dashboards import reading


@dataclass(frozen=True)
class Excuse:
    """Why a query may find nothing.

    Attributes:
        dashboard: a regular expression of the dashboard's uid.
        panel: a regular expression of the panel's title and the query's letter in parentheses.
        job: the excuse holds only where Prometheus has no target of this job.
    """

    dashboard: str
    panel: str
    why: str
    job: str = ""

    def covers(self, query: reading.Query, jobs: Collection[str]) -> bool:
        """Whether it holds for a query, where these jobs have targets."""
        return bool(
            self.job not in jobs
            and re.fullmatch(self.dashboard, query.dashboard)
            and re.fullmatch(self.panel, f"{query.panel} ({query.ref})")
        )


EVENT: Final = "has a value only when that happens"
TOLD: Final = "only a platform's answer brings it"
KERNEL: Final = "the kernel or the machine decides whether there is one"
EXCUSES: Final = (
    Excuse(".*", r"(Alerts|Releases) \(annotation\)", EVENT),
    Excuse("allin-overview", r"Firing here \(A\)", EVENT),
    Excuse("allin-alerts", r"(Firing|Firing over time|Fired in this time range|Course) \(.\)", EVENT),
    Excuse("allin-alerts", r"(Notifications that failed|Notifications|Delivered) \(.\)", EVENT),
    Excuse("allin-business", r"(What people do|Publishing delay|Share of posts given up) \(.\)", EVENT),
    Excuse("allin-third-party", r"(Failures by kind|Failed OAuth operations) \(.\)", EVENT),
    Excuse("allin-overview", r"OAuth Success Rate \(.\)", EVENT),
    Excuse("allin-third-party", r"(Allowance used|Requests left|Window ends in|First token to end) \(.\)", TOLD),
    Excuse("allin-third-party", r"Platforms at a glance \([EFG]\)", TOLD),
    Excuse("allin-overview", r".* budget left \(.\)", "recorded every five minutes, so not at once after the start"),
    Excuse("allin-hosts", r"(Failed|Restarts of) units \(A\)", EVENT),
    Excuse("allin-hosts", r"File systems \(E\)", "only where the space of a file system becomes less"),
    Excuse("allin-hosts", r"(Disk .*|File systems|Space left) \(.\)", KERNEL),
    Excuse("allin-hosts", r"(Waiting for resources|Clock) \(.\)", KERNEL),
    Excuse("allin-hosts", r"Hosts at a glance \(E\)", KERNEL),
    Excuse("allin-containers", ".*", "no cAdvisor is scraped", job="cadvisor"),
    Excuse("allin-containers", r".*([Cc]ontainers?|of its limit|Held back|and kills).* \(.\)", "no containers"),
    Excuse("allin-containers", r"(CPU of services|Services at a glance) \(A\)", "cgroup v1 counts only where told to"),
    Excuse("allin-containers", r"(Restarts of services|Killed for lack of memory) \(A\)", EVENT),
    Excuse("allin-containers", r"Services at a glance \(D\)", "Debian 11's cAdvisor does not count kills"),
    Excuse("allin-containers", r"Services at a glance \(F\)", "no service has a limit"),
    Excuse("allin-monitoring", r".*Grafana.* \(.\)", "no Grafana is scraped", job="grafana"),
    Excuse("allin-monitoring", r"Certificates end in \(A\)", "whoever has a blackbox exporter adds it"),
    Excuse("allin-monitoring", r"Alertmanagers \(B\)", "a single Alertmanager makes no cluster"),
    Excuse("allin-monitoring", r"Size on disk \(B\)", "without a limit of size there is none to show"),
    Excuse("allin-monitoring", r"(Failed notifications|Notification latency|Notifications by way) \(A\)", EVENT),
)


class Prometheus(Protocol):
    """What is needed of apis.Prometheus."""

    def api(self, path: str, **parameters: str) -> Any:
        """Return the `data` of /api/v1/<path>. Raises OSError, and ValueError when the answer is no success."""

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of an expression. Raises the same."""


@dataclass(frozen=True)
class Answer:
    """What Prometheus said to a query.

    Attributes:
        series: how many series came back.
        error: what went wrong instead; empty where nothing did.
    """

    query: reading.Query
    series: int
    error: str = ""


def values_of(prometheus: Prometheus, variable: reading.Variable, chosen: Mapping[str, str]) -> list[str]:
    """Return the values that a variable offers where those before it are chosen."""
    selector = reading.fill(variable.selector, chosen)
    found: list[str] = prometheus.api(f"label/{variable.label}/values", **{"match[]": selector})
    return found


def choose(prometheus: Prometheus, dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Return a value for each variable: all where that can be chosen, else the first."""
    chosen = reading.fixed(dashboard)
    for variable in reading.variables(dashboard):
        found = values_of(prometheus, variable, chosen)
        chosen[variable.name] = variable.all_value or (found[0] if found else "")
    return chosen


def answers(prometheus: Prometheus) -> Iterator[Answer]:
    """Yield Prometheus's answer to each query of each dashboard, as of now."""
    for dashboard in reading.dashboards():
        chosen = choose(prometheus, dashboard)
        for query in reading.queries(dashboard):
            try:
                found = prometheus.query(reading.fill(query.expression, chosen))
            except (OSError, ValueError) as error:
                yield Answer(query, 0, str(error))
            else:
                yield Answer(query, len(found))


def jobs_of(prometheus: Prometheus) -> list[str]:
    """Return the jobs that have targets."""
    found: list[str] = prometheus.api("label/job/values", **{"match[]": "up"})
    return found


def reason(query: reading.Query, jobs: Collection[str]) -> str:
    """Return why a query may find nothing where these jobs have targets; empty where it may not."""
    return next((excuse.why for excuse in EXCUSES if excuse.covers(query, jobs)), "")


def complaints(prometheus: Prometheus) -> list[str]:
    """Return what is wrong, a line each: queries that fail, and those that find nothing and should."""
    jobs = jobs_of(prometheus)
    return [
        f"{answer.query}: {answer.error or 'no data'}"
        for answer in answers(prometheus)
        if answer.error or not (answer.series or reason(answer.query, jobs))
    ]


def main() -> int:
    """Print the complaints, and what was excused."""
    prometheus: Prometheus = importlib.import_module("apis").Prometheus(sys.argv[1])
    jobs = jobs_of(prometheus)
    for answer in answers(prometheus):
        if not answer.series and not answer.error and (why := reason(answer.query, jobs)):
            print(f"{answer.query}: no data, and may have none: {why}")
    found = complaints(prometheus)
    print("\n".join(found) or "every other query has data")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
