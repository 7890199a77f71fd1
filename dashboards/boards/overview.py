"""AllIN Platform Overview: the documented rows first, then the objectives, then where to look."""

from __future__ import annotations

from typing import Final

from dashboards import targets
from dashboards.board import Board, Row, environment, instance
from dashboards.boards.alerts import firing
from dashboards.names import Folder, Uid
from dashboards.panels import (
    FULL,
    GREEN,
    HALF,
    ORANGE,
    QUARTER,
    RED,
    THIRD,
    YELLOW,
    AnyPanel,
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
    steps_of,
)
from dashboards.queries import (
    USERS,
    by_class,
    of_backend,
    of_job,
    quantile,
    rate,
    ratio,
    total,
)

# Shares and quantiles are of five minutes, as the alerts'; of fewer a quiet service has too few requests to tell.
_WINDOW: Final = "5m"
_REQUESTS: Final = rate(of_backend("allin_http_requests_total", USERS), _WINDOW)
_FAILED: Final = rate(of_backend("allin_http_requests_total", USERS, 'status_code=~"5.."'), _WINDOW)
_SECONDS: Final = rate(of_backend("allin_http_request_duration_seconds_bucket", USERS), _WINDOW)
_CLASSES: Final = {"2xx": GREEN, "3xx": "blue", "4xx": YELLOW, "5xx": RED}

_REQUEST_METRICS: Final = Row(
    "Request Metrics",
    [
        graph(
            "Requests/sec",
            "Users' requests by status, without probes and scrapes. Bad: 5xx (red) at all, or a total far from what is"
            " usual at this hour. A fall to zero with the backend up means that users do not get here: look at what"
            " stands before it.",
            query(by_class(rate(of_backend("allin_http_requests_total", USERS))), "{{class}}"),
            unit=Unit.REQUESTS_PER_SECOND,
            stacked=True,
            colors=_CLASSES,
            empty="No requests",
            alerts=["BackendDown", "BackendAbsent", "BackendNoTraffic"],
        ),
        graph(
            "Success Rate",
            "Share of users' requests that did not end in a 5xx. Target: above 99 % (green line); below 95 % (yellow"
            " line) HighErrorRate pages. Bad: any dip that lasts. Then see 'Routes' below for where, and the backend's"
            " log for why.",
            query(f"1 - {ratio(total(_FAILED), total(_REQUESTS))}", "success"),
            unit=Unit.RATIO,
            low=None,
            high=1,
            steps=steps_of(targets.SUCCESS),
            reach=1,
            colors={"success": "blue"},
            decimals=1,
            empty="No requests",
            alerts=["HighErrorRate"],
        ),
        graph(
            "P95 Response Time",
            "What 50, 95 and 99 of 100 users' requests stay below. The lines are P95's: target 200 ms, alert at 500"
            " ms. Targets of the others: P50 50 ms, P99 1 s. Bad: P95 above its line; P99 alone is a few slow"
            " requests. Then see DB Query P99, Event Loop Lag and CPU Usage: one of them rises with it.",
            query(quantile(0.5, _SECONDS), "P50", "A"),
            query(quantile(0.95, _SECONDS), "P95", "B"),
            query(quantile(0.99, _SECONDS), "P99", "C"),
            unit=Unit.SECONDS,
            steps=steps_of(targets.P95),
            reach=targets.P95.alert * 1.2,
            colors={"P50": "semi-dark-blue", "P95": "purple", "P99": "text"},
            empty="No requests",
            alerts=["SlowResponseTime", "SlowMedianResponseTime", "SlowTailResponseTime"],
        ),
        graph(
            "Active Connections",
            "Requests that are being answered at this moment. Bad: a steady climb, which means that requests come in"
            " faster than they are answered. Then see P95 Response Time and what it points to.",
            query(total(of_backend("allin_active_connections"), "instance"), "{{instance}}"),
            unit=Unit.COUNT,
            stacked=True,
            empty="The backend is not scraped",
            alerts=["BackendInstanceDown", "BackendMetricsMissing"],
        ),
    ],
)

