"""A store inside the process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final


class MemoryStore:
    """At most ``size`` values; the one that was not used for the longest time makes room for a new one.

    Every process has its own: what one deletes, another may still answer until the value's time is over.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size: Final = size
        self._clock: Final = clock
        self._entries: Final[OrderedDict[str, tuple[float, bytes]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, name: str) -> bytes | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        end, value = entry
        if self._clock() >= end:
            del self._entries[name]
            return None
        self._entries.move_to_end(name)
        return value

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        self._entries[name] = (self._clock() + ttl_seconds, value)
        self._entries.move_to_end(name)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._entries.pop(name, None)

    async def close(self) -> None:
        self._entries.clear()
