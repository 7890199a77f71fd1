"""Long work of another thread, cut into slices, so that the event loop gets its turn."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")
_PAUSE_SECONDS: Final = 0.0001


class Slices:
    """Pauses the calling thread after every ``size`` items, counted over all iterables that it is given.

    Python hands its lock over to a thread that wants it only after 5 ms, which is how late a request would be answered
    that comes meanwhile. Whoever sleeps hands it over at once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    def of(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the pauses between them."""
        for item in items:
            yield item
            self._left -= 1
            if not self._left:
                self._left = self._size
                time.sleep(_PAUSE_SECONDS)
