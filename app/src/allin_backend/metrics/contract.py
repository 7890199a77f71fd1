"""The metric contract: every metric the backend exposes, with its type, labels and help.

Instruments, documentation and the checks of rules and dashboards are made from this module, so it imports nothing but
the standard library and the table of paths. A metric that is not declared here is not exposed, and what is declared
here is on ``/metrics`` from the first scrape. After a change write the documentation anew: ``make metrics-doc``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from allin_backend import paths


class Kind(StrEnum):
    """The metric types of the Prometheus text format that the backend uses."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


UNITS: Final = ("seconds", "bytes", "ratio")
"""The base units of values."""

_METRIC_NAME: Final = re.compile(r"allin_[a-z0-9]+(_[a-z0-9]+)*")
_LABEL_NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*")
# le and quantile belong to the text format. The others are each target's own: Prometheus would store a label of that
# name as exported_job or exported_instance, and a query for it would select nothing.
_TAKEN_LABELS: Final = frozenset({"le", "quantile", "job", "instance"})
# What Prometheus and the text format add to the name of a histogram or counter.
_TAKEN_SUFFIXES: Final = ("_bucket", "_count", "_sum", "_created")


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the set of values it can have.

    ``values`` is ``None`` only for labels that are fixed when the process starts (a version): they add no series.

    Raises:
        ValueError: a name or value that Prometheus could not keep as it is.
    """

    name: str
    values: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if not _LABEL_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r}: a label's name is lower-case letters and underscores")
        if self.name in _TAKEN_LABELS:
            raise ValueError(f"{self.name}: Prometheus uses this label itself")
        if self.values is not None:
            if not self.values or len(set(self.values)) != len(self.values):
                raise ValueError(f"{self.name}: a closed set has values, each of them once")
            if "" in self.values:
                raise ValueError(f"{self.name}: an empty value is no label at all")


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric. ``name`` is the name in queries, so a counter's name ends in ``_total``.

    ``unit`` is the base unit of the value, empty for plain counts. ``buckets`` are a histogram's upper bounds in that
    unit, without ``+Inf``. ``appears`` says from when on there are samples, for a metric whose value is not known at
    start, or whose combinations of labels are too many to show unused; all others have every sample from the first
    scrape. ``documented``: the predecessor documented it, so dashboards and alerts elsewhere use it under this name and
    with these labels.

    Raises:
        ValueError: the declaration contradicts itself.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    appears: str = ""
    documented: bool = False

    def __post_init__(self) -> None:
        if not _METRIC_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name}: every metric of the backend starts with allin_, in lower case")
        if self.name.endswith(_TAKEN_SUFFIXES):
            raise ValueError(f"{self.name}: this ending is made by Prometheus or the text format")
        if not self.help.endswith(".") or "\n" in self.help:
            raise ValueError(f"{self.name}: the help is one line of sentences")
        if len(set(self.label_names)) != len(self.labels):
            raise ValueError(f"{self.name}: two labels have the same name")
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and only counters, end in _total")
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets):
            raise ValueError(f"{self.name}: histograms, and only histograms, have buckets")
        if list(self.buckets) != sorted(set(self.buckets)) or math.inf in self.buckets:
            raise ValueError(f"{self.name}: bucket bounds rise and leave +Inf out")
        words = self.name.removesuffix("_total").split("_")
        if self.unit and (self.unit not in UNITS or self.unit not in words):
            raise ValueError(f"{self.name}: the unit {self.unit} is a base unit and belongs into the name")
        if words[-1] in UNITS and not self.unit:
            raise ValueError(f"{self.name}: the name ends in a unit that is not declared")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names in declared order, without a histogram's ``le``."""
        return tuple(label.name for label in self.labels)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names under which the metric's samples are stored in Prometheus."""
        if self.kind is Kind.HISTOGRAM:
            return (f"{self.name}_bucket", f"{self.name}_count", f"{self.name}_sum")
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Subject:
    """Metrics that belong together, and what a reader has to know about all of them."""

    title: str
    text: str
    metrics: tuple[Metric, ...]


def by_name(subjects: Iterable[Subject]) -> dict[str, Metric]:
    """All metrics by their names.

    Raises:
        ValueError: two metrics would be stored under the same name.
    """
    found = [metric for subject in subjects for metric in subject.metrics]
    stored = Counter(name for metric in found for name in {metric.name, *metric.sample_names})
    twice = sorted(name for name, times in stored.items() if times > 1)
    if twice:
        raise ValueError(f"declared twice: {', '.join(twice)}")
    return {metric.name: metric for metric in found}


