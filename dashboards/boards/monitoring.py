"""Prometheus and Alertmanager: the stack that watches, itself."""

from __future__ import annotations

from typing import Final

from dashboards.board import Board, Row, choice
from dashboards.names import Folder, Uid
from dashboards.panels import (
    BLUE,
    GREEN,
    HALF,
    NO_ANSWER,
    NOT_SCRAPED,
    ORANGE,
    QUARTER,
    RED,
    THIRD,
    Column,
    Unit,
    bad_below,
    bad_from,
    column,
    graph,
    listing,
    more,
    number,
    query,
    timeline,
)
from dashboards.queries import highest, increase, of_host, quantile, rate, ratio, total
from dashboards.targets import LIMITS

_SELF: Final = "Prometheus does not scrape itself"
_ALERTMANAGER: Final = "Alertmanager is not scraped"
_GRAFANA: Final = "Grafana is not scraped"
_LOADED: Final = {1: ("loaded", GREEN), 0: ("REFUSED", RED)}

_TARGETS: Final = Row(
    "What is watched",
    [
        number(
            "Up",
            "Targets that answered their last scrape. Bad: fewer than there were: see which in 'Targets over time'.",
            query(f"sum({of_host('up')})"),
            unit=Unit.COUNT,
            steps=[(None, GREEN)],
            empty=NO_ANSWER,
        ),
        number(
            "Down",
            "Targets that did not answer their last scrape. Bad: any. 'Targets over time' shows which, and since when.",
            query(f"count({of_host('up')} == 0) or vector(0)"),
            unit=Unit.COUNT,
            steps=bad_from(1),
            background=True,
            empty=NO_ANSWER,
            alerts=["TargetDown"],
        ),
        number(
            "Missing",
            "Targets that the inventory names and Prometheus does not know: none of their alerts can fire. Bad: any;"
            " run the playbook.",
            query("count(allin_inventory_target unless on (job, instance) up) or vector(0)"),
            unit=Unit.COUNT,
            steps=bad_from(1),
            background=True,
            empty=NO_ANSWER,
            alerts=["InventoryTargetMissing"],
        ),
        number(
            "Samples/s",
            "What Prometheus takes in. Bad: zero; or many times what is usual: a label without an end to its values.",
            query(total(rate(of_host("prometheus_tsdb_head_samples_appended_total")))),
            unit=Unit.PER_SECOND,
            empty=NOT_SCRAPED,
        ),
        number(
            "Bad rules",
            "Evaluations of rules that failed in ten minutes. Bad: any: alerts of that group may be unable to fire.",
            query(total(increase(of_host("prometheus_rule_evaluation_failures_total"), "10m"))),
            unit=Unit.COUNT,
            decimals=0,
            steps=bad_from(1),
            background=True,
            empty=NOT_SCRAPED,
            alerts=["PrometheusRuleFailures"],
        ),
        number(
            "Config",
            "Whether Prometheus and Alertmanager took their last configuration. Bad: refused: the one of before is"
            " in force, and it will not start again with the new one.",
            query(f"min({of_host('prometheus_config_last_reload_successful')})", "Prometheus", "A"),
            query(f"min({of_host('alertmanager_config_last_reload_successful')})", "Alertmanager", "B"),
            unit=Unit.YES_NO,
            steps=bad_below(1),
            texts=_LOADED,
            names=True,
            line=False,
            empty=NOT_SCRAPED,
            alerts=["PrometheusConfigReloadFailed", "AlertmanagerConfigReloadFailed"],
        ),
        timeline(
            "Targets over time",
            "Each target, up or down. Bad: red; all of a host together is the host, all of a job together is what"
            " they have in common.",
            query(f"max by (job, instance) ({of_host('up')})", "{{job}} {{instance}}"),
            texts={1: ("up", GREEN), 0: ("down", RED)},
            width=HALF,
            height=9,
            empty="Prometheus has no targets",
            alerts=["TargetDown", "TargetFlapping"],
        ),
        listing(
            "Scrapes",
            "How long each scrape takes and what it brings. Bad: a scrape that takes seconds (at ten it is given"
            " up), or a number of samples that was not there before.",
            column(of_host("scrape_duration_seconds"), "A"),
            column(of_host("scrape_samples_post_metric_relabeling"), "B"),
            columns=[
                Column("job", "Job"),
                Column("instance", "Instance"),
                Column(
                    "A",
                    "Takes",
                    Unit.SECONDS,
                    of_query=True,
                    steps=bad_from(1, LIMITS["scrape_slow"]["seconds"]),
                    width=90,
                ),
                Column(
                    "B",
                    "Samples",
                    Unit.COUNT,
                    of_query=True,
                    steps=bad_from(LIMITS["scrape_too_many_samples"]["samples"]),
                    width=85,
                ),
            ],
            sort="Takes",
            width=HALF,
            height=9,
            empty="Prometheus has no targets",
            alerts=["ScrapeSlow", "ScrapeTooManySamples"],
        ),
    ],
)

