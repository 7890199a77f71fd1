"""Panels: every one has a description, a unit, a text for when there is nothing to show, and one look.

Widths are of 24 columns. On a screen of 1280 pixels, of which Grafana's menu takes a quarter, a panel narrower than six
columns has no room for its title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    TableSortByFieldState,
    VizLegendOptions,
    VizTextDisplayOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common, dashboard, prometheus
from grafana_foundation_sdk.models import statetimeline as statetimeline_model

from dashboards.names import DATASOURCE, Uid
from dashboards.targets import Target

FULL: Final = 24
HALF: Final = 12
THIRD: Final = 8
QUARTER: Final = 6
GRAPH_HEIGHT: Final = 8
STAT_HEIGHT: Final = 3
NUMBER_PIXELS: Final = 40
BAR_PIXELS: Final = 16
NARROWEST_COLUMN: Final = 100
# What a number says that Prometheus does not know; longer texts do not fit in its place.
NO_ANSWER: Final = "No answer"
NOT_SCRAPED: Final = "Not scraped"

GREEN: Final = "green"
BLUE: Final = "blue"
YELLOW: Final = "yellow"
ORANGE: Final = "orange"
RED: Final = "red"
GREY: Final = "text"

# A gap of one or two scrapes is bridged, as the alerts' gauges are; a longer one is to be seen.
BRIDGE_MILLISECONDS: Final = 60_000


class Unit:
    """Units by what they are used for; all are base units, Grafana scales them for the reader."""

    SECONDS: Final = "s"
    CLOCK: Final = "dthms"
    DAYS: Final = "dtdhms"
    RATIO: Final = "percentunit"
    BYTES: Final = "bytes"
    BYTES_PER_SECOND: Final = "binBps"
    REQUESTS_PER_SECOND: Final = "reqps"
    PER_SECOND: Final = "suffix:/s"
    PER_MINUTE: Final = "suffix:/min"
    COUNT: Final = "short"
    TIMES: Final = "none"
    MOMENT: Final = "dateTimeFromNow"
    YES_NO: Final = "bool_yes_no"
    CORES: Final = "none"
    TEXT: Final = "string"


AnyPanel = timeseries.Panel | stat.Panel | table.Panel | statetimeline.Panel | bargauge.Panel
P = TypeVar("P", timeseries.Panel, stat.Panel, table.Panel, statetimeline.Panel, bargauge.Panel)

Steps = Sequence[tuple[float | None, str]]
"""Colours by where they begin; the first begins at None, that is, at the bottom."""

Texts = Mapping[int, tuple[str, str]]
"""Value -> the text and the colour to show in its place."""

ALL_WELL: Final[Steps] = [(None, GREEN)]
NEUTRAL: Final[Steps] = [(None, BLUE)]


def steps_of(target: Target) -> Steps:
    """Green as far as the target, yellow up to the alert, red beyond."""
    if target.higher_is_better:
        return [(None, RED), (target.alert, YELLOW), (target.target, GREEN)]
    return [(None, GREEN), (target.target, YELLOW), (target.alert, RED)]


def bad_from(warning: float, critical: float | None = None) -> Steps:
    """Where only the alerts' thresholds are known."""
    if critical is None:
        return [(None, GREEN), (warning, RED)]
    return [(None, GREEN), (warning, ORANGE), (critical, RED)]


def bad_below(warning: float, critical: float | None = None) -> Steps:
    """The same, where less is worse."""
    if critical is None:
        return [(None, RED), (warning, GREEN)]
    return [(None, RED), (critical, ORANGE), (warning, GREEN)]


def reference() -> common.DataSourceRef:
    """The data source of every panel, variable and annotation."""
    return common.DataSourceRef(type_val="prometheus", uid=DATASOURCE)


def query(expression: str, legend: str = "", ref: str = "A") -> Dataquery:
    """A query over the dashboard's time range; the legend names a series by {{label}}."""
    return (
        Dataquery()
        .expr(expression)
        .legend_format(legend or "__auto")
        .ref_id(ref)
        .editor_mode(prometheus.QueryEditorMode.CODE)
        .datasource(reference())
        .range()
    )


def now(expression: str, legend: str = "", ref: str = "A") -> Dataquery:
    """A query of this moment alone."""
    return query(expression, legend, ref).instant()


