"""When users were last here."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import cast

import pytest

from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.database.users import UserStore
from allin_backend.web import presence
from allin_backend.web.presence import Presence


class Touched:
    """Stands in for the store: notes who was written, and fails while ``gone``."""

    def __init__(self) -> None:
        self.users: list[int] = []
        self.at_once = self.most_at_once = 0
        self.gone = False

    async def touch(self, user_id: int, now: datetime) -> None:
        assert now.tzinfo is not None
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.gone:
            raise DatabaseUnavailableError("gone")
        self.users.append(user_id)


def make(store: Touched) -> tuple[Presence, list[float]]:
    clock = [0.0]
    return Presence(cast(UserStore, store), lambda: clock[0]), clock


def test_once_a_minute_for_each_user_and_one_write_at_a_time() -> None:
    store = Touched()

    async def scenario() -> None:
        target, clock = make(store)
        for moment in (0.0, 1.0, 59.9):
            clock[0] = moment
            for user in (1, 2, 3):
                target.seen(user)
        await target.stop()
        assert sorted(store.users) == [1, 2, 3]
        clock[0] = 60.0
        target.seen(1)
        await target.stop()
        assert sorted(store.users) == [1, 1, 2, 3]

    asyncio.run(scenario())
    assert store.most_at_once == 1


def test_trouble_is_survived_and_does_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    store = Touched()
    store.gone = True

    async def scenario() -> None:
        target, clock = make(store)
        for user in range(50):
            target.seen(user)
        await target.stop()
        store.gone = False
        clock[0] = 60.0
        target.seen(7)
        await target.stop()

    asyncio.run(scenario())
    assert store.users == [7]
    assert len(caplog.records) == 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_MOST_REMEMBERED", 10)
    store = Touched()

    async def scenario() -> None:
        target, clock = make(store)
        for user in range(1000):
            clock[0] += 1
            target.seen(user)
            assert len(target._written) <= 10
        await target.stop()
        clock[0] += 1
        target.seen(999)  # not forgotten: it was among the last
        await target.stop()

    asyncio.run(scenario())
    assert sorted(store.users) == list(range(1000))
