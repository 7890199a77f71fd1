"""The text of ``/metrics``, made outside the event loop's thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, generate_latest

from allin_backend.metrics.runtime import EventLoopLag

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The classic format, which every Prometheus reads."""


class Exposition:
    """Renders a registry. Scrapes that overlap wait for the same rendering: more scrapers cost no more CPU."""

    def __init__(self, registry: CollectorRegistry, event_loop: EventLoopLag) -> None:
        self._registry = registry
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
        return await asyncio.get_running_loop().run_in_executor(self._thread, generate_latest, self._registry)

    def _finished(self, task: asyncio.Task[bytes]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # marks it as seen, also when nobody waits any more

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)
