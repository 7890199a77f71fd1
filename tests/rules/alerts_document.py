"""Writes docs/alerts.md from what the roles render: ``python -m tests.rules.alerts_document``.

The section between the marks MEASURED is written by hand, and kept.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.roles import messages, rendering
from tests.rules.promql import job_matchers, metrics
from tests.rules.rule_files import ROLE, ROOT, SETTINGS, Rule, RuleFiles, render
from tests.sinks.alertmanagers import SUITES

DOCUMENT = ROOT / "docs/alerts.md"
MEASURED = ("<!-- measured: written by hand, kept by make alerts-doc -->", "<!-- end of measured -->")

#: Heading -> the rule groups below it.
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "Backend: is it there?": ("backend-availability",),
    "Backend: requests": ("backend-http",),
    "Backend: objectives": ("slo-alerts",),
    "Backend: the process": ("backend-runtime",),
    "Backend: cache and database": ("backend-cache", "backend-database"),
    "Posts, people and background tasks": ("business-posts", "business-people", "business-tasks"),
    "Social platforms": ("social-api", "social-accounts"),
    "Scrape targets": ("inventory", "targets"),
    "Hosts": ("host-down", "hosts"),
    "Containers": ("containers",),
    "Prometheus": ("prometheus",),
    "Alertmanager": ("alertmanager",),
    "Grafana": ("grafana",),
    "Certificates": ("certificates",),
    "The one that always fires": ("watchdog",),
}
#: Of which faults the times are reckoned: the share of requests that fail, for an alert about a share.
FAILING_SHARE = 0.5
#: Slack's answer to a message and a mail server's to a mail, on a good day; measured values stand in the document.
DELIVERY_SECONDS = 1.0


# --- the rules, their settings, and what hides them -------------------------------------------------------------------


@dataclass(frozen=True)
class Documented:
    """What the document is made of.

    Attributes:
        rules: the rules with the role's defaults.
        alertmanager: alertmanager.yml with the role's defaults.
    """

    rules: RuleFiles
    alertmanager: dict[str, Any]

    def records(self) -> dict[str, str]:
        """Recording rule -> its expression, where its labels come from that."""
        rules = (rule for rule in self.rules.rules() if "record" in rule)
        return {rule["record"]: rule["expr"] for rule in rules if "labels" not in rule}


@cache
def _role_file(path: str) -> Any:
    return yaml.safe_load((ROLE / path).read_text())


def threshold_specs() -> dict[str, dict[str, Any]]:
    """Key of prometheus_alert_thresholds -> its argument spec."""
    options = _role_file("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    specs: dict[str, dict[str, Any]] = options["prometheus_alert_thresholds"]["options"]
    return specs


def alert_name(key: str) -> str:
    """high_error_rate -> HighErrorRate, oauth_failures -> OAuthFailures."""
    return "".join({"oauth": "OAuth"}.get(word, word.capitalize()) for word in key.split("_"))


def in_words(alert: str) -> str:
    """What the argument spec says that the alert is about."""
    for key, spec in threshold_specs().items():
        if alert_name(key) == alert:
            words = str(spec["description"]).split("), ", 1)[1].rstrip(".")
            return words[0].upper() + words[1:]
    return "Always: a heartbeat for whoever listens outside"


def with_unit(option: str, value: object) -> str:
    """A threshold as people write it."""
    words = option.split("_")
    if isinstance(value, str):
        return value
    assert isinstance(value, (int, float))
    if "minimum" in words or words[-1] == "burn":
        return f"{value:g}" + (" times its pace" if words[-1] == "burn" else "")
    if words[-1] in ("ratio", "objective"):
        return f"{value * 100:g} %"
    if words[-1] == "bytes":
        return f"{value / 2**30:g} GiB"
    return f"{value:g} {'s' if words[-1] == 'seconds' else words[-1]}"


def options_of(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield (setting below prometheus_alert_thresholds, value with unit) of what applies to a rule, ``for`` apart."""
    labels = rule["labels"]
    for key, spec in threshold_specs().items():
        if alert_name(key) != rule["alert"]:
            continue
        for option, entry in spec["options"].items():
            words = option.split("_")
            other_severity = words[0] in ("warning", "critical") and words[0] != labels["severity"]
            speed = spec["options"].get("_".join([*words[:2], "window"]), {}).get("default")
            other_window = speed is not None and speed != labels.get("long_window")
            if "for" not in words and not other_severity and not other_window:
                yield f"{key}.{option}", f"{_direction(rule, entry['default'])}{with_unit(option, entry['default'])}"


