"""What there is to ask for: metrics of the backend and of the exporters, records, alerts; and who asks for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from allin_backend.metrics.contract import CONTRACT

from dashboards import reading
from tests.dashboards import parser
from tests.rules import rule_files
from tests.rules.promql import OWN_METRICS, Matcher

#: What every target has; team where the inventory gives it one.
TARGET_LABELS = frozenset({"job", "instance", "host", "team"})
EXPORTED: dict[str, list[str]] = yaml.safe_load((rule_files.HERE / "exporters.yml").read_text())
STORED = {name: metric for metric in CONTRACT for name in metric.sample_names}
#: Series that Prometheus makes of alerts.
OF_ALERTS = frozenset({"ALERTS", "ALERTS_FOR_STATE"})

Values = tuple[str, ...] | None


def _of_backend(name: str) -> dict[str, Values]:
    metric = STORED[name]
    found: dict[str, Values] = {label.name: label.values for label in metric.labels}
    if name.endswith("_bucket"):
        found["le"] = (*(str(float(bound)) for bound in metric.buckets), "+Inf")
    return found


@dataclass(frozen=True)
class Use:
    """A rule or a panel, with what it asks for."""

    name: str
    record: str
    metrics: frozenset[str]


class Catalog:
    """Names and labels of all series."""

    def __init__(self, rules: rule_files.RuleFiles, parse: parser.Parser) -> None:
        self._parse = parse
        own: dict[str, Values] = dict.fromkeys(TARGET_LABELS)
        self._series: dict[str, dict[str, Values]] = {
            **{name: dict(own) for name in OWN_METRICS},
            **{name: own | dict.fromkeys(labels) for name, labels in EXPORTED.items()},
            **{name: own | _of_backend(name) for name in STORED},
        }
        self._rules = list(rules.rules())
        of_alerts: set[str] = {"alertname"}
        closed: dict[str, set[str]] = {"alertstate": {"pending", "firing"}, "severity": set(), "component": set()}
        for rule in self._rules:
            found = self.labels(rule["expr"]) | set(rule.get("labels", {}))
            if "record" in rule:
                self._series.setdefault(rule["record"], {}).update(dict.fromkeys(found))
                continue
            of_alerts |= found
            for label in ("severity", "component"):
                closed[label].add(rule["labels"][label])
        alerts: dict[str, Values] = dict.fromkeys(of_alerts)
        alerts |= {label: tuple(sorted(values)) for label, values in closed.items()}
        self._series["ALERTS"] = alerts
        self._series["ALERTS_FOR_STATE"] = {label: values for label, values in alerts.items() if label != "alertstate"}

    def of_metric(self, name: str) -> frozenset[str]:
        """The labels of a metric; none of one that does not exist, which is another check's to say."""
        return frozenset(self._series.get(name, {}))

    def labels(self, expression: str) -> frozenset[str]:
        """The labels that the result of an expression can have."""
        return parser.labels(self._parse(expression), self.of_metric) or frozenset()

    def complaint(self, name: str, matcher: Matcher) -> str:
        """What is wrong with a matcher on a metric that exists; empty where nothing is."""
        labels = self._series[name]
        if matcher.label not in labels:
            return f"{name} has no label {matcher.label}"
        values = labels[matcher.label]
        for one in matcher.alternatives():
            # /metrics is not measured, and left out all the same where others' may be.
            excused = one.operator.startswith("!") and one.value == "/metrics"
            if values is not None and not excused and not one.selects_any_of(values):
                return f"{name}: nothing fits {one.label}{one.operator}{one.value}"
        return ""

    @property
    def names(self) -> frozenset[str]:
        """Every name that can be asked for."""
        return frozenset(self._series)

    def uses(self) -> list[Use]:
        """Every record, alert, panel and variable, with the metrics that it asks for directly."""
        found = [
            Use(
                f"alert {rule['alert']} ({rule['labels']['severity']})"
                if "alert" in rule
                else f"record {rule['record']}",
                rule.get("record", ""),
                self._asked(rule["expr"]),
            )
            for rule in self._rules
        ]
        for dashboard in reading.dashboards():
            values = values_for_parsing(dashboard)
            found += [
                Use(f"panel {query}", "", self._asked(reading.fill(query.expression, values)))
                for query in reading.queries(dashboard)
            ]
            for variable in reading.variables(dashboard):
                asked = self._asked(reading.fill(variable.selector, values))
                found.append(Use(f"variable {variable.dashboard}: {variable.name}", "", asked))
        return found

    def _asked(self, expression: str) -> frozenset[str]:
        return frozenset(name for name, _ in parser.selectors(self._parse(expression)))


def values_for_parsing(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Values for a dashboard's variables that select everything, and so fit every closed set."""
    chosen = {one.name: one.all_value or "backend-api-dev" for one in reading.variables(dashboard)}
    return reading.fixed(dashboard) | chosen


def blind(uses: Iterable[Use], existing: frozenset[str]) -> dict[str, list[str]]:
    """Which metrics are asked for and do not exist, and whom that leaves blind, through records too."""
    uses = list(uses)
    records = {use.record for use in uses if use.record}
    missing = frozenset[str]().union(*(use.metrics for use in uses)) - existing - records
    found = {}
    for metric in sorted(missing):
        dark = {metric}
        while more := {use.record for use in uses if use.record and use.metrics & dark} - dark:
            dark |= more
        found[metric] = sorted({use.name for use in uses if use.metrics & dark})
    return found


def told(found: Mapping[str, list[str]]) -> str:
    """The same, for people."""
    return "\n".join(
        f"{metric} does not exist (renamed? then rename it here too). Blind without it:\n"
        + "\n".join(f"  {name}" for name in names)
        for metric, names in found.items()
    )
