"""How often somebody may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

KEYS_KEPT: Final = 50_000


class RateLimiter:
    """A token bucket for each key: ``per_minute`` requests at once, and as many a minute in the long run; 0: no limit.

    Only the keys used last are remembered. Who is forgotten starts with a full bucket.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic, keys: int = KEYS_KEPT) -> None:
        self._interval: Final = 60 / per_minute if per_minute else 0.0
        self._clock: Final = clock
        self._keys: Final = keys
        # When each key's bucket is full again. One number tells all: each request moves it on by one interval.
        self._full_at: Final[OrderedDict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def allow(self, key: str) -> float:
        """Count a request and return 0, or return the seconds until the next one is allowed, without counting this."""
        if not self._interval:
            return 0.0
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now) + self._interval
        wait = full_at - now - 60
        # Sums of intervals are not exact.
        if wait > 1e-6:
            return wait
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._keys:
            self._full_at.popitem(last=False)
        return 0.0
