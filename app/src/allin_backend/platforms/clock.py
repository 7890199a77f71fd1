"""Time, as something that tests can replace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """``monotonic`` seconds for durations, ``wall`` Unix seconds for what platforms say, and ``sleep``."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        return datetime.fromtimestamp(self.wall(), UTC)