_STORED: Final = of_host("prometheus_tsdb_storage_blocks_bytes")
_STORE: Final = Row(
    "Prometheus: storage",
    [
        graph(
            "Series",
            "Series in memory. Bad: a staircase: labels with ever new values; each costs memory for hours. Then see"
            " 'Scrapes' for the target that brings them.",
            query(of_host("prometheus_tsdb_head_series"), "{{host}}"),
            unit=Unit.COUNT,
            empty=_SELF,
            alerts=["PrometheusSeriesSurge"],
        ),
        graph(
            "Series made and removed",
            "A minute. Bad: as many made as there are: something renames itself all the time.",
            query(f"60 * {total(rate(of_host('prometheus_tsdb_head_series_created_total'), '5m'))}", "made", "A"),
            query(f"60 * {total(rate(of_host('prometheus_tsdb_head_series_removed_total'), '5m'))}", "removed", "B"),
            unit=Unit.PER_MINUTE,
            empty=_SELF,
        ),
        graph(
            "Size on disk",
            "Blocks, and the limit of size (dashed). At the limit the oldest data go. Bad: the limit reached before"
            " the time that you need to look back.",
            query(_STORED, "blocks {{host}}", "A"),
            query(f"{of_host('prometheus_tsdb_retention_limit_bytes')} > 0", "limit {{host}}", "B"),
            unit=Unit.BYTES,
            dashed=["limit .*"],
            empty=_SELF,
            alerts=["PrometheusStorageNearRetentionSize"],
        ),
        graph(
            "History",
            f"How far back the data go. Bad: less than {LIMITS['prometheus_history_too_short']['days']} days once the"
            " limit of size works: comparisons with last week end. A young installation simply has no more.",
            query(f"time() - {of_host('prometheus_tsdb_lowest_timestamp_seconds')}", "{{host}}"),
            unit=Unit.DAYS,
            empty=_SELF,
            alerts=["PrometheusHistoryTooShort"],
        ),
        graph(
            "Trouble in the database",
            "Failed compactions, reloads and writes, and samples that were thrown away, in the hour before. Zero is"
            " normal. Bad: failed ones: most often the disk is full; thrown away: two targets send the same series.",
            query(
                total(
                    " + ".join(
                        increase(of_host(metric), "1h")
                        for metric in (
                            "prometheus_tsdb_compactions_failed_total",
                            "prometheus_tsdb_reloads_failures_total",
                            "prometheus_tsdb_wal_writes_failed_total",
                        )
                    )
                ),
                "failed",
                "A",
            ),
            query(
                total(
                    " + ".join(
                        increase(of_host(metric), "1h")
                        for metric in (
                            "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                            "prometheus_target_scrapes_sample_out_of_order_total",
                            "prometheus_target_scrapes_sample_out_of_bounds_total",
                        )
                    )
                ),
                "thrown away",
                "B",
            ),
            unit=Unit.COUNT,
            width=THIRD,
            decimals=0,
            colors={"failed": RED, "thrown away": ORANGE},
            empty=_SELF,
            alerts=["PrometheusTsdbFailing", "PrometheusTsdbCorruption", "ScrapeSamplesRejected"],
        ),
        graph(
            "CPU of the stack",
            "Cores that each part of the monitoring uses. Bad: Prometheus at its host's end: a dear rule or"
            " dashboard; see 'Rule groups'.",
            query(f"sum by (job, host) ({rate(of_host('process_cpu_seconds_total'))})", "{{job}} {{host}}"),
            unit=Unit.CORES,
            width=THIRD,
            stacked=True,
            decimals=3,
            empty=_SELF,
        ),
        graph(
            "Memory of the stack",
            "Resident memory of each part of the monitoring. Bad: Prometheus growing with 'Series'.",
            query(f"sum by (job, host) ({of_host('process_resident_memory_bytes')})", "{{job}} {{host}}"),
            unit=Unit.BYTES,
            width=THIRD,
            stacked=True,
            empty=_SELF,
            alerts=["MonitoringRestarting"],
        ),
    ],
)