OTHER_METHOD: Final = "OTHER"
UNMATCHED_ROUTE: Final = "unmatched"
OTHER: Final = "other"
NO_TABLE: Final = "none"
CLIENT_CLOSED_REQUEST: Final = 499
"""Recorded, never sent: the client left, or the request was cancelled, before the response was complete."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER_METHOD)
ROUTES: Final = (*paths.MEASURED, UNMATCHED_ROUTE)
STATUS_CODES: Final = (*sorted({*(str(int(status)) for status in HTTPStatus), str(CLIENT_CLOSED_REQUEST)}), OTHER)
DB_OPERATIONS: Final = ("select", "insert", "update", "delete", OTHER)
DB_TABLES: Final = (
    "users",
    "sessions",
    "accounts",
    "oauth_states",
    "posts",
    "publications",
    "alembic_version",
    "schema_version",
    OTHER,
    NO_TABLE,
)
DB_STATUSES: Final = ("success", "error")
GC_KINDS: Final = ("minor", "major")
DB_POOL_STATES: Final = ("idle", "in_use")
CACHE_TYPES: Final = ("session", "user", "posts", "figures")
CACHE_OPERATIONS: Final = ("get", "set", "delete")
PLATFORMS: Final = ("facebook", "instagram", "linkedin", "tiktok", "twitter")
NO_PLATFORM: Final = "none"
SUCCESS: Final = "success"
ERROR: Final = "error"
OAUTH_OPERATIONS: Final = ("authorize", "callback", "refresh", "revoke")
# A person who says no on the platform's page is neither a success nor a fault of anybody.
OAUTH_STATUSES: Final = (SUCCESS, ERROR, "denied")
SOCIAL_ENDPOINTS: Final = ("token", "revoke", "identity", "publish", "figures")
SOCIAL_STATUSES: Final = (SUCCESS, ERROR)
SOCIAL_ERRORS: Final = (
    "timeout",
    "connection",
    "rate_limited",
    "unauthorized",
    "rejected",
    "server_error",
    "invalid_response",
    "circuit_open",
    "cancelled",
)
ACCOUNT_STATES: Final = ("active", "needs_reconnect")
FAILURE_REASONS: Final = ("rejected", "unauthorized", "too_late", "unknown_outcome")
QUEUE_STATES: Final = ("waiting", "due")
ACTIVITY_WINDOWS: Final = ("5m", "1h", "24h", "7d", "30d")
SIGN_IN_STATUSES: Final = (SUCCESS, "wrong_credentials", "rate_limited")
USER_ACTIONS: Final = (
    "sign_up",
    "sign_in",
    "sign_out",
    "user_delete",
    "account_connect",
    "account_disconnect",
    "post_create",
    "post_schedule",
    "post_cancel",
    "post_delete",
    "figures_view",
)
JOBS: Final = ("publish", "refresh_tokens", "survey", "housekeeping")
FAULTS: Final = ("slow-db", "errors", "cache-off", "leak", "loop-block")

# Every documented threshold (50, 100, 200, 500 ms, 1 and 2 s) is a bound: ratios and alerts need no interpolation.
HTTP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
# SQLite answers in well under a millisecond; 2 s is the bound of the documented slow-query alert.
DB_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
# The last bound lies above the longest time-out of a call.
SOCIAL_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
# From "at once" to "hours late", as after an outage of a platform.
PUBLISH_DELAY_BUCKETS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21600.0)
# The bounds that dashboards made for prom-client expect.
GC_BUCKETS: Final = (0.001, 0.01, 0.1, 1.0, 2.0, 5.0)

_METHOD = Label("method", METHODS)
_ROUTE = Label("route", ROUTES)
_STATUS_CODE = Label("status_code", STATUS_CODES)
_OPERATION = Label("operation", DB_OPERATIONS)
_TABLE = Label("table", DB_TABLES)
_PLATFORM = Label("platform", PLATFORMS)
_ENDPOINT = Label("endpoint", SOCIAL_ENDPOINTS)
_CACHE_TYPE = Label("cache_type", CACHE_TYPES)
_TASK = Label("task", JOBS)
_LAG_HELP = (
    "of the time between two turns of a 10 ms timer on the event loop over the last 30 seconds, in seconds."
    " Contains the 10 ms themselves, as the Node.js metric of this name does: about 0.010 when idle."
)

_HTTP_APPEARS = (
    "each method of a route with its success and with 500, and GET unmatched 404, from the first scrape; every other"
    " combination from its first request"
)

HTTP_REQUEST_DURATION: Final = Metric(
    "allin_http_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the arrival of an HTTP request to the last part of its response body, in seconds."
    " Leaves out /metrics and work done after the response.",
    (_METHOD, _ROUTE, _STATUS_CODE),
    "seconds",
    HTTP_BUCKETS,
    _HTTP_APPEARS,
    documented=True,
)
HTTP_REQUESTS: Final = Metric(
    "allin_http_requests_total",
    Kind.COUNTER,
    "HTTP requests that have been answered, failed (500) or been given up by the client (499), without /metrics.",
    (_METHOD, _ROUTE, _STATUS_CODE),
    appears=_HTTP_APPEARS,
    documented=True,
)
ACTIVE_CONNECTIONS: Final = Metric(
    "allin_active_connections",
    Kind.GAUGE,
    "HTTP requests that are being answered now, without /metrics. Idle keep-alive connections are not counted.",
    documented=True,
)
DB_QUERY_DURATION: Final = Metric(
    "allin_db_query_duration_seconds",
    Kind.HISTOGRAM,
    "Time that one database statement took, failed ones included, in seconds.",
    (_OPERATION, _TABLE),
    "seconds",
    DB_BUCKETS,
    documented=True,
)
DB_QUERIES: Final = Metric(
    "allin_db_queries_total",
    Kind.COUNTER,
    "Database statements by outcome; a cancelled statement is an error.",
    (_OPERATION, _TABLE, Label("status", DB_STATUSES)),
    documented=True,
)
DB_POOL_CONNECTIONS: Final = Metric(
    "allin_db_pool_connections",
    Kind.GAUGE,
    "Database connections of this process by state.",
    (Label("state", DB_POOL_STATES),),
)
DB_POOL_LIMIT: Final = Metric(
    "allin_db_pool_connections_limit", Kind.GAUGE, "Most database connections that this process may open."
)
CACHE_HITS: Final = Metric(
    "allin_cache_hits_total",
    Kind.COUNTER,
    "Look-ups that the cache could answer.",
    (_CACHE_TYPE,),
    documented=True,
)
CACHE_MISSES: Final = Metric(
    "allin_cache_misses_total",
    Kind.COUNTER,
    "Look-ups that the cache could not answer, those while it was out of reach included.",
    (_CACHE_TYPE,),
    documented=True,
)
CACHE_ERRORS: Final = Metric(
    "allin_cache_errors_total",
    Kind.COUNTER,
    "Cache operations that failed or took too long; the request then went on without the cache.",
    (Label("operation", CACHE_OPERATIONS),),
)
CACHE_AVAILABLE: Final = Metric(
    "allin_cache_available", Kind.GAUGE, "1 while the cache answers, 0 while it is left alone after failures."
)
OAUTH_OPERATIONS_TOTAL: Final = Metric(
    "allin_oauth_operations_total",
    Kind.COUNTER,
    "OAuth operations by outcome; denied: the person did not give the permission.",
    (_PLATFORM, Label("operation", OAUTH_OPERATIONS), Label("status", OAUTH_STATUSES)),
    documented=True,
)
OAUTH_TOKEN_EXPIRY: Final = Metric(
    "allin_oauth_token_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When the access token that ends first among a platform's active accounts ends, in Unix seconds."
    " The same in every process of a deployment.",
    (_PLATFORM,),
    "seconds",
    appears="while the platform has an active account whose token ends",
)
SOCIAL_CALLS: Final = Metric(
    "allin_social_api_calls_total",
    Kind.COUNTER,
    "Requests sent to a platform's API by outcome, each retry counted.",
    (_PLATFORM, _ENDPOINT, Label("status", SOCIAL_STATUSES)),
    documented=True,
)
SOCIAL_DURATION: Final = Metric(
    "allin_social_api_duration_seconds",
    Kind.HISTOGRAM,
    "Time from sending a request to a platform's API until its answer was read or it failed, in seconds.",
    (_PLATFORM, _ENDPOINT),
    "seconds",
    SOCIAL_BUCKETS,
    documented=True,
)
SOCIAL_ERRORS_TOTAL: Final = Metric(
    "allin_social_api_errors_total",
    Kind.COUNTER,
    "Failed requests to a platform's API by class. circuit_open: not sent, because many before it had failed; these are"
    " not in allin_social_api_calls_total.",
    (_PLATFORM, _ENDPOINT, Label("error", SOCIAL_ERRORS)),
)
SOCIAL_RETRIES: Final = Metric(
    "allin_social_api_retries_total",
    Kind.COUNTER,
    "Requests to a platform's API that were sent again after a failure.",
    (_PLATFORM, _ENDPOINT),
)
SOCIAL_CIRCUIT_OPEN: Final = Metric(
    "allin_social_circuit_open",
    Kind.GAUGE,
    "1 while requests to the platform are held back because many before them had failed, else 0.",
    (_PLATFORM,),
)
SOCIAL_RATE_LIMIT: Final = Metric(
    "allin_social_rate_limit_requests",
    Kind.GAUGE,
    "Requests that the platform allows in its present window, as its last answer said.",
    (_PLATFORM,),
    appears="with the platform's first answer that says it",
)
SOCIAL_RATE_REMAINING: Final = Metric(
    "allin_social_rate_limit_remaining",
    Kind.GAUGE,
    "Requests that the platform still allows in its present window, as its last answer said.",
    (_PLATFORM,),
    appears="with the platform's first answer that says it",
)
SOCIAL_RATE_RESET: Final = Metric(
    "allin_social_rate_limit_reset_timestamp_seconds",
    Kind.GAUGE,
    "When the platform's present window ends, in Unix seconds, as its last answer said.",
    (_PLATFORM,),
    "seconds",
    appears="with the platform's first answer that says it",
)
SOCIAL_QUOTA_USED: Final = Metric(
    "allin_social_quota_used_ratio",
    Kind.GAUGE,
    "Share of the platform's allowance that is used, from 0 to 1, as its last answer said.",
    (_PLATFORM,),
    "ratio",
    appears="with the platform's first answer that says it",
)
SOCIAL_ACCOUNTS: Final = Metric(
    "allin_social_accounts",
    Kind.GAUGE,
    "Connected accounts; needs_reconnect: the platform no longer takes the token. The same in every process of a"
    " deployment.",
    (_PLATFORM, Label("state", ACCOUNT_STATES)),
)
POSTS_CREATED: Final = Metric(
    "allin_posts_created_total",
    Kind.COUNTER,
    "Posts written, once for each platform they are meant for; none: a draft without one.",
    (Label("platform", (*PLATFORMS, NO_PLATFORM)),),
)
POSTS_SCHEDULED: Final = Metric(
    "allin_posts_scheduled_total", Kind.COUNTER, "Posts given a time, once for each platform.", (_PLATFORM,)
)
POSTS_PUBLISHED: Final = Metric(
    "allin_posts_published_total", Kind.COUNTER, "Posts that a platform has accepted.", (_PLATFORM,)
)
POSTS_FAILED: Final = Metric(
    "allin_posts_failed_total",
    Kind.COUNTER,
    "Posts given up. rejected: the platform refused the content, unauthorized: the account must be connected again,"
    " too_late: it could not be published in time, unknown_outcome: the platform may have it, and asked again it would"
    " make a second one.",
    (_PLATFORM, Label("reason", FAILURE_REASONS)),
)
QUEUE_POSTS: Final = Metric(
    "allin_publish_queue_posts",
    Kind.GAUGE,
    "Posts not yet published. waiting: their time is to come, due: it has come. The same in every process of a"
    " deployment.",
    (_PLATFORM, Label("state", QUEUE_STATES)),
)
OLDEST_DUE_AGE: Final = Metric(
    "allin_publish_oldest_due_age_seconds",
    Kind.GAUGE,
    "How long the oldest due post has been due, in seconds; 0 where none is. The same in every process of a"
    " deployment.",
    (_PLATFORM,),
    "seconds",
)
PUBLISH_DELAY: Final = Metric(
    "allin_publish_delay_seconds",
    Kind.HISTOGRAM,
    "Time from a post's due time until the platform had accepted it, in seconds.",
    (_PLATFORM,),
    "seconds",
    PUBLISH_DELAY_BUCKETS,
)
ACTIVE_USERS: Final = Metric(
    "allin_active_users",
    Kind.GAUGE,
    "Users who did something within the window before now. The same in every process of a deployment.",
    (Label("window", ACTIVITY_WINDOWS),),
)
REGISTERED_USERS: Final = Metric(
    "allin_registered_users", Kind.GAUGE, "Users that there are. The same in every process of a deployment."
)
SIGN_INS: Final = Metric(
    "allin_sign_ins_total",
    Kind.COUNTER,
    "Attempts to sign in by outcome; rate_limited: refused unseen after too many.",
    (Label("status", SIGN_IN_STATUSES),),
)
USER_ACTIONS_TOTAL: Final = Metric(
    "allin_user_actions_total",
    Kind.COUNTER,
    "What users have done, by kind; only what succeeded.",
    (Label("action", USER_ACTIONS),),
)
BACKGROUND_RUNS: Final = Metric(
    "allin_background_runs_total",
    Kind.COUNTER,
    "Runs of the background jobs by outcome.",
    (_TASK, Label("status", (SUCCESS, ERROR))),
)
BACKGROUND_LAST_SUCCESS: Final = Metric(
    "allin_background_last_success_timestamp_seconds",
    Kind.GAUGE,
    "When a background job last ran without an error, in Unix seconds; the process's start before the first time.",
    (_TASK,),
    "seconds",
)
FAULT_ACTIVE: Final = Metric(
    "allin_fault_injection_active",
    Kind.GAUGE,
    "1 while a fault is injected for a demonstration or a test, else 0. Always 0 in production.",
    (Label("fault", FAULTS),),
)
EVENT_LOOP_LAG: Final = Metric(
    "allin_nodejs_eventloop_lag_seconds",
    Kind.GAUGE,
    "Time that the event loop of the Python process needed for one turn, measured at the scrape, in seconds.",
    unit="seconds",
    documented=True,
)
EVENT_LOOP_LAG_P50: Final = Metric(
    "allin_nodejs_eventloop_lag_p50_seconds",
    Kind.GAUGE,
    f"50th percentile {_LAG_HELP}",
    unit="seconds",
    documented=True,
)
EVENT_LOOP_LAG_P90: Final = Metric(
    "allin_nodejs_eventloop_lag_p90_seconds", Kind.GAUGE, f"90th percentile {_LAG_HELP}", unit="seconds"
)
EVENT_LOOP_LAG_P95: Final = Metric(
    "allin_nodejs_eventloop_lag_p95_seconds",
    Kind.GAUGE,
    f"95th percentile {_LAG_HELP}",
    unit="seconds",
    documented=True,
)
EVENT_LOOP_LAG_P99: Final = Metric(
    "allin_nodejs_eventloop_lag_p99_seconds",
    Kind.GAUGE,
    f"99th percentile {_LAG_HELP}",
    unit="seconds",
    documented=True,
)
EVENT_LOOP_LAG_MAX: Final = Metric(
    "allin_nodejs_eventloop_lag_max_seconds", Kind.GAUGE, f"Maximum {_LAG_HELP}", unit="seconds"
)
GC_DURATION: Final = Metric(
    "allin_nodejs_gc_duration_seconds",
    Kind.HISTOGRAM,
    "Time that one run of Python's garbage collector took, in seconds. minor: generations 0 and 1, major: all of them.",
    (Label("kind", GC_KINDS),),
    "seconds",
    GC_BUCKETS,
    documented=True,
)
PROCESS_CPU: Final = Metric(
    "allin_process_cpu_seconds_total",
    Kind.COUNTER,
    "CPU time in user and system mode, in seconds.",
    unit="seconds",
    documented=True,
)
PROCESS_RESIDENT_MEMORY: Final = Metric(
    "allin_process_resident_memory_bytes",
    Kind.GAUGE,
    "Resident memory size, in bytes.",
    unit="bytes",
    documented=True,
)
PROCESS_VIRTUAL_MEMORY: Final = Metric(
    "allin_process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory size, in bytes.", unit="bytes"
)
PROCESS_HEAP: Final = Metric(
    "allin_process_heap_bytes",
    Kind.GAUGE,
    "Size of the data segment (VmData of the kernel), in bytes: what the Node.js metric of this name means on Linux.",
    unit="bytes",
    documented=True,
)
PROCESS_START_TIME: Final = Metric(
    "allin_process_start_time_seconds", Kind.GAUGE, "When the process started, in Unix seconds.", unit="seconds"
)
PROCESS_OPEN_FDS: Final = Metric("allin_process_open_fds", Kind.GAUGE, "Open file descriptors.")
PROCESS_MAX_FDS: Final = Metric("allin_process_max_fds", Kind.GAUGE, "Largest allowed number of open file descriptors.")
BUILD_INFO: Final = Metric(
    "allin_build_info",
    Kind.GAUGE,
    "Always 1; the labels say which version of the package and which release of the deployment runs.",
    (Label("version", None), Label("release", None)),
)

SUBJECTS: Final = (
    Subject(
        "HTTP",
        "Counted when the last part of the response has been handed to the server, or when it is known that it"
        " never will be. A path that no route has, whatever the Host header says, is `unmatched`; so are a CORS"
        " preflight and a slash redirect, which are answered before a route is chosen (this service has neither)."
        " Below a mount the route is the whole template. A method that HTTP does not know is refused by the server"
        " with 400 before the application sees it, and counted nowhere; a rarer one that the server knows is"
        " `OTHER`. `HEAD` is a method of its own. 499 is never sent: the client left, or the request was cancelled,"
        " before the response was complete; a response that broke after its status had been sent is a 500."
        " WebSockets are not counted: the server has none, and answers the request for one as the plain GET that it"
        " also is.",
        (HTTP_REQUEST_DURATION, HTTP_REQUESTS, ACTIVE_CONNECTIONS),
    ),
    Subject(
        "Database",
        "One statement each, by the operation and the table of the outermost statement; `none` is a statement without a"
        " table, `other` one on a table that is not the application's.",
        (DB_QUERY_DURATION, DB_QUERIES, DB_POOL_CONNECTIONS, DB_POOL_LIMIT),
    ),
    Subject(
        "Cache",
        "Counted for each look-up, whatever keeps the entries.",
        (CACHE_HITS, CACHE_MISSES, CACHE_ERRORS, CACHE_AVAILABLE),
    ),
    Subject(
        "OAuth",
        "What people and the backend do to connect accounts: one operation each, however many requests it takes.",
        (OAUTH_OPERATIONS_TOTAL, OAUTH_TOKEN_EXPIRY),
    ),
    Subject(
        "Social platforms",
        "Every request to a platform, those of OAuth included. Where a platform tells its limits, the last answer's are"
        " shown.",
        (
            SOCIAL_CALLS,
            SOCIAL_DURATION,
            SOCIAL_ERRORS_TOTAL,
            SOCIAL_RETRIES,
            SOCIAL_CIRCUIT_OPEN,
            SOCIAL_RATE_LIMIT,
            SOCIAL_RATE_REMAINING,
            SOCIAL_RATE_RESET,
            SOCIAL_QUOTA_USED,
            SOCIAL_ACCOUNTS,
        ),
    ),
    Subject(
        "Posts",
        "A post for three platforms is published three times, and counted so.",
        (
            POSTS_CREATED,
            POSTS_SCHEDULED,
            POSTS_PUBLISHED,
            POSTS_FAILED,
            QUEUE_POSTS,
            OLDEST_DUE_AGE,
            PUBLISH_DELAY,
        ),
    ),
    Subject(
        "People",
        "What is counted in the database is the same in every process: take `max`, not `sum`, over instances.",
        (ACTIVE_USERS, REGISTERED_USERS, SIGN_INS, USER_ACTIONS_TOTAL),
    ),
    Subject(
        "Background jobs and faults",
        "Each process runs every job; leases keep two of them from doing the same work.",
        (BACKGROUND_RUNS, BACKGROUND_LAST_SUCCESS, FAULT_ACTIVE),
    ),
    Subject(
        "Event loop and garbage collector",
        "The names are those of the Node.js predecessor, and so are the scales. Several servers may scrape: the"
        " window is one of time, and no scrape empties it.",
        (
            EVENT_LOOP_LAG,
            EVENT_LOOP_LAG_P50,
            EVENT_LOOP_LAG_P90,
            EVENT_LOOP_LAG_P95,
            EVENT_LOOP_LAG_P99,
            EVENT_LOOP_LAG_MAX,
            GC_DURATION,
        ),
    ),
    Subject(
        "Process",
        "One process each; several on one host are several instances.",
        (
            PROCESS_CPU,
            PROCESS_RESIDENT_MEMORY,
            PROCESS_VIRTUAL_MEMORY,
            PROCESS_HEAP,
            PROCESS_START_TIME,
            PROCESS_OPEN_FDS,
            PROCESS_MAX_FDS,
            BUILD_INFO,
        ),
    ),
)
BY_NAME: Final = by_name(SUBJECTS)
CONTRACT: Final = tuple(BY_NAME.values())
