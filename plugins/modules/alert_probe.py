#!/usr/bin/python
"""Ansible module `alert_probe`: send a test alert along the real path and see it arrive, firing and resolved."""

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_probe
author: AllIN operations
short_description: Send a test alert along the real path and see it arrive, firing and resolved
description:
  - Runs on a Prometheus host. Writes a rules file of its own with one alert that carries a one-time id, has Prometheus
    read it, and follows the alert through Prometheus, every Alertmanager, the route and each integration; then lets it
    end and follows the resolved message.
  - The file is removed again, also after a failure. Its rule ends by itself, so that even a file that is left behind by
    a killed process alerts nobody after the time that the module may take.
  - Whether a message was delivered is asked where it should be (O(receipts)), or else told by what Alertmanager counts
    per integration, sent without an error. These counts are not of the probe alone.
  - Nothing is different afterwards, so it reports no change. In check mode nothing is sent.
options:
  prometheus_url:
    description: Address of Prometheus as the host itself reaches it.
    type: str
    required: true
  rules_file:
    description: Path of the rules file, which one of Prometheus' C(rule_files) must match.
    type: path
    required: true
  reload:
    description: Command that has Prometheus read its configuration.
    type: list
    elements: str
    required: true
  check:
    description: Command that says what is wrong with the configuration when Prometheus refuses it.
    type: list
    elements: str
    required: true
  labels:
    description: Labels of the alert, of which the route makes its choice.
    type: dict
    required: true
  integrations:
    description: What the alert must be routed to, by Alertmanager's names, such as V(slack) and V(email).
    type: list
    elements: str
    required: true
  receipts:
    description: Where to ask whether a message arrived.
    type: list
    elements: dict
    default: []
    suboptions:
      integration:
        description: Whose message it is, one of O(integrations).
        type: str
        required: true
      url:
        description: Address that answers a JSON list of messages, or an object with one in V(messages).
        type: str
        required: true
      authorization:
        description: The header of that name.
        type: str
  settle:
    description:
      - Seconds between a reload and the moment at which the alert begins or ends. After a reload Prometheus up to 2.53
        knows no Alertmanager for 5 s, and what it has to send then waits for a minute.
    type: float
    default: 10
  firing_timeout:
    description: Seconds within which everybody must know that it fires, from the moment on at which it begins.
    type: float
    default: 90
  resolved_timeout:
    description: Seconds within which everybody must know that it is over; longer than Alertmanager's group_interval.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: Send a probe to whoever gets critical alerts
  alert_probe:
    prometheus_url: http://127.0.0.1:9090
    rules_file: /etc/prometheus/rules/90-probe.rules.yml
    reload: [systemctl, reload, prometheus.service]
    check: [promtool, check, config, /etc/prometheus/prometheus.yml]
    labels: {severity: critical}
    integrations: [slack, email]
"""

RETURN = r"""
id:
  description: The one-time id.
  returned: when a probe was sent
  type: str
table:
  description: The hops with their times, a line each.
  returned: when a probe was sent
  type: list
  elements: str
broken:
  description: Names of the hops that failed, in the order of the path.
  returned: when a probe was sent
  type: list
  elements: str