def _direction(rule: Rule, value: object) -> str:
    """On which side of a threshold the alert is, as its expression says."""
    found = re.search(rf"([<>]=?) {re.escape(str(value))}(?=\s|$)", rule["expr"])
    return {">": "above ", ">=": "at least ", "<": "below ", "<=": "at most "}[found.group(1)] if found else ""


def kept_labels(expression: str, records: Mapping[str, str]) -> set[str] | None:
    """Labels that the expression's result has; None where it keeps all that the series have.

    Looks at the leftmost series and what is around it, which is what a result's labels come from.
    """
    series = [
        found
        for name in metrics(expression)
        for found in re.finditer(rf"(?<![\w:]){re.escape(name)}(?![\w:])", expression)
    ]
    if "absent" in expression or not series:
        return set()
    found = min(series, key=lambda one: one.start())
    leftmost = found.group()
    kept = kept_labels(records[leftmost], records) if leftmost in records else None
    before = [clause for clause in re.finditer(r"\bby \(([^)]*)\)", expression) if clause.end() < found.start()]
    # An arithmetic operator with "on" leaves only what is matched.
    matched = re.search(r"[-+*/] on \(([^)]*)\)(?! group_)", expression)
    for clause in [*before, *([matched] if matched else [])]:
        names = {name.strip() for name in clause.group(1).split(",")}
        kept = names if kept is None else kept & names
    return kept


def hidden_by(rule: Rule, documented: Documented) -> list[str]:
    """In words, which alerts hide this one in Alertmanager while they fire."""
    kept = kept_labels(rule["expr"], documented.records())
    severities = {one["labels"]["severity"] for one in documented.rules.alerts() if one["alert"] == rule["alert"]}
    labels = {**rule["labels"], "alertname": rule["alert"]}
    causes = []
    for inhibition in documented.alertmanager["inhibit_rules"]:
        source = _matchers(inhibition["source_matchers"])
        if not all(_fits(matcher, labels) for matcher in _matchers(inhibition["target_matchers"])):
            continue
        names = next((value for label, _, value in source if label == "alertname"), "")
        if not names:
            # The stronger form of the same alert.
            if "critical" in severities:
                causes.append("its critical form")
            continue
        same = [label for label in inhibition["equal"] if label not in ("environment", "alertname")]
        if not all(kept is None or label in kept or label in labels for label in same):
            continue
        if ("!=", f'"{SETTINGS["prometheus_backend_job"]}"') in job_matchers(rule["expr"]) and "Backend" in names:
            continue
        where = [f"`{value}`" for label, _, value in source if label == "job" and value != ".+"]
        causes.append(
            " or ".join(names.split("|"))
            + (f" of {where[0]}" if where else "")
            + (f" (same {same[-1]})" if same else "")
        )
    return causes


def _matchers(matchers: list[str]) -> list[tuple[str, str, str]]:
    """Split Alertmanager's matchers into label, operator and value."""
    found = [re.fullmatch(r'(\w+)\s*(=~|!~|!=|=)\s*"?(.*?)"?', matcher) for matcher in matchers]
    return [(one.group(1), one.group(2), one.group(3)) for one in found if one]


def _fits(matcher: tuple[str, str, str], labels: Mapping[str, str]) -> bool:
    """Whether a matcher accepts these labels."""
    label, operator, value = matcher
    pattern = value if "~" in operator else re.escape(value)
    return bool(re.fullmatch(pattern, labels.get(label, ""))) != operator.startswith("!")


# --- parts of the document --------------------------------------------------------------------------------------------


def alert_tables(documented: Documented) -> Iterator[str]:
    """The alerts by subject."""
    groups = {
        group["name"]: [rule for rule in group["rules"] if "alert" in rule] for group in documented.rules.groups()
    }
    for subject, names in SUBJECTS.items():
        yield from ("", f"### {subject}", "")
        yield "| alert | severity | component | what is wrong | thresholds | for | hidden by |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for rule in (rule for name in names for rule in groups[name]):
            labels = rule["labels"]
            window = f" ({labels['long_window']} and {labels['short_window']})" if "long_window" in labels else ""
            thresholds = "<br>".join(f"`{setting}` {value}" for setting, value in options_of(rule))
            yield (
                f"| [{rule['alert']}](runbooks/{rule['alert']}.md) | {labels['severity']} | {labels['component']} "
                f"| {in_words(rule['alert'])}{window} | {thresholds} | {rule.get('for', '')} "
                f"| {'; '.join(hidden_by(rule, documented))} |"
            )


