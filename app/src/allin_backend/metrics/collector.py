"""All instruments of one application, and how a scrape reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from allin_backend.metrics import contract
from allin_backend.metrics.contract import Kind, Metric
from allin_backend.metrics.database import DatabaseMetrics
from allin_backend.metrics.http import HttpMetrics
from allin_backend.metrics.instruments import HistogramBuilder, histogram_family
from allin_backend.metrics.runtime import EventLoopLag, GarbageCollection, heap_bytes, quantile
from allin_backend.metrics.slices import Slices
from allin_backend.metrics.work import WorkMetrics

_LAG_QUANTILES: Final = (
    (contract.EVENT_LOOP_LAG_P50, 0.5),
    (contract.EVENT_LOOP_LAG_P90, 0.9),
    (contract.EVENT_LOOP_LAG_P95, 0.95),
    (contract.EVENT_LOOP_LAG_P99, 0.99),
    (contract.EVENT_LOOP_LAG_MAX, 1.0),
)

# The only family that can become large; these are half a millisecond's work on a slow machine.
_CELLS_IN_A_SLICE: Final = 25


def _empty(metric: Metric) -> Family:
    families: dict[Kind, Callable[..., Family]] = {
        Kind.COUNTER: CounterMetricFamily,
        Kind.GAUGE: GaugeMetricFamily,
        Kind.HISTOGRAM: HistogramMetricFamily,
    }
    return families[metric.kind](metric.name, metric.help, labels=metric.label_names)


def _gauge(metric: Metric, value: float, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.label_names)
    family.add_metric(labels, value)
    return family


class BackendMetrics(Collector):
    """Owns the instruments and shows them to the registry it is given.

    Raises:
        ValueError: the registry already holds one of the contract's names.
    """

    def __init__(self, registry: CollectorRegistry, *, version: str, release: str) -> None:
        self.http = HttpMetrics()
        self.database = DatabaseMetrics()
        self.work = WorkMetrics()
        self.event_loop = EventLoopLag()
        self.garbage = GarbageCollection()
        self._build = (version, release)
        self._process = ProcessCollector(namespace="allin", registry=None)
        registry.register(self)

    def start(self) -> None:
        """Begin to watch the running event loop and the garbage collector."""
        self.event_loop.start()
        self.garbage.start()

    def stop(self) -> None:
        """Undo ``start``."""
        self.garbage.stop()
        self.event_loop.stop()

    def describe(self) -> Iterable[Family]:
        """The families without their values, from which the registry knows the names that are taken."""
        return [_empty(metric) for metric in contract.CONTRACT]

    def collect(self) -> Iterator[Family]:
        """The families with their present values. Runs in whichever thread scrapes."""
        yield from self._collect_http()
        yield from self._collect_database()
        yield from self.work.collect()
        yield from self._collect_runtime()
        yield _gauge(contract.BUILD_INFO, 1, self._build)

    def _collect_http(self) -> Iterator[Family]:
        durations = HistogramBuilder(contract.HTTP_REQUEST_DURATION)
        requests = CounterMetricFamily(
            contract.HTTP_REQUESTS.name, contract.HTTP_REQUESTS.help, labels=contract.HTTP_REQUESTS.label_names
        )
        for cell in Slices(_CELLS_IN_A_SLICE).of(tuple(self.http.cells)):
            requests.add_metric(cell.labels, durations.add(cell))
        yield durations.family
        yield requests
        yield _gauge(contract.ACTIVE_CONNECTIONS, self.http.in_flight)

    def _collect_database(self) -> Iterator[Family]:
        durations = HistogramBuilder(contract.DB_QUERY_DURATION)
        queries = CounterMetricFamily(
            contract.DB_QUERIES.name, contract.DB_QUERIES.help, labels=contract.DB_QUERIES.label_names
        )
        for cell in self.database.cells:
            # Errors first: read the other way round, an error between the two reads would be more than the count.
            errors = cell.errors
            count = durations.add(cell)
            queries.add_metric((*cell.labels, "success"), count - errors)
            queries.add_metric((*cell.labels, "error"), errors)
        yield durations.family
        yield queries
        pool = self.database.pool()
        connections = GaugeMetricFamily(
            contract.DB_POOL_CONNECTIONS.name,
            contract.DB_POOL_CONNECTIONS.help,
            labels=contract.DB_POOL_CONNECTIONS.label_names,
        )
        connections.add_metric(("idle",), pool.idle)
        connections.add_metric(("in_use",), pool.in_use)
        yield connections
        yield _gauge(contract.DB_POOL_LIMIT, pool.limit)

    def _collect_runtime(self) -> Iterator[Family]:
        yield _gauge(contract.EVENT_LOOP_LAG, self.event_loop.turn)
        ordered = self.event_loop.ordered()
        for metric, share in _LAG_QUANTILES:
            yield _gauge(metric, quantile(ordered, share))

        yield histogram_family(contract.GC_DURATION, self.garbage.cells)

        for family in self._process.collect():
            name = f"{family.name}_total" if family.type == Kind.COUNTER else family.name
            declared = contract.BY_NAME.get(name)
            if declared is not None:
                family.documentation = declared.help
                yield family
        heap = heap_bytes()
        if heap is not None:
            yield _gauge(contract.PROCESS_HEAP, heap)
