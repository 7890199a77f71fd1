#!/usr/bin/python
"""Ansible module `data_check`: find out why a dashboard would be empty: a target is down, or there is no data."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_check
author: AllIN operations
short_description: Find out why a dashboard would be empty
description:
  - Runs on a Prometheus host and asks Prometheus alone. Every target must be up, every target of the inventory must be
    there, and a recent sample of each metric that dashboards and alerts need.
  - Names each trouble as V(Target down) or V(No data), with what was seen and with the cure. Reports, and never fails;
    whoever has registered the result decides.
  - Looks again until all is well or the time is over, since a target that has just been started is first seen at its
    next scrape. Changes nothing.
options:
  prometheus_url:
    description: Address of Prometheus as the host itself reaches it.
    type: str
    required: true
  targets:
    description: What must be scraped, job -> list of V(host:port).
    type: dict
    default: {}
  metrics:
    description: What there must be a sample of, job -> list of names of metrics.
    type: dict
    default: {}
  recent:
    description: Seconds that the newest sample may be old.
    type: float
    default: 180
  timeout:
    description: Seconds after which what is still wrong counts as wrong.
    type: float
    default: 30
"""

EXAMPLES = r"""
- name: Look whether there is data
  data_check:
    prometheus_url: http://127.0.0.1:9090
    targets: {node: ["app1:9100"]}
    metrics: {node: [node_cpu_seconds_total]}
"""

RETURN = r"""
troubles:
  description: What is wrong, each with C(case), C(what), C(seen) and C(cure).
  returned: always
  type: list
  elements: dict
lines:
  description: The same for people, a line each; one line where all is well.
  returned: always
  type: list
  elements: str
"""

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

POLL_SECONDS = 1.0
REQUEST_SECONDS = 10.0
CLOCK_SECONDS = 60.0
"""How far the newest sample may lie in the future."""
DOWN = "Target down"
NO_DATA = "No data"
RUN = "ansible-playbook site.yml --tags prometheus"

# What the scrape said -> what to do. The first that fits.
CURES = (
    (
        r"connection refused",
        "nothing listens there. On {host}: is the service up (systemctl status {unit}), and does it listen on this "
        "address and port (<role>_listen_address, <role>_port)?",
    ),
    (
        r"no such host|server misbehaving|name resolution",
        "{host} has no address: correct ansible_host, or the name service",
    ),
    (
        r"deadline exceeded|i/o timeout|timed out",
        "no answer within the scrape's time. Does a firewall between Prometheus and {host} drop it? If not, the "
        "service is slow: time curl {url}; then prometheus_scrape_timeout",
    ),
    (r"no route to host|network is unreachable", "no way to {host}: routes, or a firewall that refuses"),
    (r"HTTP status 40[13]", "it wants to know who asks: the job's credentials in prometheus_scrape_jobs"),
    (r"HTTP status 404", "the path is wrong, or another service has this port: curl {url}"),
    (r"HTTP status 5", "the service itself fails: journalctl --unit {unit} on {host}"),
    (r"x509|tls|certificate|HTTP response to HTTPS", "TLS: the job's scheme and tls_config, the certificate of {host}"),
    (r"sample_limit|limit exceeded", "more than the job's limit: prometheus_scrape_jobs, or who made so many series"),
    (
        r"content.type|parsing|expected|invalid|unsupported",
        "what answers there is no exporter, or not the one that is meant: curl {url}",
    ),
)
UNITS = {"node": "node_exporter"}


