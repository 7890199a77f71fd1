"""Remembers when each user was last here, without making anybody wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.database.tables import now
from allin_backend.database.users import UserStore

_log: Final = logging.getLogger(__name__)
_INTERVAL: Final = 60.0
"""Seconds in which a user's time is written at most once by this process."""
_MOST_REMEMBERED: Final = 100_000


class Presence:
    """Writes ``last_seen_at``, one user after the other and over one connection, beside the requests.

    Activity is a figure, not a record: what cannot be written, because the database is gone, is dropped.
    """

    def __init__(self, users: UserStore, clock: Callable[[], float] = monotonic) -> None:
        self._users = users
        self._clock = clock
        self._written: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    def seen(self, user_id: int) -> None:
        """The user has just done something."""
        moment = self._clock()
        last = self._written.get(user_id)
        if last is not None and moment - last < _INTERVAL:
            return
        if len(self._written) >= _MOST_REMEMBERED:
            self._forget(moment)
        self._written[user_id] = moment
        self._waiting.add(user_id)
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Wait until what is known has been written."""
        if self._task is not None:
            await self._task

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._users.touch(self._waiting.pop(), now())
        except DatabaseUnavailableError as error:
            _log.warning("cannot write who was here", extra={"fields": {"reason": type(error).__name__}})
            self._waiting.clear()
        finally:
            self._task = None

    def _forget(self, moment: float) -> None:
        self._written = {user: last for user, last in self._written.items() if moment - last < _INTERVAL}
        if len(self._written) >= _MOST_REMEMBERED:
            self._written.clear()  # more users in a minute than that: some are written twice
