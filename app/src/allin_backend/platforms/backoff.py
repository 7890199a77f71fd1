"""How long to wait before a request is sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: the n-th wait is anywhere from 0 to ``base`` x 2^(n-1), ``cap`` at most.

    Seconds throughout. ``attempts`` is the number of requests in all, the first included.
    """

    base: float = 0.5
    cap: float = 5.0
    attempts: int = 3

    def delay(
        self, attempt: int, random: Callable[[], float], *, remaining: float, at_least: float = 0.0
    ) -> float | None:
        """The wait after the failed ``attempt`` (from 1); ``None`` if it must not be followed by another.

        ``remaining`` is what is left of the caller's time, ``at_least`` what the platform asked for. ``random`` gives
        numbers from 0 to 1.
        """
        if attempt >= self.attempts:
            return None
        # The exponent is bounded, as a float is.
        delay = max(random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 64)), at_least)
        return delay if delay <= self.cap and delay < remaining else None