_SYSTEM_HEALTH: Final = Row(
    "System Health",
    [
        graph(
            "CPU Usage",
            "Share of one core that each process uses; it cannot use more than about one. Target: below 70 %, alert"
            " at 85 %. Bad: near 100 %, when requests queue up in the event loop. Then see whether the requests"
            " became more or each became dearer.",
            query(rate(of_backend("allin_process_cpu_seconds_total")), "{{instance}}"),
            unit=Unit.RATIO,
            steps=steps_of(targets.CPU),
            reach=1,
            decimals=0,
            empty="The backend is not scraped",
            alerts=["HighCpuUsage"],
        ),
        graph(
            "Memory Usage",
            "Resident memory of each process. Target: below 1 GiB, where the warning begins; at 1.5 GiB it pages."
            " Bad: a line that only rises, release after release or hour after hour: a leak. A restart buys time.",
            query(of_backend("allin_process_resident_memory_bytes"), "{{instance}}"),
            unit=Unit.BYTES,
            steps=steps_of(targets.MEMORY),
            reach=targets.MEMORY.alert * 1.1,
            empty="The backend is not scraped",
            alerts=["HighMemoryUsage"],
        ),
        graph(
            "Event Loop Lag",
            "P95 of the time between two turns of a 10 ms timer on the event loop: about 10 ms when idle. Target: below"
            " 50 ms, alert at 100 ms. Bad: above that every request waits so long, whatever it does; something blocks"
            " the loop. Then see CPU Usage: high means work, low means a blocking call.",
            query(of_backend("allin_nodejs_eventloop_lag_p95_seconds"), "{{instance}}"),
            unit=Unit.SECONDS,
            steps=steps_of(targets.EVENT_LOOP_LAG),
            reach=targets.EVENT_LOOP_LAG.alert * 1.2,
            empty="The backend is not scraped",
            alerts=["HighEventLoopLag"],
        ),
        graph(
            "Heap Usage",
            "Data segment of each process (VmData): what it has asked for, not what it holds in memory. It has no"
            " target. Bad: a rise that never ends, together with Memory Usage: a leak. Alone it is address space.",
            query(of_backend("allin_process_heap_bytes"), "{{instance}}"),
            unit=Unit.BYTES,
            empty="The backend is not scraped",
            alerts=["HighMemoryUsage"],
        ),
    ],
)

_HITS: Final = total(rate(of_backend("allin_cache_hits_total"), _WINDOW), "cache_type")
_MISSES: Final = total(rate(of_backend("allin_cache_misses_total"), _WINDOW), "cache_type")
_STATEMENTS: Final = rate(of_backend("allin_db_query_duration_seconds_bucket"), _WINDOW)
_OAUTH_LIMITS: Final = targets.LIMITS["oauth_failures"]

_APPLICATION_METRICS: Final = Row(
    "Application Metrics",
    [
        graph(
            "Cache Hit Rate",
            "Share of look-ups that the cache answered, by what is cached. Target: above 90 %; LowCacheHitRate speaks"
            " below 50 %. Bad: all kinds at zero at once, which is the cache out of reach, and then the database does"
            " the work. One kind alone after a release is a key that changed.",
            query(ratio(_HITS, f"{_HITS} + {_MISSES}"), "{{cache_type}}"),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=steps_of(targets.CACHE_HITS),
            decimals=0,
            empty="No look-ups",
            alerts=["LowCacheHitRate", "CacheUnavailable", "CacheErrors"],
        ),
        graph(
            "DB Query P99",
            "What 99 of 100 database statements stay below, by operation; failed ones included. Alert for each table at"
            " 2 s. Bad: all operations together, which is the database or the way to it; one alone is a query. Then see"
            " 'Database' below for the table.",
            query(
                quantile(0.99, rate(of_backend("allin_db_query_duration_seconds_bucket"), _WINDOW), "operation"),
                "{{operation}}",
            ),
            unit=Unit.SECONDS,
            width=THIRD,
            steps=bad_from(targets.LIMITS["slow_database_queries"]["seconds"]),
            empty="No statements",
            alerts=["SlowDatabaseQueries", "DatabaseErrors", "DatabasePoolExhausted"],
        ),
        graph(
            "OAuth Success Rate",
            "Share of OAuth operations of the last 30 minutes that worked, by platform; people who said no are left"
            " out. Below 90 % (green line) it warns, below 50 % (yellow line) it pages. Bad: one platform at zero:"
            " nobody can connect it, and its tokens run out. Then see the dashboard of third-party APIs.",
            query(
                ratio(
                    total(rate(of_backend("allin_oauth_operations_total", 'status="success"'), "30m"), "platform"),
                    total(rate(of_backend("allin_oauth_operations_total", 'status!="denied"'), "30m"), "platform"),
                ),
                "{{platform}}",
            ),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_below(1 - _OAUTH_LIMITS["warning_ratio"], 1 - _OAUTH_LIMITS["critical_ratio"]),
            decimals=0,
            empty="No OAuth operations in 30 minutes",
            alerts=["OAuthFailures"],
            links=[more(Uid.THIRD_PARTY, "Third-party APIs")],
        ),
    ],
)

_AVAILABILITY: Final = targets.LIMITS["availability_budget_burn"]
_LATENCY: Final = targets.LIMITS["latency_budget_burn"]
_BURNS: Final = {"1 h": "1h", "6 h": "6h", "1 d": "1d", "3 d": "3d"}