"""

import json
import os
import re
import secrets
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

ALERT = "AlertPathProbe"
POLL_SECONDS = 0.5
REQUEST_SECONDS = 5.0
COMMAND_SECONDS = 60.0
REFUSED_SECONDS = 5.0
"""How long after a reload Prometheus may still report the failure of an earlier one."""
DISCOVERY_SECONDS = 10.0
"""How long after its start Prometheus may know no Alertmanager yet."""
NONE = ""
NAMES = {"slack": "Slack", "email": "Mail"}
ADVICE = {
    "rule": "run the check command above on the Prometheus host; journalctl --unit prometheus",
    "alertmanager": "is it up, and does the firewall let Prometheus reach it? systemctl status alertmanager",
    "route": "amtool config routes test --config.file=/etc/alertmanager/alertmanager.yml {labels}",
    "slack": "alertmanager_slack_api_url and the channel; journalctl --unit alertmanager says what Slack answered",
    "email": "alertmanager_smtp_smarthost and the account; journalctl --unit alertmanager has the server's answer",
}
MUTE_TIMES = (
    "alertmanager_mute_times, mute_times in alertmanager_environments or alertmanager_teams, and the intervals of your "
    "own routes; wait until that time is over{instead}"
)


class ProbeError(Exception):
    """The probe cannot be sent; the text says why and what to do."""


@dataclass
class Hop:
    """One step of the path, and when it was seen to work."""

    key: str
    name: str
    firing: float | None = None
    resolved: float | None = None
    how: str = ""
    lacking: str = ""
    """What was seen last instead of what should have been."""
    final: bool = False
    """Waiting longer cannot help."""
    by_intent: bool = False
    """A mute time keeps the alert back, or may do so."""
    retried: float = 0.0
    """Attempts that failed before one went well, of both phases."""

    def look(self, phase: str, look: Callable[[str], str], now: float) -> bool:
        """Look once, unless it was seen before; return whether the phase has got past this hop."""
        if getattr(self, phase) is not None or self.final:
            return getattr(self, phase) is not None
        try:
            how = look(phase)
        except (OSError, ValueError, KeyError) as error:
            self.lacking = f"cannot be asked: {getattr(error, 'reason', error)}"
            return False
        if how:
            self.how, self.lacking = how, ""
            setattr(self, phase, now)
        return bool(how)


REFUSED_UNSEEN = " (this Alertmanager does not see a mail that the server refuses after its text: 0.28 does)"


@dataclass
class Counts:
    """What Alertmanager has counted of one integration, over all of them."""

    begun: float = 0.0
    """Messages, each of one attempt or more."""
    sent: float = 0.0
    failed: float = 0.0
    """Attempts."""
    given_up: float = 0.0
    """Messages, after their last attempt."""
    reasons: set[str] = field(default_factory=set)
    blind: bool = False
    """One does not see a mail that is refused after its text: Alertmanager before 0.28 (pull request 4006 there)."""


def get(url: str, authorization: str = "") -> str:
    """Return the body of an address. Raises OSError."""
    headers = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - of the inventory, not of a stranger
    # What is asked is the estate's own; a proxy from the environment cannot reach a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=REQUEST_SECONDS) as response:
        return str(response.read().decode("utf-8", "replace"))


def samples(text: str, name: str) -> dict[str, float]:
    """Return the samples of one metric in a scrape, by the text of their labels."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def integrations_of(config: str) -> dict[str, set[str]]:
    """Return each receiver's integrations, from the configuration as Alertmanager itself writes it.

    That form is always the same (block style, two spaces), so that no YAML library is needed on the host.
    """
    found: dict[str, set[str]] = {}
    section = receiver = ""
    for line in config.splitlines():
        if re.match(r"\w", line):
            section = line.partition(":")[0]
        elif section == "receivers":
            if match := re.match(r"- name: (.*)", line):
                receiver = match[1].strip("\"'")
                found[receiver] = set()
            elif match := re.match(r"  (\w+)_configs:", line):
                found[receiver].add(match[1])
    return found


def intervals_of(config: str) -> dict[str, set[str]]:
    """Return the time intervals in which, or outside which, routes to a receiver are mute; the same form is read."""
    found: dict[str, set[str]] = {}
    section = key = ""
    routes: list[tuple[int, str]] = []
    """The route that is being read and those that it is part of: the column of their keys, and the receiver."""
    for line in config.splitlines():
        if re.match(r"\w", line):
            section, routes = line.partition(":")[0], [(2, "")]
        elif section != "route":
            continue
        elif match := re.match(r"( *)(- )?(\w+):(?: (.*))?$", line):
            column = len(match[1] + (match[2] or ""))
            # What begins with a dash is a route of its own, beside the one before.
            while len(routes) > 1 and routes[-1][0] >= column + (not match[2]):
                routes.pop()
            if match[2]:
                # Without a receiver of its own it has that of the route around it.
                routes.append((column, routes[-1][1]))
            key = match[3] if column == routes[-1][0] else ""
            if key == "receiver":
                routes[-1] = (column, match[4].strip("\"'"))
        elif key in ("mute_time_intervals", "active_time_intervals"):
            found.setdefault(routes[-1][1], set()).add(line.strip().removeprefix("- ").strip("\"'"))
    return found


