"""What timing the garbage collector adds to a collection: one of the youngest generation, with nothing to collect."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from time import perf_counter, thread_time_ns
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Histogram

from allin_backend.metrics.contract import GC_BUCKETS
from allin_backend.metrics.runtime import GarbageCollection
from benchmarks.measuring import Batch, Rounds, WrongCountError, pinned, run_rounds
from benchmarks.report import Row, at_most, compared

LIMIT_MICROSECONDS: Final = 2.0
BARE: Final = "no callback"
OURS: Final = "ours"
USUAL: Final = "callback with prometheus_client's observe()"
_SUBJECT: Final = "garbage collection"
_COLLECTIONS: Final = 200

Callback = Callable[[Literal["start", "stop"], dict[str, int]], object]


def _usual(registry: CollectorRegistry) -> Callback:
    duration = Histogram("gc_seconds", "Duration.", ["kind"], buckets=GC_BUCKETS, registry=registry)
    children = (duration.labels("minor"), duration.labels("minor"), duration.labels("major"))
    started = 0.0

    def callback(phase: str, info: dict[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = perf_counter()
        else:
            children[info["generation"]].observe(perf_counter() - started)

    return callback


def _collect(callbacks: list[Callback]) -> int:
    gc.callbacks[:] = callbacks
    numbers = range(_COLLECTIONS)
    started = thread_time_ns()
    for _ in numbers:
        gc.collect(0)
    spent = thread_time_ns() - started
    gc.callbacks.clear()
    return spent


def measure(*, rounds: int) -> Rounds:
    """Compare the callbacks. Meanwhile the collector runs only when told to, and without anybody else's callbacks.

    Raises:
        WrongCountError: a callback missed collections.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    others = gc.callbacks[:]
    gc.callbacks.clear()
    ours = GarbageCollection()
    ours.start()
    (our_callback,) = gc.callbacks
    registry = CollectorRegistry()
    batches: dict[str, Batch] = {
        BARE: partial(_collect, []),
        OURS: partial(_collect, [our_callback]),
        USUAL: partial(_collect, [_usual(registry)]),
    }
    try:
        with pinned():
            times = run_rounds(batches, rounds=rounds, operations=_COLLECTIONS)
    finally:
        gc.callbacks[:] = others
        if was_enabled:
            gc.enable()
    counts = (
        sum(sum(cell.counts) for cell in ours.cells),
        registry.get_sample_value("gc_seconds_count", {"kind": "minor"}),
    )
    if counts != (rounds * _COLLECTIONS,) * 2:
        raise WrongCountError(f"{rounds * _COLLECTIONS} collections, counted {counts}")
    return times


def rows(*, quick: bool) -> list[Row]:
    """The table's part for the garbage collector."""
    times = measure(rounds=40 if quick else 240)
    ours = times.added(OURS, BARE)
    note = f" ({ours.low:.2f} to {ours.high:.2f})"
    return [
        at_most(_SUBJECT, "our callback adds", ours.median, LIMIT_MICROSECONDS, "us", note),
        compared(_SUBJECT, "no callback, in all", times.total(BARE), "us"),
        compared(
            _SUBJECT, f"{USUAL} adds", times.added(USUAL, BARE), "us", f", {times.ratio(USUAL, OURS, BARE):.1f}x ours"
        ),
    ]
