"""What the Python process itself does: event loop, garbage collector, memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

from allin_backend.metrics import contract
from allin_backend.metrics.cells import HistogramCell

_STATUS_FILE: Final = Path("/proc/self/status")


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of the ordered values do not exceed; 0 without values."""
    if not ordered:
        return 0.0
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[rank - 1]


class EventLoopLag:
    """Samples how late a timer of the event loop comes.

    A window by time rather than a reset at each scrape: two Prometheus servers then see the same values.
    """

    def __init__(self, interval: float = 0.010, window: float = 30.0) -> None:
        self.turn = 0.0
        """Seconds that the loop needed for one turn when ``measure_turn`` last ran."""
        self._interval = interval
        self._window = window
        # One slot per tick of the window, overwritten in turn; a scrape copies the list from another thread.
        self._samples: list[tuple[float, float]] = [(-window, 0.0)] * max(1, round(window / interval))
        self._next = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to sample the running loop."""
        self._loop = asyncio.get_running_loop()
        # perf_counter, not loop.time(): uvloop's clock has a resolution of 1 ms.
        self._last = perf_counter()
        self._timer = self._loop.call_later(self._interval, self._tick)

    def stop(self) -> None:
        """Stop sampling; a second call does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = perf_counter()
        self._samples[self._next] = (now, now - self._last)
        self._next = (self._next + 1) % len(self._samples)
        self._last = now
        if self._loop is not None and self._timer is not None:
            self._timer = self._loop.call_later(self._interval, self._tick)

    async def measure_turn(self) -> None:
        """Measure how long a callback waits that is due now."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        started = perf_counter()

        def turned() -> None:
            self.turn = perf_counter() - started
            if not done.done():
                done.set_result(None)

        loop.call_soon(turned)
        await done

    def ordered(self) -> list[float]:
        """The samples of the window in seconds, smallest first."""
        oldest = perf_counter() - self._window
        return sorted(late for at, late in self._samples[:] if at >= oldest)


class GarbageCollection:
    """Times the runs of the garbage collector.

    The callback can run between any two instructions of any thread, so it must not take a lock: prometheus_client's own
    instruments can stop the process for good here. Plain cells are safe, as the collector never runs twice at once.
    """

    def __init__(self) -> None:
        self._minor, self._major = (HistogramCell(contract.GC_BUCKETS, (kind,)) for kind in contract.GC_KINDS)
        self.cells = (self._minor, self._major)
        self._started: float | None = None

    def start(self) -> None:
        """Begin to time; a second call does nothing."""
        if self._callback not in gc.callbacks:
            gc.callbacks.append(self._callback)

    def stop(self) -> None:
        """Stop timing; a second call does nothing."""
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)

    def _callback(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = perf_counter()
        elif self._started is not None:
            cell = self._major if info["generation"] >= 2 else self._minor
            cell.observe(perf_counter() - self._started)
            self._started = None


def heap_bytes(status_file: Path = _STATUS_FILE) -> float | None:
    """Size of the process's data segment in bytes; ``None`` where the kernel does not tell."""
    try:
        for line in status_file.read_bytes().splitlines():
            if line.startswith(b"VmData:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return None