def column(expression: str, ref: str) -> Dataquery:
    """A query of this moment whose labels become a table's columns."""
    return now(expression, ref=ref).format(prometheus.PromQueryFormat.TABLE)


def runbook(alert: str) -> DashboardLink:
    """A link from a panel to what helps when its alert fires."""
    return _link(f"Runbook {alert}", f"${{runbooks:raw}}/{alert}.md", new_tab=True)


def more(uid: Uid, title: str) -> DashboardLink:
    """A link from a panel to the dashboard with the details; it takes the variables and the time range along."""
    return _link(title, f"/d/{uid}?${{__all_variables}}&${{__url_time_range}}")


def _link(title: str, url: str, *, new_tab: bool = False) -> DashboardLink:
    return DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url).target_blank(new_tab)


def _thresholds(steps: Steps) -> ThresholdsConfig:
    return (
        ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


@dataclass(frozen=True)
class Frame:
    """What every panel has: where it stands and what it says.

    Attributes:
        says: what is shown, what is bad, what to do then.
        unit: one of Unit.
        empty: shown when the queries find nothing, which may be the best of news.
        alerts: the alerts that watch the same; the panel links to their runbooks.
    """

    title: str
    says: str
    unit: str
    width: int
    height: int
    empty: str
    alerts: Sequence[str] = ()
    links: Sequence[DashboardLink] = ()

    def around(self, panel: P, queries: Sequence[Dataquery]) -> P:
        """Set it on a panel."""
        return (
            panel.title(self.title)
            .description(self.says)
            .datasource(reference())
            .targets(list(queries))
            .span(self.width)
            .height(self.height)
            .unit(self.unit)
            .no_value(self.empty)
            .links([*self.links, *map(runbook, self.alerts)])
        )


def _fixed(color: str) -> dict[str, object]:
    return {"mode": "fixed", "fixedColor": color}


def _property(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def graph(
    title: str,
    says: str,
    *queries: Dataquery,
    unit: str,
    width: int = QUARTER,
    height: int = GRAPH_HEIGHT,
    steps: Steps | None = None,
    low: float | None = 0,
    high: float | None = None,
    reach: float | None = None,
    stacked: bool = False,
    bars: bool = False,
    legend_table: bool = False,
    decimals: int | None = None,
    colors: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    below: Sequence[str] = (),
    empty: str = "No data",
    alerts: Sequence[str] = (),
    links: Sequence[DashboardLink] = (),
) -> timeseries.Panel:
    """Lines over time.

    Args:
        steps: thresholds to draw in.
        low, high: ends of the axis; None where the values decide.
        reach: how far the axis goes at least, so that a threshold is on it.
        stacked: areas on top of each other, for parts of a whole.
        bars: for what is counted in each interval.
        legend_table: a legend that is a table, for many lines.
        colors: series name -> colour, where a colour has a meaning.
        dashed: regular expressions of names of series that are a limit and no measurement.
        below: regular expressions of names of series that are drawn below zero (sent, beside received).
    """
    panel = Frame(title, says, unit, width, height, empty, alerts, links).around(timeseries.Panel(), queries)
    legend = VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    if legend_table:
        legend = legend.display_mode(common.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"])
        legend = legend.sort_by("Last *").sort_desc(True)
    else:
        legend = legend.display_mode(common.LegendDisplayMode.LIST).calcs(["lastNotNull"])
    panel = (
        panel.legend(legend)
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .line_width(0 if bars else 1 if stacked else 2)
        .fill_opacity(70 if bars else 40 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(BRIDGE_MILLISECONDS)
        .axis_border_show(False)
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .overrides([])
    )
    if stacked:
        panel = panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if steps is not None:
        panel = panel.thresholds(_thresholds(steps))
        panel = panel.thresholds_style(GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if reach is not None:
        panel = panel.axis_soft_max(reach)
    if decimals is not None:
        panel = panel.decimals(decimals)
    for name, color in (colors or {}).items():
        panel = panel.override_by_name(name, [_property("color", _fixed(color))])
    for pattern in dashed:
        panel = panel.override_by_regexp(
            pattern,
            [
                _property("color", _fixed(GREY)),
                _property("custom.lineStyle", {"fill": "dash", "dash": [6, 6]}),
                _property("custom.lineWidth", 1),
                _property("custom.fillOpacity", 0),
                _property("custom.stacking", {"mode": "none", "group": "A"}),
            ],
        )
    for pattern in below:
        panel = panel.override_by_regexp(pattern, [_property("custom.transform", "negative-Y")])
    return panel


def number(
    title: str,
    says: str,
    *queries: Dataquery,
    unit: str,
    width: int = THIRD,
    height: int = STAT_HEIGHT,
    steps: Steps = NEUTRAL,
    low: float | None = None,
    high: float | None = None,
    decimals: int | None = None,
    texts: Texts | None = None,
    background: bool = False,
    line: bool = True,
    names: bool = False,
    empty: str = "No data",
    alerts: Sequence[str] = (),
    links: Sequence[DashboardLink] = (),
) -> stat.Panel:
    """One number, to be read from afar.

    Args:
        texts: value -> (text, colour) to show in its place.
        background: colour the whole panel, for what needs somebody now.
        line: with its course over the time range behind it.
        names: show the series' names, where there are several.
    """
    panel = Frame(title, says, unit, width, height, empty, alerts, links).around(stat.Panel(), queries)
    if height <= STAT_HEIGHT and not names:
        panel = panel.text(VizTextDisplayOptions().value_size(NUMBER_PIXELS))
    panel = (
        panel.thresholds(_thresholds(steps))
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.BACKGROUND if background else common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA if line else common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME if names else common.BigValueTextMode.VALUE)
        .justify_mode(common.BigValueJustifyMode.AUTO)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .overrides([])
    )
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if decimals is not None:
        panel = panel.decimals(decimals)
    # Else what is missing has the colour of what is lowest.
    missing = dashboard.SpecialValueMap(
        options=dashboard.DashboardSpecialValueMapOptions(
            match=dashboard.SpecialValueMatch.NULL_AND_NAN,
            result=dashboard.ValueMappingResult(text=empty, color=GREY),
        )
    )
    return panel.mappings([missing, *([_texts(texts)] if texts else [])])


def _texts(texts: Texts) -> dashboard.ValueMap:
    return dashboard.ValueMap(
        options={
            str(value): dashboard.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(texts.items())
        }
    )


def bars(
    title: str,
    says: str,
    *queries: Dataquery,
    unit: str,
    width: int = QUARTER,
    height: int = GRAPH_HEIGHT,
    steps: Steps = NEUTRAL,
    low: float = 0,
    high: float | None = None,
    decimals: int | None = None,
    empty: str = "No data",
    alerts: Sequence[str] = (),
    links: Sequence[DashboardLink] = (),
) -> bargauge.Panel:
    """The present value of several things side by side."""
    panel = Frame(title, says, unit, width, height, empty, alerts, links).around(bargauge.Panel(), queries)
    panel = (
        panel.thresholds(_thresholds(steps))
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .orientation(common.VizOrientation.HORIZONTAL)
        .name_placement(common.BarGaugeNamePlacement.LEFT)
        .value_mode(common.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        # As large as there is room, names are cut off.
        .text(VizTextDisplayOptions().title_size(BAR_PIXELS).value_size(BAR_PIXELS))
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .min(low)
        .overrides([])
    )
    if high is not None:
        panel = panel.max(high)
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel


def timeline(
    title: str,
    says: str,
    *queries: Dataquery,
    texts: Texts,
    width: int = FULL,
    height: int = GRAPH_HEIGHT,
    empty: str = "No data",
    alerts: Sequence[str] = (),
    links: Sequence[DashboardLink] = (),
) -> statetimeline.Panel:
    """States over time, one line each; texts says value -> (text, colour)."""
    panel = Frame(title, says, Unit.TEXT, width, height, empty, alerts, links).around(statetimeline.Panel(), queries)
    panel = (
        panel.mappings([_texts(texts)])
        # By threshold, values would be merged before they get their text and colour.
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(GREY))
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(80)
        .legend(
            VizLegendOptions()
            # It would show the panel's text for "nothing" as one of the states.
            .show_legend(False)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE).sort(common.SortOrder.NONE))
        .overrides([])
    )
    # No pages; the SDK's method takes no 0.
    options = panel.build().options
    assert isinstance(options, statetimeline_model.Options)  # noqa: S101
    options.per_page = 0
    return panel


@dataclass(frozen=True)
class Column:
    """A column of a table: of a label, or of a query.

    Attributes:
        field: the label, or the ref of the query.
        of_query: whether it is a query's.
        steps: colours of the value; with `bar` drawn as a bar between low and high.
        texts: value -> (text, colour) to show in its place.
        link: title and address that a click leads to.
        hidden: there for a link of another column only.
        width: in pixels; 0 for what the others leave over.
    """

    field: str
    title: str
    unit: str = ""
    of_query: bool = False
    steps: Steps = ()
    bar: bool = False
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    texts: Texts | None = None
    words: Mapping[str, str] | None = None
    link: tuple[str, str] | None = None
    hidden: bool = False
    width: int = 0

    def source(self, alone: bool) -> str:
        """The name of the field before it gets its title; Grafana names that of a query that is alone otherwise."""
        if not self.of_query:
            return self.field
        return "Value" if alone else f"Value #{self.field}"

    def properties(self) -> list[dashboard.DynamicConfigValue]:
        """What Grafana is to do with the column."""
        # The panel's own text is for a table without rows.
        found = [_property("noValue", "-")]
        if self.hidden:
            found.append(_property("custom.hideFrom.viz", True))
        if self.unit:
            found.append(_property("unit", self.unit))
        if self.steps:
            found.append(_property("thresholds", _thresholds(self.steps).build()))
            found.append(_property("color", {"mode": "thresholds"}))
        if self.bar:
            found.append(
                _property("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"})
            )
        elif self.texts or self.words or self.steps:
            found.append(_property("custom.cellOptions", {"type": "color-text"}))
        for name, value in (("min", self.low), ("max", self.high), ("decimals", self.decimals)):
            if value is not None:
                found.append(_property(name, value))
        mappings: list[object] = []
        if self.texts:
            mappings.append(_texts(self.texts))
        if self.words:
            results = {
                word: dashboard.ValueMappingResult(text=word, color=color, index=index)
                for index, (word, color) in enumerate(self.words.items())
            }
            mappings.append(dashboard.ValueMap(options=results))
        if self.steps:
            # Else what is missing has the colour of what is lowest.
            mappings.append({"type": "special", "options": {"match": "null", "result": {"text": "-", "color": GREY}}})
        if mappings:
            found.append(_property("mappings", mappings))
        if self.link:
            title, url = self.link
            found.append(_property("links", [{"title": title, "url": url, "targetBlank": "://" in url or "${" in url}]))
        if self.width:
            found.append(_property("custom.width", self.width))
        else:
            found.append(_property("custom.minWidth", NARROWEST_COLUMN))
        return found


def listing(
    title: str,
    says: str,
    *queries: Dataquery,
    columns: Sequence[Column],
    sort: str,
    descending: bool = True,
    width: int = FULL,
    height: int = GRAPH_HEIGHT,
    empty: str = "No data",
    alerts: Sequence[str] = (),
    links: Sequence[DashboardLink] = (),
) -> table.Panel:
    """A table of this moment: the columns named, in this order, and no others.

    Args:
        sort: title of the column to sort by.
    """
    panel = Frame(title, says, Unit.COUNT, width, height, empty, alerts, links).around(table.Panel(), queries)
    sources = {one.source(alone=len(queries) == 1): one for one in columns}
    # Rows are merged where all that they have in common is equal, so what nobody asked for must go before. The time
    # stays: it is all that a query without a result has in common with the others.
    panel = (
        panel.with_transformation(
            dashboard.DataTransformerConfig(
                id_val="filterFieldsByName", options={"include": {"names": ["Time", *sources]}}
            )
        )
        .with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {source: index for index, source in enumerate(sources)},
                    "renameByName": {source: one.title for source, one in sources.items()},
                },
            )
        )
        .cell_height(common.TableCellHeight.SM)
        .sort_by([TableSortByFieldState().display_name(sort).desc(descending)])
        .overrides([])
    )
    for one in columns:
        panel = panel.override_by_name(one.title, one.properties())
    return panel
