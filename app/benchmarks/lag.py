"""What share of a core the sampling of the event loop's lag takes while the loop has nothing else to do.

That is the dearest case: each sample then wakes the thread, which a busy loop need not do. A timer chain of the same
interval that does nothing shows how much of it is the waking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Final

import uvloop

from allin_backend.metrics.runtime import EventLoopLag
from benchmarks.measuring import Spread, WrongCountError, pinned
from benchmarks.report import Row, at_most, compared

LIMIT_PERCENT: Final = 2.0
INTERVAL: Final = 0.010
_SEED: Final = 20261124
IDLE: Final = "idle loop"
OURS: Final = "ours"
EMPTY_TIMER: Final = "a 10 ms timer that does nothing"
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


async def _idle(seconds: float) -> float:
    started, spent = perf_counter(), thread_time()
    await asyncio.sleep(seconds)
    return (thread_time() - spent) / (perf_counter() - started) * 100


async def _sampled(seconds: float) -> float:
    lag = EventLoopLag(INTERVAL)
    lag.start()
    try:
        share = await _idle(seconds)
        # A machine that is busy with other things may lose many of the 100 ticks a second, but not nearly all.
        if len(lag.ordered()) < seconds / INTERVAL / 10:
            raise WrongCountError(f"{len(lag.ordered())} samples in {seconds} s")
        return share
    finally:
        lag.stop()


async def _empty_timer(seconds: float) -> float:
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal timer
        timer = loop.call_later(INTERVAL, tick)

    timer = loop.call_later(INTERVAL, tick)
    try:
        return await _idle(seconds)
    finally:
        timer.cancel()


def measure(
    make_loop: Callable[[], asyncio.AbstractEventLoop], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Per cent of a core that each variant took, in each of the shuffled rounds of so many seconds."""
    variants = {IDLE: _idle, OURS: _sampled, EMPTY_TIMER: _empty_timer}
    shares: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    shuffle = random.Random(_SEED).shuffle  # noqa: S311 - an order, not a secret
    loop = make_loop()
    try:
        with pinned():
            for _ in range(rounds):
                shuffle(order)
                for name in order:
                    shares[name].append(loop.run_until_complete(variants[name](seconds)))
    finally:
        loop.close()
    return shares


def rows(*, quick: bool) -> list[Row]:
    """The table's part for the lag sampler."""
    found = []
    for name, make_loop in LOOPS.items():
        subject = f"event loop lag, {name}"
        shares = measure(make_loop, rounds=3 if quick else 8, seconds=0.5 if quick else 2.0)
        added = {
            variant: Spread.of(share - idle for share, idle in zip(shares[variant], shares[IDLE], strict=True))
            for variant in (OURS, EMPTY_TIMER)
        }
        ours = added[OURS]
        note = f" of a core ({ours.low:.2f} to {ours.high:.2f})"
        found.append(at_most(subject, "our sampler takes", ours.median, LIMIT_PERCENT, "%", note))
        found.append(compared(subject, f"{EMPTY_TIMER} takes", added[EMPTY_TIMER], "%"))
    return found
