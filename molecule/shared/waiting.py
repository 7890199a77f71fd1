"""Waits for what must become true, and says what was seen when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.2


def eventually(
    look: Callable[[], T],
    accept: Callable[[T], bool] = bool,
    *,
    within: float,
    what: str,
    explain: Callable[[], str] | None = None,
) -> T:
    """Return the first value of `look()` that `accept` takes.

    Looks every POLL_SECONDS for at most `within` seconds; an exception of `look` counts as not yet. Raises
    AssertionError naming `what`, the last value or exception seen, and whatever `explain()` adds (a journal, say).
    """
    deadline = time.monotonic() + within
    last: object = "nothing"
    while True:
        try:
            value = look()
        except Exception as error:
            last = error
        else:
            if accept(value):
                return value
            last = value
        if time.monotonic() > deadline:
            more = f"\n{explain()}" if explain else ""
            raise AssertionError(f"not within {within:g} s: {what}; last seen: {last!r}{more}")
        time.sleep(POLL_SECONDS)