def _burn(ratio_of: str, objective: float, window: str) -> str:
    return f"{of_job(f'{ratio_of}:ratio_rate{window}')} / {round(1 - objective, 6)}"


def _objective(name: str, ratio_of: str, limits: dict[str, float], says: str, alert: str) -> list[AnyPanel]:
    """The budget that is left, and how fast it goes."""
    return [
        number(
            f"{name} budget left",
            f"Share of the error budget of 30 days that is left: {says}. It is at 100 % where nothing went wrong, and"
            " below 0 where the objective is missed. Bad: below 25 % with days to go: leave out what is risky until"
            " it recovers.",
            query(of_job(f"job:allin_slo_{name.lower()}_budget_remaining:ratio30d")),
            unit=Unit.RATIO,
            width=QUARTER,
            height=8,
            steps=bad_below(0.25, 0.0),
            high=1,
            decimals=1,
            line=False,
            empty="Recorded every five minutes, from the first requests on",
            alerts=[alert],
        ),
        graph(
            f"{name} budget burn",
            f"How many times faster than allowed the {name.lower()} budget goes, over windows of different length; at"
            f" 1 it lasts just 30 days. It pages where the last hour is above {limits['fast_page_burn']:g} (red line)"
            f" and still going on, or the last six hours above {limits['slow_page_burn']:g} (yellow line). Bad: a"
            " short window above its line.",
            *(
                query(_burn(ratio_of, limits["objective"], window), title, ref)
                for ref, (title, window) in zip("ABCD", _BURNS.items(), strict=True)
            ),
            unit=Unit.TIMES,
            width=QUARTER,
            steps=[(None, GREEN), (limits["slow_page_burn"], YELLOW), (limits["fast_page_burn"], RED)],
            reach=limits["fast_page_burn"] * 1.1,
            decimals=2,
            empty="No requests yet",
            alerts=[alert],
        ),
    ]


_OBJECTIVES: Final = Row(
    "Objectives and error budget",
    [
        *_objective(
            "Availability",
            "job:allin_http_requests_errors",
            _AVAILABILITY,
            f"{_AVAILABILITY['objective']:.0%} of the users' requests do not end in a 5xx",
            "AvailabilityBudgetBurn",
        ),
        *_objective(
            "Latency",
            "job:allin_http_requests_slow",
            _LATENCY,
            f"{_LATENCY['objective']:.0%} of the successful requests take less than {_LATENCY['seconds'] * 1000:.0f}"
            " ms",
            "LatencyBudgetBurn",
        ),
    ],
)

_BY_ROUTE: Final = ("method", "route")
_ROUTE_REQUESTS: Final = total(rate(of_backend("allin_http_requests_total", USERS), _WINDOW), *_BY_ROUTE)
_ROUTE_FAILED: Final = total(
    rate(of_backend("allin_http_requests_total", USERS, 'status_code=~"5.."'), _WINDOW), *_BY_ROUTE
)
_TABLES: Final = ("operation", "table")

_FILES: Final = targets.LIMITS["high_open_file_descriptors"]["ratio"]

