"""Reads the built dashboards back: which queries they ask, with their variables filled in. Needs only Python itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "roles/grafana/files/dashboards"

INTERVALS: Final = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}
"""What Grafana itself fills in, as in the first hour of a narrow window."""

_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<selector>.*), (?P<label>\w+)\)")


@dataclass(frozen=True)
class Query:
    """A query of a panel or an annotation.

    Attributes:
        dashboard: the dashboard's uid.
        panel: the title of the panel or of the annotation.
        ref: which of the panel's queries.
        expression: PromQL with Grafana's variables.
    """

    dashboard: str
    panel: str
    ref: str
    expression: str
    legend: str = ""

    def __str__(self) -> str:
        """Where it is."""
        return f"{self.dashboard}: {self.panel} ({self.ref})"


@dataclass(frozen=True)
class Variable:
    """A variable whose values are those of a label.

    Attributes:
        selector: the series that have the label.
        all_value: what stands for all values; empty where one is chosen.
    """

    dashboard: str
    name: str
    selector: str
    label: str
    all_value: str


def dashboards(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return all dashboards, as Grafana reads them."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all panels of a dashboard, rows included."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Yield every query that a dashboard asks."""
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            yield Query(
                dashboard["uid"], panel["title"], target["refId"], target["expr"], target.get("legendFormat", "")
            )
    for annotation in dashboard["annotations"]["list"]:
        yield Query(dashboard["uid"], annotation["name"], "annotation", annotation["expr"])


def variables(dashboard: Mapping[str, Any]) -> list[Variable]:
    """Return the variables that ask Prometheus for their values.

    Raises:
        ValueError: one asks in a way that is not understood here.
    """
    found = []
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        asked = _LABEL_VALUES.fullmatch(variable["query"]["query"])
        if not asked:
            raise ValueError(f"{dashboard['uid']}: {variable['name']} asks {variable['query']['query']}")
        every = variable.get("allValue", "") if variable.get("includeAll") else ""
        found.append(Variable(dashboard["uid"], variable["name"], asked["selector"], asked["label"], every))
    return found


def fixed(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of the variables that do not ask Prometheus."""
    return {one["name"]: one["allValue"] for one in dashboard["templating"]["list"] if one["type"] == "custom"}


def fill(expression: str, values: Mapping[str, str]) -> str:
    """Return an expression with its variables filled in, as Grafana does; what it does not know stays as it is."""
    known = {**INTERVALS, **values}
    return _VARIABLE.sub(lambda found: known.get(found[1], found[0]), expression)