def routes_table(documented: Documented) -> Iterator[str]:
    """Who is told of which severity, and when."""
    config = documented.alertmanager
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    top = config["route"]
    yield "| alert | Slack | mail | first message | changes in the group | again while it goes on | its end |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for route in top["routes"]:
        receiver = receivers[route["receiver"]]
        (matcher,) = _matchers(route["matchers"])
        integrations = [*receiver.get("slack_configs", []), *receiver.get("email_configs", [])]
        ends = "told" if any(one.get("send_resolved") for one in integrations) else "not told"
        if "webhook_configs" in receiver:
            yield (
                "| `Watchdog` | no | no | at once, to `alertmanager_heartbeat_url` | "
                f"| every {route['group_interval']} | {ends} |"
            )
            continue
        yield (
            f"| {matcher[2]} | {'yes' if 'slack_configs' in receiver else 'no'} "
            f"| {'yes' if 'email_configs' in receiver else 'no'} "
            f"| after {route.get('group_wait', top['group_wait'])} "
            f"| after {route.get('group_interval', top['group_interval'])} "
            f"| every {route.get('repeat_interval', top['repeat_interval'])} | {ends} |"
        )


def seconds(duration: str) -> float:
    """1m30s as seconds."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[smhd])", duration))


@dataclass(frozen=True)
class Step:
    """One step of the way from a fault to a message, with the shortest and the longest time, in seconds."""

    what: str
    setting: str
    shortest: float
    longest: float


def steps(documented: Documented, alert: str, severity: str) -> list[Step]:
    """The way of BackendDown, or of an alert about a share of requests, from the fault to the message."""
    (rule,) = (
        rule for rule in documented.rules.alerts() if rule["alert"] == alert and rule["labels"]["severity"] == severity
    )
    defaults = _role_file("defaults/main.yml")
    scrape = seconds(defaults["prometheus_scrape_interval"])
    evaluation = seconds(defaults["prometheus_evaluation_interval"])
    key = next(key for key in threshold_specs() if alert_name(key) == alert)
    limit = threshold_specs()[key]["options"].get("ratio", {}).get("default")
    found = [Step("the next scrape sees it", "`prometheus_scrape_interval`", 0, scrape)]
    if limit is not None:
        window = seconds("5m") * limit / FAILING_SHARE
        found.append(
            Step(
                f"the share over 5 minutes reaches {limit * 100:g} %, where {FAILING_SHARE * 100:g} % fail",
                f"`{key}.ratio`",
                window,
                window,
            )
        )
        found.append(Step("the record is evaluated", "`prometheus_evaluation_interval`", 0, evaluation))
    wait = seconds(rule["for"])
    # Looked at once in an interval: what is not a multiple of it waits for the next look.
    looked_at = -(-wait // evaluation) * evaluation
    critical = {route["receiver"]: route for route in documented.alertmanager["route"]["routes"]}[severity]
    group_wait = seconds(critical.get("group_wait", documented.alertmanager["route"]["group_wait"]))
    return [
        *found,
        Step("the alert is evaluated", "`prometheus_evaluation_interval`", 0, evaluation),
        Step("it must go on so long", f"`{key}.for`", looked_at, looked_at),
        Step(
            "Alertmanager waits for more of the group", f"`alertmanager_group_wait_{severity}`", group_wait, group_wait
        ),
        Step("Slack and the mail server take it", "", 0, DELIVERY_SECONDS),
    ]


def times_table(documented: Documented, alert: str, severity: str) -> Iterator[str]:
    """Where the time goes."""
    way = steps(documented, alert, severity)
    yield f"| {alert}: step | set by | at least | at most |"
    yield "| --- | --- | --- | --- |"
    for step in way:
        yield f"| {step.what} | {step.setting} | {step.shortest:g} s | {step.longest:g} s |"
    shortest, longest = sum(step.shortest for step in way), sum(step.longest for step in way)
    yield f"| **from the fault to the message** | | **{shortest:g} s** | **{longest:g} s** |"


# --- the document -----------------------------------------------------------------------------------------------------

HEAD = """# Alerts

Written by `make alerts-doc` from the rules, their settings and the routes, with the roles' defaults; a test fails
when it is out of date. What is measured, below, is written by hand.

## On call

1. The message says what is wrong, since when and where. Its runbook, which the names below lead to, says what it
   means, what to look at first, what it most likely is, and how you see that it is over.
2. The runbooks' commands are for a login shell (`sudo -i`) on the host that the page names. There these are set, as
   your inventory says; `BACKEND: parameter null or not set` says that it is another host, or no login shell. Other
   names and addresses, such as `192.0.2.11`, are examples: put in those of the message.

   | variable | on each host of | what it is | for example |
   | --- | --- | --- | --- |
   | `$PROMETHEUS` | Prometheus | where it answers | `http://192.0.2.21:9090` |
   | `$ALERTMANAGER` | Alertmanager | where it answers | `http://192.0.2.21:9093` |
   | `$BACKEND_JOB` | Prometheus and Alertmanager | the job that scrapes the backend | `backend-api-production` |
   | `$BACKEND` | the backend | where the one on this host answers | `http://192.0.2.11:7000` |
   | `$BACKEND_METRICS` | the backend | what is scraped there, of each worker | `http://192.0.2.11:7001/metrics …` |
   | `$NODE_EXPORTER` | node_exporter | where the one on this host answers | `http://192.0.2.11:9100` |
   | `$GRAFANA` | Grafana | where it answers; `https` with a certificate | `https://192.0.2.21:3001` |

