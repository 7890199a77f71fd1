"""The cache as the rest of the application sees it: it may forget, it never fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from allin_backend.cache.store import Store, StoreError
from allin_backend.metrics.work import WorkMetrics

FAILURES_ALLOWED: Final = 5
"""Consecutive failures after which the store is left alone."""
COHERENT_SECONDS: Final = 300.0
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
LOST_DELETIONS_KEPT: Final = 100_000
DELETIONS_AT_ONCE: Final = 500

_log: Final = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Load:
    """A value on its way into the cache. ``outdated``: it was deleted or set meanwhile, so this one must not stay."""

    task: asyncio.Task[bytes | None] = field(init=False)
    outdated: bool = False


class Cache:
    """Look-ups, counted; no method raises because of the store. Keys are unique within a ``cache_type``.

    After repeated failures the store is left alone (``allin_cache_available`` is 0, each look-up is a miss at once) and
    tried again in the background, so that no request waits for it. A deletion that failed takes the store out of use at
    once, and is done before it is used again: otherwise it would go on answering with what was deleted.

    ``lifetime`` says how long an entry may live. To change what is cached, delete it and let the next look-up load it:
    a ``set`` may be lost.
    """

    def __init__(
        self,
        store: Store,
        metrics: WorkMetrics,
        *,
        coherent: bool = False,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self.disabled = False
        """Makes every look-up a miss; entries are still written and deleted. For fault injection."""
        self.coherent: Final = coherent
        """Whether all processes that change what is cached have the same store: a deletion then reaches everybody."""
        self._store: Final = store
        self._hits: Final = metrics.cache_hits
        self._misses: Final = metrics.cache_misses
        self._errors: Final = metrics.cache_errors
        self._gauge: Final = metrics.cache_available
        self._first_pause: Final = first_pause
        self._longest_pause: Final = longest_pause
        self._failures = 0
        self._recovery: asyncio.Task[None] | None = None
        self._loads: Final[dict[str, _Load]] = {}
        # A dict, as it keeps the order in which the deletions came.
        self._lost_deletions: Final[dict[str, None]] = {}

    def lifetime(self, stale: float) -> float:
        """Seconds that an entry lives whose changes delete it.

        ``stale`` is how old, in seconds, it may be where other processes hold copies that a deletion does not reach.
        """
        return COHERENT_SECONDS if self.coherent else stale

    async def start(self) -> None:
        """Try the store once, so that one that cannot be used is known before the first request."""
        try:
            await self._store.get(_name("probe", ""))
        except StoreError as error:
            self._leave_alone(error)

    async def stop(self) -> None:
        """End what runs in the background and let go of the store."""
        tasks: list[asyncio.Task[Any]] = [load.task for load in self._loads.values()]
        if self._recovery is not None:
            tasks.append(self._recovery)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StoreError):
            await self._store.close()

    async def get(self, cache_type: str, key: str) -> bytes | None:
        """The value of a key; ``None`` if the cache does not have it, or cannot tell.

        Raises:
            KeyError: no such ``cache_type`` in the contract.
        """
        value: bytes | None = None
        try:
            if self._recovery is None and not self.disabled:
                value = await self._store.get(_name(cache_type, key))
                self._failures = 0
        except StoreError as error:
            self._failed("get", error)
        finally:
            (self._misses if value is None else self._hits).inc(cache_type)
        return value

    async def set(self, cache_type: str, key: str, value: bytes, ttl_seconds: float) -> None:
        """Keep a value for ``ttl_seconds``; without any time left, nothing is kept under the key."""
        name = _name(cache_type, key)
        self._outdate(name)
        if ttl_seconds > 0:
            await self._set(name, value, ttl_seconds)
        else:
            await self._delete([name])

    async def delete(self, cache_type: str, *keys: str) -> None:
        """Forget the values of keys. Loads that are under way are not kept either."""
        names = [_name(cache_type, key) for key in keys]
        for name in names:
            self._outdate(name)
        if names:
            await self._delete(names)

    async def get_or_load(
        self, cache_type: str, key: str, ttl_seconds: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None:
        """The cached value of a key, otherwise what ``load`` returns; unless that is ``None``, it is then kept.

        Callers that want the same key at the same time share one load, and its exception if it raises. A caller that is
        cancelled leaves the load to the others.
        """
        name = _name(cache_type, key)
        if name in self._loads:
            self._misses.inc(cache_type)
        else:
            value = await self.get(cache_type, key)
            if value is not None:
                return value
        # Looked for again, as another caller may have begun to load during the look-up.
        running = self._loads.get(name)
        if running is None:
            running = self._loads[name] = _Load()
            running.task = asyncio.create_task(self._load(running, name, ttl_seconds, load))
        await asyncio.wait((running.task,))
        return running.task.result()

    async def _load(
        self, this: _Load, name: str, ttl_seconds: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None:
        try:
            value = await load()
            if value is not None and ttl_seconds > 0 and not this.outdated:
                await self._set(name, value, ttl_seconds)
                if this.outdated:
                    # The deletion may have reached the store before the value did.
                    await self._delete([name])
            return value
        finally:
            if self._loads.get(name) is this:
                del self._loads[name]

    def _outdate(self, name: str) -> None:
        running = self._loads.pop(name, None)
        if running is not None:
            running.outdated = True

    async def _set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        if self._recovery is not None:
            return
        try:
            await self._store.set(name, value, ttl_seconds)
            self._failures = 0
        except StoreError as error:
            self._failed("set", error)

    async def _delete(self, names: list[str]) -> None:
        if self._recovery is not None:
            self._remember_deletions(names)
            return
        try:
            await self._store.delete(names)
            self._failures = 0
        except StoreError as error:
            self._errors.inc("delete")
            self._remember_deletions(names)
            self._leave_alone(error)

    def _remember_deletions(self, names: list[str]) -> None:
        self._lost_deletions.update(dict.fromkeys(names))
        # The oldest go first: what they would delete is the likeliest to have ended by itself.
        for name in list(self._lost_deletions)[: max(0, len(self._lost_deletions) - LOST_DELETIONS_KEPT)]:
            del self._lost_deletions[name]

    def _failed(self, operation: str, error: StoreError) -> None:
        self._errors.inc(operation)
        self._failures += 1
        if self._failures >= FAILURES_ALLOWED:
            self._leave_alone(error)

    def _leave_alone(self, error: StoreError) -> None:
        if self._recovery is None:
            self._gauge.set(0)
            self._recovery = asyncio.create_task(self._recover())
            _log.warning("the cache is left alone for now", extra={"fields": {"reason": str(error)}})

    async def _recover(self) -> None:
        pause = self._first_pause
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._longest_pause)
            try:
                await self._store.get(_name("probe", ""))
                while self._lost_deletions:
                    names = list(self._lost_deletions)[:DELETIONS_AT_ONCE]
                    await self._store.delete(names)
                    for name in names:
                        self._lost_deletions.pop(name, None)
            except StoreError:
                continue
            self._failures = 0
            self._recovery = None
            self._gauge.set(1)
            _log.info("the cache is used again")
            return


def _name(cache_type: str, key: str) -> str:
    return f"allin:{cache_type}:{key}"