class PrometheusError(Exception):
    """Prometheus does not answer as it should; the text says how."""


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        case: how people call it.
        what: where it is.
        seen: what was seen there.
        cure: what to do.
    """

    case: str
    what: str
    seen: str
    cure: str

    def __str__(self) -> str:
        """Return it as a line for people."""
        return f"{self.case}: {self.what}: {self.seen}. Cure: {self.cure}{'' if self.cure.endswith('?') else '.'}"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


class Prometheus:
    """The API of one Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A service of the host itself; a proxy from the environment cannot reach a loopback address.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer. Raises PrometheusError."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with self.opener.open(f"{self.url}/api/v1/{path}{query}", timeout=REQUEST_SECONDS) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            raise PrometheusError(f"{path} answers {error.code}: {' '.join(text.split())[:200]}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrometheusError(f"it does not answer: {getattr(error, 'reason', error)}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression. Raises PrometheusError."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def number(self, expression: str) -> float | None:
        """Return the one value of an expression; nothing where it has none. Raises PrometheusError."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


class Check:
    """One look at everything."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.prometheus = Prometheus(parameters["prometheus_url"])
        self.wanted: dict[str, list[str]] = parameters["targets"]
        self.metrics: dict[str, list[str]] = parameters["metrics"]
        self.recent: float = parameters["recent"]
        self.waiting = False
        """Some target has not been scraped yet."""

    def look(self) -> list[Trouble]:
        """Return all that is wrong."""
        try:
            active: list[dict[str, Any]] = self.prometheus.get("targets", state="active")["activeTargets"]
            self.waiting = any(one["health"] == "unknown" for one in active)
            down = [trouble for one in active if (trouble := self.of_target(one))]
            return [*down, *self.forgotten(active), *self.without_data(active)]
        except PrometheusError as error:
            cure = "systemctl status prometheus; journalctl --unit prometheus"
            return [Trouble(NO_DATA, f"Prometheus at {self.prometheus.url}", str(error), cure)]

    def of_target(self, target: dict[str, Any]) -> Trouble | None:
        """Return what is wrong with a target that Prometheus knows."""
        if target["health"] == "up":
            return None
        labels = target["labels"]
        what = f"{labels['job']} {labels['instance']}"
        if target["health"] == "unknown":
            return Trouble(DOWN, what, "it has not been scraped yet", "wait for a scrape interval, and look again")
        seen = str(target["lastError"])
        host = labels.get("host") or labels["instance"].rpartition(":")[0]
        unit = UNITS.get(labels["job"], "allin-backend" if labels["job"].startswith("backend") else labels["job"])
        cure = next((cure for pattern, cure in CURES if re.search(pattern, seen, re.IGNORECASE)), "curl {url}")
        # Its beginning repeats the address.
        seen = re.sub(r'^Get "[^"]*": ', "", seen)
        return Trouble(DOWN, what, seen, cure.format(host=host, unit=unit, url=target["scrapeUrl"]))

    def forgotten(self, active: list[dict[str, Any]]) -> list[Trouble]:
        """Return the targets of the inventory that Prometheus does not know."""
        known = {(one["labels"]["job"], one["labels"]["instance"]) for one in active}
        found = []
        for job, targets in self.wanted.items():
            for target in targets:
                if (job, target) in known:
                    continue
                other = sorted(name for name, instance in known if instance == target)
                seen = f"it is scraped as job {', '.join(other)}" if other else "Prometheus was never told of it"
                cure = f"{RUN}; if that changes nothing: prometheus_scrape_jobs has another job name or no such target"
                found.append(Trouble(NO_DATA, f"{job} {target}", seen, cure))
        return found

    def without_data(self, active: list[dict[str, Any]]) -> list[Trouble]:
        """Return the metrics of which there is no recent sample."""
        up = {one["labels"]["job"] for one in active if one["health"] == "up"}
        missing: dict[str, list[str]] = {}
        for job, names in self.metrics.items():
            if job not in up:
                continue  # it is down, or forgotten, and has been named
            for name in names:
                if self.age(name, job) > self.recent:
                    missing.setdefault(job, []).append(name)
        if not missing:
            return []
        if clock := self.clock():
            return [clock]
        return [self.reason(job, names, active) for job, names in missing.items()]

    def age(self, name: str, job: str) -> float:
        """Return how old the newest sample is, in seconds. Raises PrometheusError."""
        age = self.prometheus.number(f"time() - max(timestamp({name}{{job={json.dumps(job)}}}))")
        return float("inf") if age is None else age

    def clock(self) -> Trouble | None:
        """Return what is wrong with the time of what Prometheus has written."""
        newest = int(self.prometheus.get("status/tsdb")["headStats"]["maxTime"]) / 1000
        ahead = newest - time.time()
        if ahead > CLOCK_SECONDS:
            seen = f"its newest sample lies {duration(ahead)} in the future: the host's clock was set back"
            cure = (
                f"nothing is taken until the clock has caught up, in {duration(ahead)}. If that is too long: "
                "stop Prometheus, move chunks_head and wal of its data directory away, start it; synchronise the clock"
            )
            return Trouble(NO_DATA, "Prometheus", seen, cure)
        if ahead < -self.recent:
            seen = f"it has written nothing for {duration(-ahead)}, though it scrapes"
            cure = "is its disk full? df -h; journalctl --unit prometheus says why"
            return Trouble(NO_DATA, "Prometheus", seen, cure)
        return None

    def reason(self, job: str, names: list[str], active: list[dict[str, Any]]) -> Trouble:
        """Return why there are no samples of some metrics of a job that is up. Raises PrometheusError."""
        name = names[0]
        what = f"{job}: {name}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        earlier = self.prometheus.query(f"count(present_over_time({name}{{job={json.dumps(job)}}}[1h]))")
        url = next(one["scrapeUrl"] for one in active if one["labels"]["job"] == job and one["health"] == "up")
        return Trouble(
            NO_DATA,
            what,
            "the target is up, and "
            + ("there was a sample within the last hour, but none now" if earlier else "has not had it for an hour"),
            f"does the service have it? curl {url} | grep {name}. If so, the job's metric_relabel_configs drop it",
        )

    def summary(self) -> str:
        """Return the line for when all is well."""
        targets = sum(map(len, self.wanted.values()))
        names = sum(map(len, self.metrics.values()))
        return f"{targets} targets of the inventory are up, and there are recent samples of {names} metrics."


def main() -> None:
    """Look until all is well or the time is over."""
    module = AnsibleModule(
        argument_spec={
            "prometheus_url": {"type": "str", "required": True},
            "targets": {"type": "dict", "default": {}},
            "metrics": {"type": "dict", "default": {}},
            "recent": {"type": "float", "default": 180},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    check = Check(module.params)
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        troubles = check.look()
        if not troubles or time.monotonic() + POLL_SECONDS > deadline:
            break
        time.sleep(POLL_SECONDS)
    module.exit_json(
        changed=False,
        troubles=[vars(one) for one in troubles],
        lines=[str(one) for one in troubles] or [check.summary()],
    )


if __name__ == "__main__":
    main()
