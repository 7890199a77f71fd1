"""Records through the cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from allin_backend.cache import Cache

T = TypeVar("T", bound=msgspec.Struct)


async def cached(
    cache: Cache, cache_type: str, key: str, ttl: float, kind: type[T], load: Callable[[], Awaitable[T | None]]
) -> T | None:
    """The record under ``key``, kept for ``ttl`` seconds after it was loaded. That there is none is not kept."""

    async def encoded() -> bytes | None:
        record = await load()
        return None if record is None else msgspec.json.encode(record)

    content = await cache.get_or_load(cache_type, key, ttl, encoded)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError:
        # Another release wrote it, with other fields; both share a Redis server for a while.
        await cache.delete(cache_type, key)
        return await load()
