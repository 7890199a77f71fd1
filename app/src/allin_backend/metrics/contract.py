"""The metric contract: every metric the backend exposes, with its type, labels and help.

Instruments, documentation and the checks of rules and dashboards are made from this module, so it imports nothing but
the standard library and the table of paths. A metric that is not declared here is not exposed, and what is declared
here is on ``/metrics`` from the first scrape.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the set of values it can have.

    ``values`` is ``None`` only for labels that are fixed when the process starts (a version): they add no series.
    """

    name: str
    values: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric. ``name`` is the name in queries, so a counter's name ends in ``_total``.

    ``unit`` is the base unit of the value, empty for plain counts. ``buckets`` are a histogram's upper bounds in that
    unit, without ``+Inf``.

    Raises:
        ValueError: the declaration contradicts itself.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.startswith("allin_"):
            raise ValueError(f"{self.name}: every metric of the backend starts with allin_")
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and only counters, end in _total")
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets):
            raise ValueError(f"{self.name}: histograms, and only histograms, have buckets")
        if list(self.buckets) != sorted(set(self.buckets)) or math.inf in self.buckets:
            raise ValueError(f"{self.name}: bucket bounds rise and leave +Inf out")
        if self.unit and self.unit not in self.name.removesuffix("_total").split("_"):
            raise ValueError(f"{self.name}: the unit {self.unit} belongs into the name")

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
DB_TABLES: Final = ("users", "posts", "schema_version", OTHER, NO_TABLE)
DB_STATUSES: Final = ("success", "error")
GC_KINDS: Final = ("minor", "major")

# Every documented threshold (50, 100, 200, 500 ms, 1 and 2 s) is a bound: ratios and alerts need no interpolation.
HTTP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
# SQLite answers in well under a millisecond; 2 s is the bound of the documented slow-query alert.
DB_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
# The bounds that dashboards made for prom-client expect.
GC_BUCKETS: Final = (0.001, 0.01, 0.1, 1.0, 2.0, 5.0)

_METHOD = Label("method", METHODS)
_ROUTE = Label("route", ROUTES)
_STATUS_CODE = Label("status_code", STATUS_CODES)
_OPERATION = Label("operation", DB_OPERATIONS)
_TABLE = Label("table", DB_TABLES)
_LAG_HELP = (
    "of the time between two turns of a 10 ms timer on the event loop over the last 30 seconds, in seconds."
    " Contains the 10 ms themselves, as the Node.js metric of this name does: about 0.010 when idle."
)

HTTP_REQUEST_DURATION: Final = Metric(
    "allin_http_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the arrival of an HTTP request to the last part of its response body, in seconds."
    " Leaves out /metrics and work done after the response.",
    (_METHOD, _ROUTE, _STATUS_CODE),
    "seconds",
    HTTP_BUCKETS,
)
HTTP_REQUESTS: Final = Metric(
    "allin_http_requests_total",
    Kind.COUNTER,
    "HTTP requests that have been answered, failed (500) or been given up by the client (499), without /metrics.",
    (_METHOD, _ROUTE, _STATUS_CODE),
)
ACTIVE_CONNECTIONS: Final = Metric(
    "allin_active_connections",
    Kind.GAUGE,
    "HTTP requests that are being answered now, without /metrics. Idle keep-alive connections are not counted.",
)
DB_QUERY_DURATION: Final = Metric(
    "allin_db_query_duration_seconds",
    Kind.HISTOGRAM,
    "Time that one database statement took, failed ones included, in seconds.",
    (_OPERATION, _TABLE),
    "seconds",
    DB_BUCKETS,
)
DB_QUERIES: Final = Metric(
    "allin_db_queries_total",
    Kind.COUNTER,
    "Database statements by outcome; a cancelled statement is an error.",
    (_OPERATION, _TABLE, Label("status", DB_STATUSES)),
)
EVENT_LOOP_LAG: Final = Metric(
    "allin_nodejs_eventloop_lag_seconds",
    Kind.GAUGE,
    "Time that the event loop of the Python process needed for one turn, measured at the scrape, in seconds.",
    unit="seconds",
)
EVENT_LOOP_LAG_P50: Final = Metric(
    "allin_nodejs_eventloop_lag_p50_seconds", Kind.GAUGE, f"50th percentile {_LAG_HELP}", unit="seconds"
)
EVENT_LOOP_LAG_P90: Final = Metric(
    "allin_nodejs_eventloop_lag_p90_seconds", Kind.GAUGE, f"90th percentile {_LAG_HELP}", unit="seconds"
)
EVENT_LOOP_LAG_P95: Final = Metric(
    "allin_nodejs_eventloop_lag_p95_seconds", Kind.GAUGE, f"95th percentile {_LAG_HELP}", unit="seconds"
)
EVENT_LOOP_LAG_P99: Final = Metric(
    "allin_nodejs_eventloop_lag_p99_seconds", Kind.GAUGE, f"99th percentile {_LAG_HELP}", unit="seconds"
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
)
PROCESS_CPU: Final = Metric(
    "allin_process_cpu_seconds_total", Kind.COUNTER, "CPU time in user and system mode, in seconds.", unit="seconds"
)
PROCESS_RESIDENT_MEMORY: Final = Metric(
    "allin_process_resident_memory_bytes", Kind.GAUGE, "Resident memory size, in bytes.", unit="bytes"
)
PROCESS_VIRTUAL_MEMORY: Final = Metric(
    "allin_process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory size, in bytes.", unit="bytes"
)
PROCESS_HEAP: Final = Metric(
    "allin_process_heap_bytes",
    Kind.GAUGE,
    "Size of the data segment (VmData of the kernel), in bytes: what the Node.js metric of this name means on Linux.",
    unit="bytes",
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

CONTRACT: Final = (
    HTTP_REQUEST_DURATION,
    HTTP_REQUESTS,
    ACTIVE_CONNECTIONS,
    DB_QUERY_DURATION,
    DB_QUERIES,
    EVENT_LOOP_LAG,
    EVENT_LOOP_LAG_P50,
    EVENT_LOOP_LAG_P90,
    EVENT_LOOP_LAG_P95,
    EVENT_LOOP_LAG_P99,
    EVENT_LOOP_LAG_MAX,
    GC_DURATION,
    PROCESS_CPU,
    PROCESS_RESIDENT_MEMORY,
    PROCESS_VIRTUAL_MEMORY,
    PROCESS_HEAP,
    PROCESS_START_TIME,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    BUILD_INFO,
)
BY_NAME: Final = {metric.name: metric for metric in CONTRACT}
