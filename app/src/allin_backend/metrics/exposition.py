"""The text of ``/metrics``, made outside the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from allin_backend.metrics.runtime import EventLoopLag
from allin_backend.metrics.slices import Slices

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The classic format, which every Prometheus reads."""
# Half a millisecond's work on a slow machine.
_SAMPLES_IN_A_SLICE: Final = 100


class _InSlices(Collector):
    """A registry whose samples come with pauses between them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        slices = Slices(_SAMPLES_IN_A_SLICE)
        for family in self._registry.collect():
            paced = copy(family)  # the collector may want its own once more
            paced.samples = slices.of(family.samples)  # type: ignore[assignment]  # read once, from first to last
            yield paced


class Exposition:
    """Renders a registry. Scrapes that overlap wait for the same rendering: more scrapers cost no more CPU."""

    def __init__(self, registry: CollectorRegistry, event_loop: EventLoopLag) -> None:
        self._families = _InSlices(registry)
        self._event_loop = event_loop
        # A thread of its own: the default pool may be busy with slow name lookups just when the metrics matter.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._running: asyncio.Task[bytes] | None = None

    async def render(self) -> bytes:
        """The exposition in the text format, UTF-8 encoded."""
        if self._running is None:
            self._running = asyncio.create_task(self._render())
            self._running.add_done_callback(self._finished)
        # A scraper that gives up must not take the rendering away from the others.
        return await asyncio.shield(self._running)

    async def _render(self) -> bytes:
        await self._event_loop.measure_turn()
        return await asyncio.get_running_loop().run_in_executor(self._thread, generate_latest, self._families)

    def _finished(self, task: asyncio.Task[bytes]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # marks it as seen, also when nobody waits any more

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)
