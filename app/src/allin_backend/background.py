"""Work that no request waits for: jobs that run again and again beside the requests, in every process."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

from allin_backend.logs import request_id
from allin_backend.metrics.contract import ERROR, SUCCESS
from allin_backend.metrics.work import WorkMetrics

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every ``interval`` seconds, or again at once where ``run`` returns true.

    ``name`` is one of ``contract.JOBS``.
    """

    name: str
    interval: float
    run: Callable[[], Coroutine[Any, Any, bool | None]]


class Background:
    """Runs jobs, each in a task of its own, so that a slow one delays no other.

    A job that fails is logged, counted and run again after its interval: an outage must not end it for good.
    """

    def __init__(self, jobs: Iterable[Job], metrics: WorkMetrics) -> None:
        self._jobs = tuple(jobs)
        self._metrics = metrics
        self._draining = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._random = random.Random()  # noqa: S311  # spreads load, guards nothing

    def start(self) -> None:
        """Begin. Needs a running event loop."""
        self._tasks = [asyncio.create_task(self._repeat(job), name=f"job {job.name}") for job in self._jobs]

    def drain(self) -> None:
        """Begin no further run; those under way go on. Safe to call more than once."""
        self._draining.set()

    async def stop(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for the runs under way, then cancel them."""
        self.drain()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace)
        for task in late:
            _log.warning("cancelled a job that did not end in time", extra={"fields": {"job": task.get_name()}})
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _repeat(self, job: Job) -> None:
        request_id.set(None)  # started within a request or not: its log lines belong to none
        while not self._draining.is_set():
            if await self._run(job):
                continue
            # Not quite regular: workers that started together would ask the database together for ever.
            pause = job.interval * self._random.uniform(0.9, 1.1)
            try:
                async with asyncio.timeout(pause):
                    await self._draining.wait()
            except TimeoutError:
                pass

    async def _run(self, job: Job) -> bool:
        try:
            more = await job.run()
        except Exception as error:
            self._metrics.background_runs.inc(job.name, ERROR)
            fields = {"job": job.name, "error": f"{type(error).__name__}: {error}"[:300]}
            _log.warning("a job failed and will be run again", extra={"fields": fields})
            _log.debug("the failure of the job", exc_info=error)
            return False
        self._metrics.background_runs.inc(job.name, SUCCESS)
        self._metrics.background_last_success.set(time.time(), job.name)
        return bool(more)
