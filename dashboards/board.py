"""A dashboard: rows of panels, with variables, links and annotations that are the same on all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    QueryVariable,
    TimePicker,
)
from grafana_foundation_sdk.builders.dashboard import Row as RowBuilder
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from dashboards.names import TAG, WATCHDOG, Folder, Uid
from dashboards.panels import FULL, AnyPanel, reference
from dashboards.targets import ROOT

JSON: Final = ROOT / "roles/grafana/files/dashboards"

ALL: Final = ".*"

Variable = Builder[dashboard.VariableModel]


@dataclass(frozen=True)
class Row:
    """Panels below a heading, from left to right and on to the next line."""

    title: str
    panels: Sequence[AnyPanel]


def choice(
    name: str, label: str, values: str, *, several: bool = True, regex: str = "", hidden: bool = False
) -> QueryVariable:
    """A variable whose values Prometheus knows; with several, all of them are chosen at first."""
    variable = (
        QueryVariable(name)
        .label(label)
        .datasource(reference())
        .query({"query": values, "refId": name})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .regex(regex)
        .hide(dashboard.VariableHide.HIDE_VARIABLE if hidden else dashboard.VariableHide.DONT_HIDE)
        .options([])
    )
    if several:
        # Not the list of all values, which would leave out what has not the label.
        variable = variable.multi(True).include_all(True).all_value(ALL)
        variable = variable.current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    return variable


def environment() -> QueryVariable:
    """The backend's job, shown without the words that are the same in all of them."""
    return choice(
        "job",
        "Environment",
        "label_values(allin_build_info, job)",
        several=False,
        regex="/^(?<value>(?:backend-api-)?(?<text>.+))$/",
    )


def instance() -> QueryVariable:
    """The backend's processes."""
    return choice("instance", "Instance", 'label_values(allin_build_info{job="$job"}, instance)')


def platform() -> QueryVariable:
    """The social platforms."""
    return choice("platform", "Platform", 'label_values(allin_social_accounts{job="$job"}, platform)')


@dataclass(frozen=True)
class Board:
    """One dashboard.

    Attributes:
        about: what it is for; shown beside its title.
        span: how far back it looks at first, such as 1h.
        mine: matchers of the alerts that are marked in its graphs.
        releases: whether new releases of the backend are marked.
    """

    uid: Uid
    folder: Folder
    title: str
    about: str
    rows: Sequence[Row]
    variables: Sequence[Variable]
    mine: str = ""
    releases: bool = False
    span: str = "1h"
    refresh: str = "30s"

    @property
    def path(self) -> Path:
        """Where its JSON belongs."""
        return JSON / self.folder / f"{self.uid}.json"

    def json(self) -> str:
        """Return the dashboard as Grafana reads it; the same text for the same code."""
        built = json.loads(JSONEncoder().encode(self._build()))
        for annotation in built["annotations"]["list"]:
            annotation.update(_ANNOTATION_TEXTS[annotation["name"]])
        return f"{json.dumps(built, indent=2, sort_keys=True, ensure_ascii=False)}\n"

    def _build(self) -> dashboard.Dashboard:
        builder = (
            Dashboard(self.title)
            .uid(self.uid)
            .description(self.about)
            .tags([TAG, self.folder])
            .readonly()
            .refresh(self.refresh)
            .time(f"now-{self.span}", "now")
            .timezone("browser")
            .timepicker(TimePicker().refresh_intervals(["15s", "30s", "1m", "5m", "15m"]))
            .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
            .variables([*self.variables, *_addresses()])
            .links(_links())
            .annotations(self._annotations())
        )
        serial = y = 0
        for row in self.rows:
            serial += 1
            builder = builder.with_row(
                RowBuilder(row.title).id(serial).grid_pos(dashboard.GridPos(h=1, w=FULL, x=0, y=y))
            )
            y += 1
            x = tallest = 0
            for panel in row.panels:
                serial += 1
                position = panel.build().grid_pos
                if position is None:
                    raise ValueError(f"{row.title}: a panel without a size")
                if x + position.w > FULL:
                    x, y, tallest = 0, y + tallest, 0
                panel.id(serial).grid_pos(dashboard.GridPos(h=position.h, w=position.w, x=x, y=y))
                builder = builder.with_panel(panel)
                x, tallest = x + position.w, max(tallest, position.h)
            y += tallest
        return builder.build()

    def _annotations(self) -> list[Builder[dashboard.AnnotationQuery]]:
        found: list[Builder[dashboard.AnnotationQuery]] = []
        if self.mine:
            found.append(
                AnnotationQuery()
                .name("Alerts")
                .datasource(reference())
                # Switched on in the header; on a bad day they would cover everything.
                .enable(False)
                .icon_color("red")
                .expr(
                    'max by (alertname, severity) (ALERTS{alertstate="firing", severity=~"critical|warning",'
                    f' alertname!="{WATCHDOG}", {self.mine}}})'
                )
            )
        if self.releases:
            found.append(
                AnnotationQuery()
                .name("Releases")
                .datasource(reference())
                .enable(True)
                .icon_color("blue")
                .expr(
                    'count by (release) (allin_build_info{job="$job"})'
                    ' unless count by (release) (allin_build_info{job="$job"} offset 2m)'
                )
            )
        return found


# The SDK has no words for these.
_ANNOTATION_TEXTS: Final[dict[str, dict[str, Any]]] = {
    "Alerts": {"titleFormat": "{{alertname}}", "textFormat": "{{severity}}", "step": "60s"},
    "Releases": {"titleFormat": "Release {{release}}", "textFormat": "is running from here on", "step": "60s"},
}


def _addresses() -> list[Variable]:
    """Where Prometheus and the runbooks are: only the deployment knows, and tells it in a record."""
    return [
        choice("prometheus", "Prometheus", "label_values(allin_links_info, prometheus)", several=False, hidden=True),
        choice("runbooks", "Runbooks", "label_values(allin_links_info, runbooks)", several=False, hidden=True),
    ]


def _links() -> list[Builder[dashboard.DashboardLink]]:
    return [
        DashboardLink("Dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True),
        DashboardLink("Alerts")
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"/d/{Uid.ALERTS}")
        .icon("bolt")
        .tooltip("What fires, what fired, and who was told")
        .keep_time(True),
        DashboardLink("Prometheus")
        .type(dashboard.DashboardLinkType.LINK)
        .url("${prometheus:raw}/alerts")
        .icon("external link")
        .tooltip("The rules with their present values; only from where Prometheus can be reached")
        .target_blank(True),
    ]
