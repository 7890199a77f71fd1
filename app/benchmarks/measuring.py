"""How costs are compared: in shuffled rounds, by CPU time, each with its neighbour in the same round."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from time import thread_time_ns
from typing import Final

Batch = Callable[[], int]
"""Does a fixed number of operations and returns the thread's CPU time for them, in nanoseconds."""
_SEED: Final = 20261124


class WrongCountError(Exception):
    """A variant did not do or count what it was given: its time would mean nothing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles, all in the same unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least two values."""
        ordered = list(values)
        low, _, high = quantiles(ordered, n=4)
        return cls(median(ordered), low, high)

    def text(self, unit: str, digits: int = 2) -> str:
        """For example ``1.56 us (1.48 to 1.71)``."""
        return f"{self.median:.{digits}f} {unit} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Rounds:
    """CPU time of one operation in microseconds, for each variant in each round."""

    microseconds: Mapping[str, Sequence[float]]

    def total(self, name: str) -> Spread:
        """What one operation of this variant takes."""
        return Spread.of(self.microseconds[name])

    def added(self, name: str, base: str) -> Spread:
        """What a variant takes more than ``base`` did in the same round."""
        pairs = zip(self.microseconds[name], self.microseconds[base], strict=True)
        return Spread.of(one - other for one, other in pairs)

    def ratio(self, name: str, reference: str, base: str) -> float:
        """What a variant adds to ``base``, as a multiple of what ``reference`` adds to it.

        Raises:
            ValueError: ``reference`` adds nothing that could be measured.
        """
        divisor = self.added(reference, base).median
        if divisor <= 0:
            raise ValueError(f"{reference} adds nothing measurable to {base}")
        return self.added(name, base).median / divisor


def run_rounds(batches: Mapping[str, Batch], *, rounds: int, operations: int) -> Rounds:
    """Run every batch once in each round, in an order shuffled anew: drifts of the machine then meet all alike.

    ``operations`` is how many of them one batch does.
    """
    shuffle = random.Random(_SEED).shuffle  # noqa: S311 - an order, not a secret
    found: dict[str, list[float]] = {name: [] for name in batches}
    order = list(batches)
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            found[name].append(batches[name]() / operations / 1000)
    return Rounds(found)


def repeated(operation: Callable[[], object], times: int) -> Batch:
    """A batch that calls ``operation`` so many times."""

    def batch() -> int:
        numbers = range(times)
        started = thread_time_ns()
        for _ in numbers:
            operation()
        return thread_time_ns() - started

    return batch


@contextmanager
def settled() -> Iterator[None]:
    """As the server does after its start: what exists now is not looked at again by each garbage collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this thread on one core, where the system can do that: another core's caches are cold."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
