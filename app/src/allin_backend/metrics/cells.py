"""The storage behind the hot metrics: plain Python numbers, without a lock.

Each cell has one writer at a time (the event loop's thread, or the garbage collector, which never runs twice at once);
a scrape reads from another thread. It may see an observation's bucket but not yet its sum; the next scrape has both.
Whatever is observed from several threads must not use these cells.
"""

from __future__ import annotations

from bisect import bisect_left


class HistogramCell:
    """One child of a histogram: how many values fell between two bounds, and their sum."""

    __slots__ = ("bounds", "counts", "labels", "total")

    def __init__(self, bounds: tuple[float, ...], labels: tuple[str, ...]) -> None:
        self.bounds = bounds
        self.labels = labels
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value, in the metric's unit. A value equal to a bound belongs to that bound, as ``le`` says."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class QueryCell(HistogramCell):
    """The histogram of one operation on one table, and how many of these statements failed."""

    __slots__ = ("errors",)

    def __init__(self, bounds: tuple[float, ...], labels: tuple[str, ...]) -> None:
        super().__init__(bounds, labels)
        self.errors = 0
