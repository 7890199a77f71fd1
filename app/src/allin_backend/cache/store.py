"""What the cache asks of the place where its entries are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StoreError(Exception):
    """The store failed, or did not answer in time. The text has no key, value or password."""


class Store(Protocol):
    """Keeps bytes under a name for a time. Every method raises ``StoreError``, and nothing else, if it cannot."""

    async def get(self, name: str) -> bytes | None:
        """The value; ``None`` if there is none, or its time is over."""

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keep a value for ``ttl_seconds``, which is more than 0, instead of any earlier one."""

    async def delete(self, names: Sequence[str]) -> None:
        """Forget values; those that are not there do not matter. ``names`` is not empty."""

    async def close(self) -> None:
        """Let go of connections."""