_WHERE: Final = Row(
    "Where to look",
    [
        listing(
            "Routes",
            "What users asked for in the last 5 minutes, the busiest first. Bad: red, or a P95 far above the"
            " others'. One route alone is that route's code or table; all of them are the process, the database or"
            " the cache.",
            column(f"{_ROUTE_REQUESTS} > 0", "A"),
            column(f"{_ROUTE_FAILED} / ({_ROUTE_REQUESTS} > 0)", "B"),
            column(
                quantile(
                    0.95, rate(of_backend("allin_http_request_duration_seconds_bucket", USERS), _WINDOW), *_BY_ROUTE
                ),
                "C",
            ),
            columns=[
                Column("method", "Method", width=75),
                Column("route", "Route"),
                Column("A", "Requests", Unit.REQUESTS_PER_SECOND, of_query=True, decimals=2, width=100),
                Column(
                    "B",
                    "Failed",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(0.0001, targets.LIMITS["high_error_rate"]["ratio"]),
                    decimals=1,
                    width=75,
                ),
                Column("C", "P95", Unit.SECONDS, of_query=True, steps=steps_of(targets.P95), width=80),
            ],
            sort="Requests",
            width=HALF,
            height=9,
            empty="No requests in 5 minutes",
            alerts=["HighRouteErrorRate"],
        ),
        listing(
            "Database",
            "Statements of the last 5 minutes by operation and table, the slowest first. Bad: red, or failed ones. Slow"
            " on one table is a missing index or a lock; slow on all is the database.",
            column(
                f"{total(rate(of_backend('allin_db_queries_total'), _WINDOW), *_TABLES)} > 0",
                "A",
            ),
            column(
                total(rate(of_backend("allin_db_queries_total", 'status="error"'), _WINDOW), *_TABLES)
                + f" and {total(rate(of_backend('allin_db_queries_total'), _WINDOW), *_TABLES)} > 0",
                "B",
            ),
            column(quantile(0.99, _STATEMENTS, *_TABLES), "C"),
            columns=[
                Column("operation", "Operation", width=90),
                Column("table", "Table"),
                Column("A", "Statements", Unit.PER_SECOND, of_query=True, decimals=2, width=100),
                Column("B", "Failed", Unit.PER_SECOND, of_query=True, steps=bad_from(0.0001), decimals=2, width=80),
                Column(
                    "C",
                    "P99",
                    Unit.SECONDS,
                    of_query=True,
                    steps=bad_from(0.5, targets.LIMITS["slow_database_queries"]["seconds"]),
                    width=80,
                ),
            ],
            sort="P99",
            width=HALF,
            height=9,
            empty="No statements in 5 minutes",
        ),
        graph(
            "Database connections in use",
            "Share of the connections that each process may open. Bad: near 100 %, when requests wait for one. Then"
            " see DB Query P99: slow statements hold them.",
            query(of_backend("job_instance:allin_db_pool_connections_in_use:ratio"), "{{instance}}"),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_from(targets.LIMITS["database_pool_exhausted"]["ratio"]),
            decimals=0,
            empty="The backend is not scraped",
            alerts=["DatabasePoolExhausted"],
        ),
        graph(
            "Failures inside",
            "Database statements and cache operations that failed. Zero is normal. Bad: anything that lasts; a cache"
            " that fails costs time, a database that fails costs requests.",
            query(total(rate(of_backend("allin_db_queries_total", 'status="error"'))), "database", "A"),
            query(total(rate(of_backend("allin_cache_errors_total"))), "cache", "B"),
            unit=Unit.PER_SECOND,
            width=THIRD,
            colors={"database": RED, "cache": ORANGE},
            empty="The backend is not scraped",
            alerts=["DatabaseErrors", "CacheErrors"],
        ),
        graph(
            "Garbage collection",
            "Share of time that each process spends collecting. Bad: more than a few per cent: memory is short, or much"
            " is made and thrown away.",
            query(total(rate(of_backend("allin_nodejs_gc_duration_seconds_sum")), "instance"), "{{instance}}"),
            unit=Unit.RATIO,
            width=THIRD,
            decimals=2,
            empty="The backend is not scraped",
        ),
        listing(
            "Instances",
            "Every process of the backend. Bad: one that is down, that runs another release than the rest, or that has"
            " just started though nobody deployed.",
            column(f"{of_backend('up')}", "A"),
            column(f"{of_backend('allin_build_info')}", "B"),
            column(f"{of_backend('allin_process_start_time_seconds')} * 1000", "C"),
            column(ratio(of_backend("allin_process_open_fds"), of_backend("allin_process_max_fds")), "D"),
            columns=[
                Column("instance", "Instance"),
                Column("host", "Host"),
                Column("A", "State", of_query=True, texts={1: ("up", GREEN), 0: ("DOWN", RED)}, width=90),
                Column("release", "Release"),
                Column("version", "Version", width=110),
                Column("C", "Started", Unit.MOMENT, of_query=True, width=150),
                Column(
                    "D", "Open files", Unit.RATIO, of_query=True, steps=bad_from(0.7, _FILES), decimals=1, width=110
                ),
            ],
            sort="Instance",
            descending=False,
            width=FULL,
            height=6,
            empty="Prometheus has no target of this environment",
            alerts=["BackendInstanceDown", "BackendRestartingTooOften", "HighOpenFileDescriptors"],
        ),
    ],
)

_ALERTS: Final = Row(
    "Alerts",
    [
        firing(
            "Firing here",
            "Alerts of this environment's backend that fire now, the latest first. Those of hosts and of the"
            " monitoring are in the dashboard Alerts.",
            'job="$job"',
            height=5,
        )
    ],
)

BOARD: Final = Board(
    Uid.OVERVIEW,
    Folder.PLATFORM,
    "AllIN Platform Overview",
    "Is the platform well? Requests, processes and what they depend on, with the targets drawn in; then the"
    " objectives and their error budget, then where to look.",
    [_REQUEST_METRICS, _SYSTEM_HEALTH, _APPLICATION_METRICS, _OBJECTIVES, _ALERTS, _WHERE],
    [environment(), instance()],
    mine='job="$job"',
    releases=True,
)