3. *Silence* in the message opens a form with exactly this alert's labels filled in (not with Debian's package of
   Alertmanager, which has no pages: the runbook has the command). A silence ends by itself; it hides messages, not
   the alert.
4. Nothing comes although something is wrong? `playbooks/verify.yml` finds the hop that is broken.

## All alerts

Thresholds and `for` are set below `prometheus_alert_thresholds`, each alone, for example
`prometheus_alert_thresholds: {high_error_rate: {ratio: 0.1}}`. Where several stand, all must be met: the second keeps
a few bad events from being a large share of few. *Hidden by*: while that alert fires, no message about this one
comes."""

ROUTES = """
## Who is told

{table}

- *First message*: after the first alert of a group; alerts with the same `alertmanager_group_by` come together.
- Another channel by severity: `alertmanager_slack_channels`. Info as one mail a day, or to nobody:
  `alertmanager_info_to`.
- `alertmanager_teams` and `alertmanager_environments` have receivers of their own, by the labels `team` and
  `environment` (of the whole Prometheus). What an environment does not name it does not have; what a team does not
  name is that of the table. `allin_team`, of a group or a host, says whose it is: what is measured there has the
  label, and so has an alert about a job as a whole where all of its hosts are one team's.
- PagerDuty, Opsgenie, Teams or a webhook beside them: `alertmanager_extra_integrations`, by severity.
- Quiet times: `alertmanager_time_intervals` and `alertmanager_mute_times`. What `site.yml` changes is silent while it
  runs.
- Without Slack (`alertmanager_slack_enabled: false`) mail takes all."""

TIMES = """
## Where the time goes from the fault to the message

With the defaults; every step but the last is a setting. A process that is killed refuses the next scrape at once; one
that hangs adds the time-out of the scrape, `prometheus_scrape_timeout` ({timeout}).

{down}

{share}

The lower the share that fails, the longer the window needs: at {double} twice the time of the second line. An alert
about a share also stays for up to 5 minutes after the last failure, because the window still has it."""

MEASURED_HEADING = """
### Measured
"""

EXAMPLES = """
## What a message looks like

The first of the examples in [messages.md](messages.md), where there are more: several alerts of one kind, the end, in
the dark and on a phone.
"""


def kept_section(text: str) -> str:
    """Return what is written by hand, with its marks."""
    first, last = MEASURED
    found = re.search(rf"{re.escape(first)}.*?{re.escape(last)}", text, re.DOTALL)
    return found.group() if found else f"{first}\n\n{last}"


def generated(documented: Documented, measured: str) -> str:
    """The document without the examples of messages."""
    timeout = _role_file("defaults/main.yml")["prometheus_scrape_timeout"]
    return "\n".join(
        [
            HEAD,
            *alert_tables(documented),
            ROUTES.format(table="\n".join(routes_table(documented))),
            TIMES.format(
                timeout=timeout,
                down="\n".join(times_table(documented, "BackendDown", "critical")),
                share="\n".join(times_table(documented, "HighErrorRate", "critical")),
                double=f"{FAILING_SHARE * 50:g} %",
            ),
            MEASURED_HEADING,
            measured,
        ]
    )


def examples(found: dict[str, messages.Example]) -> str:
    """The part with the examples: one alert, as Slack and as mail get it."""
    return "\n".join([EXAMPLES, *messages.example_lines("One alert", found["One alert"])])


def read(folder: Path) -> Documented:
    """Render what the document is made of into a folder."""
    rules = render(folder / "rules")
    config = rendering.render(
        folder / "alertmanager",
        **rendering.SLACK,
        **rendering.MAIL,
        alertmanager_heartbeat_url="https://heartbeat.example.com/allin",
    )
    return Documented(rules, config)


def main() -> None:
    """Write docs/alerts.md."""
    before = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    with tempfile.TemporaryDirectory() as folder:
        documented = read(Path(folder))
        text = generated(documented, kept_section(before))
        found = messages.examples(SUITES[-1], Path(folder))
    DOCUMENT.write_text(f"{text}\n{examples(found).rstrip()}\n")


if __name__ == "__main__":
    main()