def messages_in(answer: Any) -> list[str]:
    """Return the messages of a receipt's answer, each as lower-case text. Raises ValueError."""
    messages = answer.get("messages") if isinstance(answer, dict) else answer
    if not isinstance(messages, list):
        raise ValueError(f"the answer is no list of messages: {json.dumps(answer)[:200]}")  # noqa: TRY004 - from outside
    return [json.dumps(message).lower() for message in messages]


class Probe:
    """One test alert, and what is seen of it on its way."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.id = secrets.token_hex(4)
        self.parameters = parameters
        self.prometheus = parameters["prometheus_url"].rstrip("/")
        self.file = Path(parameters["rules_file"])
        self.labels: dict[str, str] = {**parameters["labels"], "component": "probe", "probe_id": self.id}
        # A group of its own, which waits for no other probe's interval: job is among what messages are grouped by.
        self.labels.setdefault("job", f"probe-{self.id}")
        self.settle = parameters["settle"]
        self.seconds = parameters["firing_timeout"] + parameters["resolved_timeout"] + 2 * self.settle
        self.rule = Hop("rule", "Rule in Prometheus")
        self.alertmanagers: dict[str, Hop] = {}
        self.route = Hop("route", "Route of " + ",".join(f"{k}={v}" for k, v in sorted(parameters["labels"].items())))
        self.deliveries = {one: Hop(one, NAMES.get(one, one)) for one in parameters["integrations"]}
        self.receipts = {one["integration"]: one for one in parameters["receipts"]}
        self.integrations: dict[str, set[str]] = {}
        """Of each receiver."""
        self.unsaid: dict[str, set[str]] = {}
        """Time intervals of each integration's routes, where Alertmanager does not say whether one is in force."""
        self.before: dict[str, Counts] = {}
        self.started = time.time()
        self.reloaded = 0.0
        self.wrote = False

    # --- The rules file -----------------------------------------------------------------------------------------------

    def document(self, start: float, end: float) -> str:
        """Return the rules file of an alert that fires between two times, as JSON, which is YAML too."""
        rule = {
            "alert": ALERT,
            # It ends by itself, whatever becomes of this process.
            "expr": f"vector(time()) > {start:.0f} < {end:.0f}",
            "labels": self.labels,
            "annotations": {
                "summary": f"Test of the alert path (id {self.id})",
                "description": "Nothing is wrong: playbooks/verify.yml looks whether messages arrive.",
            },
        }
        return json.dumps({"groups": [{"name": "alert-path-probe", "rules": [rule]}]}, indent=2) + "\n"

    def write(self, start: float, end: float) -> None:
        """Put the rules file in place and have Prometheus read it. Raises OSError, ProbeError."""
        new = self.file.with_name(f".{self.file.name}.new")
        new.write_text(self.document(start, end))
        new.chmod(0o640)
        # Prometheus may read what its group may read.
        os.chown(new, -1, self.file.parent.stat().st_gid)
        new.replace(self.file)
        self.wrote = True
        self.reload()

    def reload(self) -> None:
        """Have Prometheus read its configuration. Raises ProbeError."""
        done = self.command(self.parameters["reload"])
        self.reloaded = time.time()
        if done.returncode:
            raise ProbeError(f"{' '.join(self.parameters['reload'])} failed: {done.stdout.strip()[-500:]}")

    @staticmethod
    def command(words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command and return its code and output. Raises OSError, subprocess.TimeoutExpired."""
        return subprocess.run(
            words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_SECONDS
        )

    def remove(self) -> None:
        """Take the rules file away again. Raises OSError, ProbeError."""
        if self.wrote:
            self.file.unlink(missing_ok=True)
            self.wrote = False
            self.reload()

    # --- What is seen -------------------------------------------------------------------------------------------------

    def look_at_rule(self, phase: str) -> str:
        """See whether Prometheus evaluates the rule, and to what."""
        groups = json.loads(get(f"{self.prometheus}/api/v1/rules?type=alert"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        rule = next((one for one in rules if one["labels"].get("probe_id") == self.id), None)
        refused = samples(get(f"{self.prometheus}/metrics"), "prometheus_config_last_reload_successful").get("") == 0
        if refused and time.time() > self.reloaded + REFUSED_SECONDS:
            words = self.parameters["check"]
            output = self.command(words).stdout
            problems = [line.strip() for line in output.splitlines() if not re.match(r"Checking | *SUCCESS|$", line)]
            self.rule.lacking = f"Prometheus refuses its configuration; {' '.join(words)}: {' '.join(problems)[-600:]}"
            self.rule.final = True
        elif rule is None:
            self.rule.lacking = f"Prometheus has not read {self.file}; do its rule_files match this path?"
        elif rule.get("lastError"):
            self.rule.lacking = f"the rule cannot be evaluated: {rule['lastError']}"
        elif (rule["state"] == "firing") != (phase == "firing"):
            self.rule.lacking = f"the rule is {rule['state']}"
        else:
            return "evaluated"
        return ""

    def known_alertmanagers(self) -> list[str]:
        """Return the addresses to which Prometheus sends alerts. Raises OSError, ValueError."""
        deadline = time.monotonic() + DISCOVERY_SECONDS
        while True:
            found = json.loads(get(f"{self.prometheus}/api/v1/alertmanagers"))["data"]["activeAlertmanagers"]
            if found or time.monotonic() > deadline:
                return [one["url"].removesuffix("/api/v2/alerts") for one in found]
            time.sleep(POLL_SECONDS)

    def alert_at(self, alertmanager: str) -> dict[str, Any] | None:
        """Return the alert as an Alertmanager has it, while it fires. Raises OSError, ValueError."""
        query = urllib.parse.urlencode({"filter": f'probe_id="{self.id}"'})
        found: list[dict[str, Any]] = json.loads(get(f"{alertmanager}/api/v2/alerts?{query}"))
        return found[0] if found else None

    def look_at_alertmanager(self, url: str, phase: str) -> str:
        """See whether an Alertmanager has got the alert, or has learnt that it is over."""
        if url == NONE:
            self.alertmanagers[url].lacking = "Prometheus knows none (prometheus_alertmanagers)"
            self.alertmanagers[url].final = True
            return ""
        alert = self.alert_at(url)
        if (alert is not None) == (phase == "firing"):
            return "has it"
        self.alertmanagers[url].lacking = "it answers, but " + ("still has it" if alert else "has not got the alert")
        return ""

    def look_at_route(self, _: str) -> str:
        """See whom an Alertmanager is going to tell. A wrong answer is final: the route does not change by waiting."""
        url = next(url for url, hop in self.alertmanagers.items() if hop.firing is not None)
        alert = self.alert_at(url)
        if alert is None:
            return ""
        config = json.loads(get(f"{url}/api/v2/status"))["config"]["original"]
        self.integrations = integrations_of(config)
        receivers = [one["name"] for one in alert["receivers"]]
        reached = {integration for one in receivers for integration in self.integrations.get(one, set())}
        status = alert["status"]
        # Alertmanager before 0.28 has no such key. Here it is always empty; the alert's groups have it, see muted().
        if "mutedBy" not in status:
            for one, intervals in intervals_of(config).items():
                for integration in self.integrations.get(one, set()) if one in receivers else ():
                    self.unsaid.setdefault(integration, set()).update(intervals)
        missing = [one for one in self.deliveries if one not in reached]
        if missing:
            self.route.lacking = (
                f"it goes to {', '.join(receivers) or 'nobody'} ({', '.join(sorted(reached)) or 'tells nobody'}),"
                f" so {', '.join(NAMES.get(one, one) for one in missing)} would not learn of it"
            )
        elif status.get("silencedBy") or status.get("inhibitedBy"):
            by = [
                f"{name[:-2]} by {', '.join(status[name])}"
                for name in ("silencedBy", "inhibitedBy")
                if status.get(name)
            ]
            self.route.lacking = f"the alert is {' and '.join(by)}"
        else:
            return f"to {', '.join(receivers)}: {', '.join(sorted(reached))}"
        self.route.final = True
        return ""

    def muted(self) -> dict[str, set[str]]:
        """Return the integrations that a mute time keeps the alert from, with the time intervals.

        Alertmanager finds that out when it is about to send, after group_wait. Of several, each must have found it.
        """
        query = urllib.parse.urlencode({"filter": f'probe_id="{self.id}"'})
        found: dict[str, list[list[str]]] = {}
        for url in (url for url, hop in self.alertmanagers.items() if hop.firing is not None):
            try:
                groups = json.loads(get(f"{url}/api/v2/alerts/groups?{query}"))
            except OSError:
                continue
            for group in groups:
                for one in self.integrations.get(group["receiver"]["name"], set()):
                    found.setdefault(one, []).extend(alert["status"].get("mutedBy") or [] for alert in group["alerts"])
        return {one: {name for by in every for name in by} for one, every in found.items() if every and all(every)}

    def look_for_mute_time(self, integration: str) -> bool:
        """See whether a mute time keeps the alert from an integration; if from all of them, the route ends there."""
        muted = self.muted()
        if integration not in muted:
            return False
        hop = self.deliveries[integration]
        if all(one in muted and other.firing is None for one, other in self.deliveries.items()):
            by = set().union(*(muted[one] for one in self.deliveries))
            hop, self.route.firing = self.route, None
        else:
            by = muted[integration]
        hop.lacking = f"the alert is muted by {', '.join(sorted(by))}"
        hop.by_intent = hop.final = True
        return True

    def count(self) -> dict[str, Counts]:
        """Return what the Alertmanagers have counted so far; one that does not answer counts as nothing."""
        counts = {one: Counts() for one in self.deliveries}
        for url in filter(None, self.alertmanagers):
            try:
                text = get(f"{url}/metrics")
            except OSError:
                continue
            requests = samples(text, "alertmanager_notification_requests_total")
            failed = samples(text, "alertmanager_notification_requests_failed_total")
            begun = samples(text, "alertmanager_notifications_total")
            given_up = samples(text, "alertmanager_notifications_failed_total")
            blind = any(
                re.search(r'version="0\.(1?\d|2[0-7])\.', one) for one in samples(text, "alertmanager_build_info")
            )
            for one, total in counts.items():
                total.blind |= blind and one == "email"
                mine = f'integration="{one}"'
                total.failed += sum(value for labels, value in failed.items() if mine in labels)
                total.sent += sum(value for labels, value in requests.items() if mine in labels)
                total.begun += sum(value for labels, value in begun.items() if mine in labels)
                total.given_up += sum(value for labels, value in given_up.items() if mine in labels)
                total.reasons |= {
                    reason[1]
                    for labels, value in given_up.items()
                    if mine in labels and value and (reason := re.search(r'reason="(\w+)"', labels))
                }
            # What is counted are the attempts; the rest of them went well, each for a message.
        for total in counts.values():
            total.sent -= total.failed
        return counts

    def look_at_delivery(self, integration: str, phase: str) -> str:
        """See whether a message went out, and where the receiving end can be asked, whether it came in."""
        now, before = self.count()[integration], self.before[integration]
        # After a restart Alertmanager counts from 0 again.
        sent, failed, begun, given_up = (
            max(getattr(now, name) - getattr(before, name), 0) for name in ("sent", "failed", "begun", "given_up")
        )
        receipt = self.receipts.get(integration)
        hop = self.deliveries[integration]
        unsaid = self.unsaid.get(integration, set()) if phase == "firing" and not sent and not failed else set()
        hop.by_intent = bool(unsaid)
        if failed:
            hop.lacking = f"{failed:.0f} of {sent + failed:.0f} attempts to send failed"
            if now.reasons - before.reasons:
                hop.lacking += f" ({', '.join(sorted(now.reasons - before.reasons))})"
            if sent and not receipt:
                hop.lacking += "; whether the probe was among them Alertmanager does not say"
        elif sent:
            hop.lacking = "sent without error, but the receiving end has not got it"
        else:
            hop.lacking = "Alertmanager has not tried to send it yet"
            if unsaid:
                names = ", ".join(sorted(unsaid))
                hop.lacking += f"; a mute time may be why ({names}), which Alertmanager says from 0.28 on"
        if receipt:
            text = get(receipt["url"], receipt["authorization"] or "")
            mine = [one for one in messages_in(json.loads(text)) if self.id in one]
            if any(("resolved" in one) == (phase == "resolved") for one in mine):
                return "received"
        # What was sent meanwhile was something else.
        if phase == "firing" and self.look_for_mute_time(integration):
            return ""
        # An attempt that failed is made again, and mostly goes well: the server had closed the idle connection. Not so
        # where a message is still on its way, or was given up: it may be the probe's.
        if receipt or not sent or given_up or (failed and sent < begun):
            return ""
        hop.retried += failed
        how = (
            f"sent after {hop.retried:.0f} failed attempt{'s' * (hop.retried > 1)}"
            if hop.retried
            else "sent without error"
        )
        return f"{how}{REFUSED_UNSEEN if now.blind else ''}"

    # --- The whole way ------------------------------------------------------------------------------------------------

    def hops(self) -> list[Hop]:
        """Return the hops in the order of the path."""
        return [self.rule, *self.alertmanagers.values(), self.route, *self.deliveries.values()]

    def pass_on(self, phase: str) -> None:
        """Look at every hop that the alert can have reached."""
        now = time.time() - self.started
        if not self.rule.look(phase, self.look_at_rule, now):
            return
        reached = [
            hop.look(phase, partial(self.look_at_alertmanager, url), now)
            for url, hop in self.alertmanagers.items()
            if phase == "firing" or hop.firing is not None
        ]
        if not any(reached):
            return
        if phase == "firing" and not self.route.look(phase, self.look_at_route, now):
            return
        for one, hop in self.deliveries.items():
            if phase == "firing" or hop.firing is not None:
                hop.look(phase, partial(self.look_at_delivery, one), now)

    def follow(self, phase: str, hops: list[Hop], seconds: float) -> None:
        """Look again and again until every hop has passed the alert on, one cannot any more, or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            self.pass_on(phase)
            waiting = [hop for hop in hops if getattr(hop, phase) is None]
            # Behind one integration there is nothing; the others go on.
            last = self.deliveries.values()
            if all(hop.final for hop in waiting) or any(hop.final and hop not in last for hop in waiting):
                return
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)

    def send(self) -> None:
        """Send the alert and follow it, firing and resolved. Raises OSError, ProbeError, ValueError."""
        for url in self.known_alertmanagers():
            self.alertmanagers[url] = Hop("alertmanager", f"Alertmanager {url}")
        self.alertmanagers = self.alertmanagers or {NONE: Hop("alertmanager", "Alertmanager")}
        self.before = self.count()
        begin = time.time() + self.settle
        self.write(begin, begin + self.seconds)
        self.follow("firing", self.hops(), self.settle + self.parameters["firing_timeout"])

        if self.rule.firing is None:
            return
        self.before = self.count()
        self.write(begin, time.time() + self.settle)
        arrived = [hop for hop in self.hops() if hop.firing is not None and hop is not self.route]
        self.follow("resolved", arrived, self.settle + self.parameters["resolved_timeout"])

    def broken(self) -> list[Hop]:
        """Return the hops that failed. One behind a failed one was not reached, which is no failure of its own."""
        failed = []
        for phase in ("firing", "resolved"):
            for stage in ([self.rule], list(self.alertmanagers.values()), [self.route], list(self.deliveries.values())):
                if phase == "resolved" and stage == [self.route]:
                    continue
                reached = [hop for hop in stage if phase == "firing" or hop.firing is not None]
                failed += [hop for hop in reached if getattr(hop, phase) is None and hop not in failed]
                if reached and all(getattr(hop, phase) is None for hop in reached):
                    break
        return failed

    def table(self) -> list[str]:
        """Return the hops with their times, a line each."""
        broken = self.broken()

        def cell(hop: Hop, phase: str) -> str:
            at = getattr(hop, phase)
            if at is not None:
                return f"{datetime.fromtimestamp(self.started + at, UTC):%H:%M:%S} {f'+{at:.1f} s':>8}"
            if phase == "resolved" and hop is self.route:
                return "-"
            return "FAILED" if hop in broken and (phase == "firing" or hop.firing is not None) else "not reached"

        rows = [("HOP", "FIRING (UTC)", "RESOLVED (UTC)", "HOW")]
        rows += [
            (hop.name, cell(hop, "firing"), cell(hop, "resolved"), hop.lacking if hop in broken else hop.how)
            for hop in self.hops()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return [
            "  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]).rstrip() for row in rows
        ]

    def advice(self, hop: Hop) -> str:
        """Return where to look when a hop has failed."""
        labels = " ".join(f"{name}={value}" for name, value in sorted(self.parameters["labels"].items()))
        advice = ADVICE.get(hop.key, "journalctl --unit alertmanager").format(labels=labels)
        if not hop.by_intent:
            return advice
        is_critical = self.parameters["labels"].get("severity") == "critical"
        mute_times = MUTE_TIMES.format(instead="" if is_critical else ", or take -e verify_severity=critical")
        return mute_times if hop.final else f"{mute_times}. If it is none of these: {advice}"


def main() -> None:
    """Send one probe."""
    module = AnsibleModule(
        argument_spec={
            "prometheus_url": {"type": "str", "required": True},
            "rules_file": {"type": "path", "required": True},
            "reload": {"type": "list", "elements": "str", "required": True},
            "check": {"type": "list", "elements": "str", "required": True},
            "labels": {"type": "dict", "required": True},
            "integrations": {"type": "list", "elements": "str", "required": True},
            "receipts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "integration": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "authorization": {"type": "str", "no_log": True},
                },
            },
            "settle": {"type": "float", "default": 10},
            "firing_timeout": {"type": "float", "default": 90},
            "resolved_timeout": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
    )
    if not module.params["integrations"]:
        module.fail_json(
            msg="integrations is empty: of such an alert this Alertmanager tells nobody, or only once a day, so "
            "nothing can be proved."
        )
    if module.check_mode:
        module.exit_json(changed=False, msg="No probe is sent in check mode.")

    def end(number: int, _: Any) -> NoReturn:
        raise ProbeError(f"ended by signal {number}")

    # So that the rules file goes also when a connection that broke ends this process.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)

    probe = Probe(module.params)
    problem = ""
    try:
        probe.send()
    except (OSError, ValueError, ProbeError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    try:
        probe.remove()
    except (OSError, ProbeError, subprocess.TimeoutExpired) as error:
        problem = problem or f"the probe's rules file {probe.file} could not be taken away: {error}"

    broken = probe.broken()
    result = {"id": probe.id, "table": probe.table(), "broken": [hop.name for hop in broken]}
    if problem:
        hop = broken[0] if broken else probe.rule
        module.fail_json(
            msg=f"Probe {probe.id} could not be followed. {hop.name}: {problem}. Look at: {probe.advice(hop)}", **result
        )
    if broken:
        details = " ".join(f"{hop.name}: {hop.lacking}. Look at: {probe.advice(hop)}." for hop in broken)
        module.fail_json(msg=f"Probe {probe.id} did not get through. {details}", **result)
    module.exit_json(changed=False, msg=f"Probe {probe.id} got through, firing and resolved.", **result)


if __name__ == "__main__":
    main()
