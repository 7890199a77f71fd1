"""How long a scrape of 10,000 series keeps the event loop from its other work.

A probe asks to be woken each millisecond. A scrape's stall is the longest that the probe had to wait while this very
process used the CPU; the probe's whole lateness, shown beside it, also has the time that other processes took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from itertools import islice, product
from statistics import median
from time import perf_counter, process_time
from typing import Final

import uvloop
from prometheus_client import CollectorRegistry, generate_latest

from allin_backend.metrics import contract
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.exposition import Exposition
from benchmarks.measuring import Spread, WrongCountError, settled
from benchmarks.report import Row, at_most, compared

LIMIT_MILLISECONDS: Final = 10.0
SERIES: Final = 10_000
OURS: Final = "our exposition"
INLINE: Final = "generate_latest() on the event loop"
THREAD: Final = "generate_latest() in a thread"
NOTHING: Final = "no scrape"
WAYS: Final = (OURS, THREAD, INLINE, NOTHING)
_SUBJECT: Final = f"scrape of {SERIES} series"
_PROBE_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Scrapes:
    """Of each scrape, in milliseconds: the stall, how late the probe came at worst, and how long the scrape took."""

    stalls: list[float]
    lateness: list[float]
    durations: list[float]


def filled(series: int = SERIES) -> tuple[CollectorRegistry, BackendMetrics]:
    """A registry with the backend's metrics, and as many combinations of HTTP labels as make up so many samples."""
    registry = CollectorRegistry()
    metrics = BackendMetrics(registry, version="0", release="0")
    statuses = [int(status) for status in contract.STATUS_CODES if status.isdigit()]
    methods = [method for method in contract.METHODS if method != contract.OTHER_METHOD]
    each = len(contract.HTTP_BUCKETS) + 4  # the buckets with +Inf, count and sum; and the counter
    missing = -(-(series - samples(registry)) // each)
    metrics.http.expect(islice(product(methods, contract.ROUTES, statuses), max(0, missing)))
    for cell in metrics.http.cells:
        metrics.http.record(cell.labels[0], cell.labels[1], int(cell.labels[2]), 0.123)
    if samples(registry) < series:
        raise WrongCountError(f"{samples(registry)} of {series} series")
    return registry, metrics


def samples(registry: CollectorRegistry) -> int:
    """How many samples a scrape shows."""
    return sum(len(list(family.samples)) for family in registry.collect())


async def _scrape(work: Callable[[], Awaitable[bytes]], found: Scrapes) -> None:
    stall = worst = 0.0
    loop = asyncio.get_running_loop()
    due = perf_counter() + _PROBE_SECONDS
    used = process_time()
    timer: asyncio.TimerHandle

    def probe() -> None:
        nonlocal due, stall, timer, used, worst
        late = perf_counter() - due
        worst = max(worst, late)
        # What the process used before the probe was due is in there too: at most a millisecond too much.
        stall = max(stall, min(late, process_time() - used))
        used = process_time()
        due = perf_counter() + _PROBE_SECONDS
        timer = loop.call_later(_PROBE_SECONDS, probe)

    timer = loop.call_later(_PROBE_SECONDS, probe)
    await asyncio.sleep(0.01)  # the probe runs
    stall = worst = 0.0
    started = perf_counter()
    text = await work()
    seconds = perf_counter() - started
    await asyncio.sleep(0.005)  # what was held up by the end of the scrape is seen too
    timer.cancel()
    lines = text.count(b"\n")
    if lines < SERIES:
        raise WrongCountError(f"{lines} lines")
    found.stalls.append(stall * 1000)
    found.lateness.append(worst * 1000)
    found.durations.append(seconds * 1000)


async def _measure(scrapes: int, only: Container[str]) -> dict[str, Scrapes]:
    registry, metrics = filled()
    exposition = Exposition(registry, metrics.event_loop)
    text = generate_latest(registry)

    async def nothing() -> bytes:
        await asyncio.sleep(0.1)
        return text

    async def inline() -> bytes:
        return generate_latest(registry)

    async def thread() -> bytes:
        return await asyncio.to_thread(generate_latest, registry)

    ways = {OURS: exposition.render, THREAD: thread, INLINE: inline, NOTHING: nothing}
    ways = {name: work for name, work in ways.items() if name in only}
    found = {name: Scrapes([], [], []) for name in ways}
    try:
        for _ in range(scrapes):
            for name, work in ways.items():
                await _scrape(work, found[name])
    finally:
        exposition.close()
    return found


def measure(*, scrapes: int, only: Container[str] = WAYS) -> dict[str, Scrapes]:
    """Compare these ways to render, one after the other, on the server's kind of event loop."""
    with settled(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(scrapes, only))


def rows(*, quick: bool) -> list[Row]:
    """The table's part for scrapes."""
    found = measure(scrapes=5 if quick else 25)
    rows = []
    for name in WAYS:
        scrapes = found[name]
        stall = Spread.of(scrapes.stalls)
        late, duration = median(scrapes.lateness), median(scrapes.durations)
        note = f", with other processes {late:.1f} ms; takes {duration:.0f} ms"
        if name == OURS:
            note = f" ({stall.low:.2f} to {stall.high:.2f}){note}"
            rows.append(at_most(_SUBJECT, f"{name} stalls the loop", stall.median, LIMIT_MILLISECONDS, "ms", note))
        else:
            rows.append(compared(_SUBJECT, name, stall, "ms", note))
    return rows