_GROUP: Final = 'label_replace({}, "group", "$1", "rule_group", ".*;(.*)")'
_RULES: Final = Row(
    "Prometheus: rules and queries",
    [
        listing(
            "Rule groups",
            "How long each group took when it was evaluated last, of its interval. Bad: near 100 %, or missed"
            " evaluations: records and alerts of that group come late.",
            column(
                _GROUP.format(
                    f"max by (rule_group) ({of_host('prometheus_rule_group_last_duration_seconds')}"
                    f" / {of_host('prometheus_rule_group_interval_seconds')})"
                ),
                "A",
            ),
            column(
                _GROUP.format(f"max by (rule_group) ({of_host('prometheus_rule_group_last_duration_seconds')})"), "B"
            ),
            column(
                _GROUP.format(
                    f"sum by (rule_group) ({increase(of_host('prometheus_rule_group_iterations_missed_total'), '1h')})"
                ),
                "C",
            ),
            columns=[
                Column("group", "Group"),
                Column("B", "Took", Unit.SECONDS, of_query=True, width=90),
                Column(
                    "A", "Of its interval", Unit.RATIO, of_query=True, steps=bad_from(0.3, 0.8), decimals=2, width=120
                ),
                Column("C", "Missed, 1 h", Unit.COUNT, of_query=True, steps=bad_from(1), decimals=0, width=105),
            ],
            sort="Took",
            width=HALF,
            empty=_SELF,
            alerts=["PrometheusRuleEvaluationSlow"],
        ),
        graph(
            "Queries",
            "How long 90 of 100 queries took, by what Prometheus did: inner_eval is the work, queue_time the"
            " waiting. Bad: queue_time at all: too many dashboards at once.",
            query(highest(of_host("prometheus_engine_query_duration_seconds", 'quantile="0.9"'), "slice"), "{{slice}}"),
            unit=Unit.SECONDS,
            empty=_SELF,
        ),
        graph(
            "Requests to Prometheus",
            "Requests a second by status class of their answer. Bad: 4xx or 5xx from dashboards: a query is wrong or"
            " too large.",
            query(
                f"sum by (code) (label_replace({rate(of_host('prometheus_http_requests_total'))},"
                ' "code", "${1}xx", "code", "(.).."))',
                "{{code}}",
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            stacked=True,
            colors={"2xx": GREEN, "3xx": BLUE, "4xx": ORANGE, "5xx": RED},
            decimals=2,
            empty=_SELF,
        ),
    ],
)

_SENT: Final = of_host("alertmanager_notifications_total")
_NOTIFY: Final = Row(
    "Alertmanager",
    [
        number(
            "Alertmanagers",
            "How many Prometheus sends to, and how many see each other as a cluster, as the one that sees fewest"
            " says. Bad: none known: alerts fire and nobody is told. Fewer in the cluster than there are: people may"
            " be told of everything twice.",
            query(f"min({of_host('prometheus_notifications_alertmanagers_discovered')})", "known", "A"),
            query(f"min({of_host('alertmanager_cluster_members')})", "in the cluster", "B"),
            unit=Unit.COUNT,
            steps=bad_below(1),
            width=THIRD,
            height=8,
            names=True,
            line=False,
            empty=_SELF,
            alerts=["PrometheusNotConnectedToAlertmanager", "AlertmanagerClusterMembersMissing", "AlertmanagerDown"],
        ),
        graph(
            "Queue to Alertmanager",
            "Alerts that wait to be handed over, and how many may (dashed). Bad: a queue that fills: beyond its end"
            " alerts are thrown away.",
            query(highest(of_host("prometheus_notifications_queue_length")), "waiting", "A"),
            query(highest(of_host("prometheus_notifications_queue_capacity")), "capacity", "B"),
            unit=Unit.COUNT,
            width=THIRD,
            dashed=["capacity"],
            empty=_SELF,
            alerts=["PrometheusNotificationsDropped"],
        ),
        graph(
            "Notifications by way",
            "Sent (a minute), by integration. Bad: none while alerts fire.",
            query(f"60 * {total(rate(_SENT, '5m'), 'integration')} > 0", "{{integration}}"),
            unit=Unit.PER_MINUTE,
            width=THIRD,
            empty="None were sent",
            links=[more(Uid.ALERTS, "Alerts")],
        ),
        graph(
            "Failed notifications",
            f"Share of the notifications of 15 minutes that did not arrive, by integration. Alert at"
            f" {LIMITS['alertmanager_notifications_failing']['ratio']:.0%}. Bad: any: its log says why.",
            query(
                ratio(
                    total(rate(of_host("alertmanager_notifications_failed_total"), "15m"), "integration"),
                    total(rate(_SENT, "15m"), "integration"),
                ),
                "{{integration}}",
            ),
            unit=Unit.RATIO,
            width=HALF,
            high=1,
            steps=bad_from(LIMITS["alertmanager_notifications_failing"]["ratio"]),
            decimals=0,
            empty="None were sent in 15 minutes",
            alerts=["AlertmanagerNotificationsFailing"],
        ),
        graph(
            "Notification latency",
            "What 95 of 100 notifications stay below, by integration. Bad: seconds: the other side is slow, and a"
            " page comes late.",
            query(
                quantile(0.95, rate(of_host("alertmanager_notification_latency_seconds_bucket"), "15m"), "integration"),
                "{{integration}}",
            ),
            unit=Unit.SECONDS,
            width=HALF,
            empty="None were sent in 15 minutes",
        ),
    ],
)

_PAGES: Final = of_host("grafana_http_request_duration_seconds_count", 'status_code=~"[1-5].."')
_BAD: Final = 'status_code=~"5.."'
_SHOWN: Final = Row(
    "Grafana and certificates",
    [
        graph(
            "Requests to Grafana",
            "Requests a second by status. Bad: 5xx: see 'Grafana's errors'; none at all: nobody looks, or nobody can.",
            query(
                f'sum by (status) (label_replace({rate(_PAGES)}, "status", "${{1}}xx", "status_code", "(.).."))',
                "{{status}}",
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            width=QUARTER,
            stacked=True,
            colors={"2xx": GREEN, "3xx": BLUE, "4xx": ORANGE, "5xx": RED},
            decimals=2,
            empty=_GRAFANA,
            alerts=["GrafanaDown"],
        ),
        graph(
            "Grafana's errors",
            f"Share that ended in a 5xx. Alert at {LIMITS['grafana_errors']['ratio']:.0%}. Bad: any that last: its"
            " database, or a data source that does not answer.",
            query(
                f"({total(rate(of_host('grafana_http_request_duration_seconds_count', _BAD), '5m'))} or vector(0))"
                f" / ({total(rate(_PAGES, '5m'))} > 0)",
                "failed",
            ),
            unit=Unit.RATIO,
            width=QUARTER,
            high=1,
            steps=bad_from(LIMITS["grafana_errors"]["ratio"]),
            decimals=1,
            empty=_GRAFANA,
            alerts=["GrafanaErrors"],
        ),
        graph(
            "Grafana's answers P95",
            "What 95 of 100 requests stay below. Bad: seconds: dashboards ask for too much, or Prometheus is slow"
            " (see 'Queries').",
            query(quantile(0.95, rate(of_host("grafana_http_request_duration_seconds_bucket"), "5m")), "P95"),
            unit=Unit.SECONDS,
            width=QUARTER,
            empty=_GRAFANA,
        ),
        graph(
            "Certificates end in",
            "How long each certificate still holds that a blackbox exporter of yours is shown; this estate has none"
            f" of its own. It warns {LIMITS['certificate_expiry']['warning_days']} days before, and pages"
            f" {LIMITS['certificate_expiry']['critical_days']}. Bad: a line that goes down past the day of its"
            " renewal.",
            query(f"{of_host('probe_ssl_earliest_cert_expiry')} - time()", "{{instance}}"),
            unit=Unit.DAYS,
            steps=bad_below(
                LIMITS["certificate_expiry"]["warning_days"] * 86400,
                LIMITS["certificate_expiry"]["critical_days"] * 86400,
            ),
            empty="No blackbox exporter is scraped",
            alerts=["CertificateExpiry"],
        ),
    ],
)

BOARD: Final = Board(
    Uid.MONITORING,
    Folder.INFRASTRUCTURE,
    "Prometheus and Alertmanager",
    "The stack that watches, itself: who watches it from outside is told by the alert Watchdog.",
    [_TARGETS, _STORE, _RULES, _NOTIFY, _SHOWN],
    [choice("host", "Host", "label_values(up, host)")],
    mine='component=~"prometheus|alertmanager|grafana|monitoring|scrape|target|certificate", host=~"$host"',
    span="3h",
)
