"""Alerts: what fires, what fired, and whether people were told."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders.dashboard import CustomVariable, TextBoxVariable
from grafana_foundation_sdk.models import dashboard

from dashboards.board import ALL, Board, Row, choice
from dashboards.names import WATCHDOG, Folder, Uid
from dashboards.panels import (
    BLUE,
    FULL,
    GREEN,
    GREY,
    NO_ANSWER,
    ORANGE,
    RED,
    THIRD,
    YELLOW,
    Column,
    Unit,
    bad_below,
    column,
    graph,
    listing,
    more,
    number,
    query,
    timeline,
)
from dashboards.queries import increase, rate, ratio, select, total
from dashboards.targets import LIMITS

_SEVERITIES: Final = {"critical": RED, "warning": ORANGE, "info": BLUE}
_REAL: Final = f'alertname!="{WATCHDOG}"'
_CHOSEN: Final = ('severity=~"$severity"', 'component=~"$component"', 'host=~"$host"')
_FIRING: Final = select("ALERTS", 'alertstate="firing"', _REAL, *_CHOSEN)
_PENDING: Final = select("ALERTS", 'alertstate="pending"', _REAL, *_CHOSEN)
_SENT: Final = total(rate("alertmanager_notifications_total", "15m"))
_EVALUATION: Final = "scalar(min(prometheus_rule_group_interval_seconds))"


def _firing(severity: str) -> str:
    return select("ALERTS", 'alertstate="firing"', f'severity="{severity}"', _REAL, *_CHOSEN)


def firing(title: str, says: str, *matchers: str, height: int) -> table.Panel:
    """A table of the alerts that fire now."""
    of_these = (_REAL, *matchers)
    since = select("ALERTS_FOR_STATE", *of_these)
    fires = select("ALERTS", 'alertstate="firing"', *of_these)
    return listing(
        title,
        says,
        column(
            f"label_join(({since} * 1000 and ignoring (alertstate) {fires}) * on () group_left (runbooks)"
            ' topk(1, allin_links_info), "runbook", "/", "runbooks", "alertname")',
            "A",
        ),
        columns=[
            Column("severity", "Severity", words=_SEVERITIES, width=80),
            Column("alertname", "Alert", link=("Runbook", "${__data.fields.Runbook}.md"), width=250),
            Column("A", "Since", Unit.MOMENT, of_query=True, width=125),
            Column("component", "Component", width=110),
            Column("host", "Host", width=130),
            Column("instance", "Instance"),
            Column("job", "Job", width=130),
            Column("platform", "Platform", width=110),
            Column("name", "Unit or container", width=170),
            Column("device", "Device", width=120),
            Column("runbook", "Runbook", hidden=True),
        ],
        sort="Since",
        height=height,
        empty="Nothing fires",
    )


_NOW: Final = Row(
    "Now",
    [
        *(
            number(
                severity.capitalize(),
                f"Alerts of severity {severity} that fire now. {says}",
                query(f"count({_firing(severity)}) or vector(0)"),
                unit=Unit.COUNT,
                steps=[(None, GREEN), (1, color)],
                background=True,
                empty=NO_ANSWER,
            )
            for (severity, color), says in zip(
                _SEVERITIES.items(),
                (
                    "Somebody was paged. Bad: any. Start with the oldest below, and with its runbook.",
                    "Somebody should look today. Bad: any that nobody looks at.",
                    "Worth knowing, nobody is told.",
                ),
                strict=True,
            )
        ),
        number(
            "Pending",
            "Conditions that hold, but not yet as long as their alert waits. What will fire next.",
            query(f"count({_PENDING}) or vector(0)"),
            unit=Unit.COUNT,
            steps=[(None, GREEN), (1, YELLOW)],
            empty=NO_ANSWER,
        ),
        number(
            "Delivered",
            "Share of the notifications of the last 15 minutes that reached their receiver. Bad: below 100 %: people"
            " are not told. Then see 'Notifications that failed'.",
            query(f"1 - {ratio(total(rate('alertmanager_notifications_failed_total', '15m')), _SENT)}"),
            unit=Unit.RATIO,
            steps=bad_below(1, 1 - LIMITS["alertmanager_notifications_failing"]["ratio"]),
            high=1,
            decimals=0,
            empty="None sent",
            alerts=["AlertmanagerNotificationsFailing"],
        ),
        number(
            "Heartbeat",
            "The alert Watchdog, which always fires: rules are evaluated and alerts are made. Bad: anything but"
            " 'beats': then no other alert can be trusted either. That it also arrives, only its receiver outside"
            " can tell.",
            query(f'count(ALERTS{{alertname="{WATCHDOG}", alertstate="firing"}}) > bool 0 or vector(0)'),
            unit=Unit.YES_NO,
            steps=bad_below(1),
            texts={1: ("beats", GREEN), 0: ("SILENT", RED)},
            line=False,
            empty=NO_ANSWER,
            alerts=["Watchdog"],
        ),
        firing(
            "Firing",
            "Every alert that fires now, the latest first; a click on its name leads to its runbook. An alert that"
            " hides others (a host that is down) is the one to begin with.",
            *_CHOSEN,
            height=9,
        ),
    ],
)

_STATES: Final = {3: ("critical", RED), 2: ("warning", ORANGE), 1: ("info", BLUE), 0: ("pending", YELLOW)}


_HISTORY: Final = Row(
    "What fired",
    [
        timeline(
            "Course",
            "When each alert was pending and when it fired, by the worst of its severities. Bad: one that comes and"
            " goes (its threshold or its cause), or many that begin at one moment (one cause: the topmost"
            " dependency). Releases are marked in the platform's dashboards.",
            query(
                " or ".join(
                    [
                        *(
                            f"{value} * max by (alertname) ({_firing(severity)})"
                            for value, (severity, _) in _STATES.items()
                            if value
                        ),
                        f"0 * max by (alertname) ({_PENDING})",
                    ]
                ),
                "{{alertname}}",
            ),
            texts=_STATES,
            height=10,
            empty="Nothing was pending or fired",
        ),
        listing(
            "Fired in this time range",
            "How long each alert fired, all its instances added. The candidates for a cure, or for another"
            " threshold. Bad: the same names every week.",
            column(
                f"sum by (alertname, severity, component) (count_over_time({_FIRING}[$__range])) * {_EVALUATION}", "A"
            ),
            column(
                f"count by (alertname, severity, component) (count_over_time({_FIRING}[$__range]))",
                "B",
            ),
            columns=[
                Column("severity", "Severity", words=_SEVERITIES, width=80),
                Column("alertname", "Alert"),
                Column("component", "Component", width=110),
                Column("A", "Fired for", Unit.SECONDS, of_query=True, width=90),
                Column("B", "Instances", Unit.COUNT, of_query=True, width=90),
            ],
            sort="Fired for",
            width=FULL - THIRD,
            height=9,
            empty="Nothing fired",
        ),
        graph(
            "Firing over time",
            "How many alerts fired at once. Bad: a level that is never zero: then a new one is not noticed.",
            query(f"count by (severity) ({_FIRING})", "{{severity}}"),
            unit=Unit.COUNT,
            width=THIRD,
            height=9,
            stacked=True,
            colors=_SEVERITIES,
            empty="Nothing fired",
        ),
    ],
)

_TOLD: Final = Row(
    "Were people told?",
    [
        graph(
            "Notifications",
            "Notifications that Alertmanager sent, a minute, by way. Bad: none while alerts fire, or hundreds:"
            " grouping does not hold them together.",
            query(
                f"60 * {total(rate('alertmanager_notifications_total', '5m'), 'integration')} > 0", "{{integration}}"
            ),
            unit=Unit.PER_MINUTE,
            stacked=True,
            empty="None were sent",
        ),
        graph(
            "Notifications that failed",
            "Notifications that did not arrive after all retries, in the 15 minutes before. Bad: any: people are not"
            " told that way. Then see Alertmanager's log: a token that ended, an address that changed, a network.",
            query(
                f"{total(increase('alertmanager_notifications_failed_total', '15m'), 'integration')} > 0",
                "{{integration}}",
            ),
            unit=Unit.COUNT,
            bars=True,
            decimals=0,
            empty="None failed",
            alerts=["AlertmanagerNotificationsFailing"],
        ),
        graph(
            "Handed over",
            "Alerts that Prometheus could not hand over to Alertmanager (errors), or threw away (dropped), a minute."
            " Zero is normal. Bad: dropped: no Alertmanager took them, and nobody is told of anything.",
            query(f"60 * {total(rate('prometheus_notifications_errors_total'))}", "errors", "A"),
            query(f"60 * {total(rate('prometheus_notifications_dropped_total'))}", "dropped", "B"),
            unit=Unit.PER_MINUTE,
            colors={"errors": ORANGE, "dropped": RED},
            empty="Prometheus does not scrape itself",
            alerts=["PrometheusNotificationsFailing", "PrometheusNotificationsDropped"],
        ),
        graph(
            "Held by Alertmanager",
            "Alerts that Alertmanager has, by what it does with them; suppressed ones are silenced or hidden by"
            " another. Silences are those in force. Bad: more suppressed than anybody knows of: look through the"
            " silences.",
            query("max by (state) (alertmanager_alerts)", "{{state}}", "A"),
            query('max(alertmanager_silences{state="active"})', "silences", "B"),
            unit=Unit.COUNT,
            colors={"active": RED, "suppressed": BLUE, "unprocessed": GREY, "silences": YELLOW},
            empty="Alertmanager is not scraped",
            links=[more(Uid.MONITORING, "Prometheus and Alertmanager")],
        ),
    ],
)


def _severity_choice() -> CustomVariable:
    return (
        CustomVariable("severity")
        .label("Severity")
        .values(",".join(_SEVERITIES))
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
        .options([])
    )


BOARD: Final = Board(
    Uid.ALERTS,
    Folder.INFRASTRUCTURE,
    "Alerts",
    "What fires now, what fired before, and whether people were told.",
    [_NOW, _HISTORY, _TOLD],
    [
        _severity_choice(),
        choice("component", "Component", f'label_values(ALERTS{{alertname!="{WATCHDOG}"}}, component)'),
        choice("host", "Host", "label_values(up, host)"),
        # Filled by links to runbooks where these have no address: it says which file of the repository to open.
        TextBoxVariable("runbook").label("Runbook file").default_value(""),
    ],
    span="6h",
)
