"""How many requests are left to those who share an allowance."""

from __future__ import annotations

from dataclasses import dataclass

from allin_simulator.recent import Recent
from allin_simulator.settings import Knobs


@dataclass(frozen=True, slots=True)
class Usage:
    """``used`` includes the request that is being answered, and those that were refused."""

    limit: int
    used: int
    reset_at: float
    """Unix seconds."""

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit

    @property
    def remaining(self) -> int:
        return max(self.limit - self.used, 0)

    @property
    def used_percent(self) -> int:
        return min(100 * self.used // self.limit, 100)


@dataclass(slots=True)
class _Window:
    started_at: float
    used: int = 0


class Limits:
    """Fixed windows, one for each allowance; a window starts with the first request in it."""

    def __init__(self, remembered: int) -> None:
        self._windows: Recent[str, _Window] = Recent(remembered)

    def use(self, allowance: str, knobs: Knobs, now: float) -> Usage | None:
        """Count a request. ``None`` where there is no limit."""
        if not knobs.rate_limit:
            return None
        window = self._windows.get(allowance)
        if window is None or now >= window.started_at + knobs.rate_window_seconds:
            window = _Window(now)
            self._windows.put(allowance, window)
        window.used += 1
        return Usage(knobs.rate_limit, window.used, window.started_at + knobs.rate_window_seconds)

    def clear(self) -> None:
        self._windows.clear()
