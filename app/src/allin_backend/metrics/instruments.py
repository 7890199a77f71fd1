"""Instruments for what happens less often than a request: made from the contract, every child there from the start.

Plain numbers without a lock, like the cells: one writer at a time (the event loop's thread), while a scrape reads from
another thread. Label values come in the order in which the contract declares the labels. A value outside a label's
closed set is a ``KeyError``: a mistake of the program, to be seen in its tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, product
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from allin_backend.metrics.cells import HistogramCell
from allin_backend.metrics.contract import Metric


def children(metric: Metric) -> Iterator[tuple[str, ...]]:
    """Every combination of the metric's label values.

    Raises:
        ValueError: a label has no closed set.
    """
    sets = []
    for label in metric.labels:
        if label.values is None:
            raise ValueError(f"{metric.name}: the values of {label.name} are not a closed set")
        sets.append(label.values)
    return product(*sets)


class Counter:
    """A counter with all children of its metric."""

    def __init__(self, metric: Metric) -> None:
        self.metric: Final = metric
        self._values: Final = dict.fromkeys(children(metric), 0)

    def inc(self, *labels: str, by: int = 1) -> None:
        """Count ``by`` events.

        Raises:
            KeyError: no such child.
        """
        self._values[labels] += by

    def family(self) -> CounterMetricFamily:
        """The present values."""
        family = CounterMetricFamily(self.metric.name, self.metric.help, labels=self.metric.label_names)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class Gauge:
    """A gauge with all children of its metric at 0, or without any where the metric only ``appears`` later."""

    def __init__(self, metric: Metric) -> None:
        self.metric: Final = metric
        self._allowed: Final = frozenset(children(metric))
        start = () if metric.appears else self._allowed
        self._values: dict[tuple[str, ...], float] = dict.fromkeys(sorted(start), 0.0)

    def set(self, value: float, *labels: str) -> None:
        """Set a child, in the metric's unit.

        Raises:
            KeyError: no such child.
        """
        if labels not in self._allowed:
            raise KeyError(labels)
        self._values[labels] = value

    def clear(self, *labels: str) -> None:
        """Take a child away, as its value is not known any more; nothing happens if it is not there."""
        self._values.pop(labels, None)

    def get(self, *labels: str) -> float | None:
        """The value of a child; ``None`` if it is not there."""
        return self._values.get(labels)

    def family(self) -> GaugeMetricFamily:
        """The present values."""
        family = GaugeMetricFamily(self.metric.name, self.metric.help, labels=self.metric.label_names)
        # Copied in one step: another thread may add a child meanwhile.
        for labels, value in self._values.copy().items():
            family.add_metric(labels, value)
        return family


class Histogram:
    """A histogram with all children of its metric."""

    def __init__(self, metric: Metric) -> None:
        self.metric: Final = metric
        self._cells: Final = {labels: HistogramCell(metric.buckets, labels) for labels in children(metric)}

    def observe(self, value: float, *labels: str) -> None:
        """Count a value, in the metric's unit.

        Raises:
            KeyError: no such child.
        """
        self._cells[labels].observe(value)

    def family(self) -> HistogramMetricFamily:
        """The present values."""
        return histogram_family(self.metric, self._cells.values())


def histogram_family(metric: Metric, cells: Iterable[HistogramCell]) -> HistogramMetricFamily:
    """A histogram's family from its cells."""
    builder = HistogramBuilder(metric)
    for cell in cells:
        builder.add(cell)
    return builder.family


class HistogramBuilder:
    """Turns cells into a histogram family, one after the other."""

    def __init__(self, metric: Metric) -> None:
        self.family = HistogramMetricFamily(metric.name, metric.help, labels=metric.label_names)
        self._bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]

    def add(self, cell: HistogramCell) -> int:
        """Add a cell and return how many values it holds."""
        cumulative = list(accumulate(cell.counts[:]))
        self.family.add_metric(cell.labels, list(zip(self._bounds, cumulative, strict=True)), cell.total)
        return cumulative[-1]
