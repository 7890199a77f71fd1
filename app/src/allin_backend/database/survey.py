"""The figures that only the database knows: the queue, the accounts, the people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import case, func, select

from allin_backend.database.accounts import ACTIVE
from allin_backend.database.engine import Database
from allin_backend.database.publications import SCHEDULED
from allin_backend.database.tables import accounts, publications, users

WINDOWS: Final[Mapping[str, timedelta]] = {
    "5m": timedelta(minutes=5),
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}


class Survey(msgspec.Struct, frozen=True):
    """What the database holds at one moment. What has no entry does not occur.

    ``queue`` has the scheduled publications by platform and ``waiting`` or ``due``, ``oldest_due`` the due time of each
    platform's oldest due one; ``accounts`` are by platform and state, ``token_expiry`` has the earliest end of an
    active account's token on each platform; ``active_users`` are by window.
    """

    queue: Mapping[tuple[str, str], int]
    oldest_due: Mapping[str, datetime]
    accounts: Mapping[tuple[str, str], int]
    token_expiry: Mapping[str, datetime]
    active_users: Mapping[str, int]
    registered_users: int


async def survey(database: Database, now: datetime) -> Survey:
    """Look everything up, as of ``now``.

    Raises:
        DatabaseUnavailableError: with the reason.
    """
    is_due = publications.c.due_at <= now
    queued = (
        select(
            publications.c.platform,
            func.count().label("total"),
            func.count(case((is_due, 1))).label("due"),
            func.min(publications.c.due_at).label("oldest"),
        )
        .where(publications.c.state == SCHEDULED)
        .group_by(publications.c.platform)
    )
    connected = select(
        accounts.c.platform,
        accounts.c.state,
        func.count().label("total"),
        func.min(accounts.c.token_expires_at).label("expiry"),
    ).group_by(accounts.c.platform, accounts.c.state)
    # Only those within the longest window are looked at, through the index.
    seen = select(
        *(func.count(case((users.c.last_seen_at > now - window, 1))).label(name) for name, window in WINDOWS.items())
    ).where(users.c.last_seen_at > now - max(WINDOWS.values()))

    queue: dict[tuple[str, str], int] = {}
    oldest_due: dict[str, datetime] = {}
    by_state: dict[tuple[str, str], int] = {}
    token_expiry: dict[str, datetime] = {}
    async with database.read() as connection:
        for row in await connection.execute(queued):
            queue[row.platform, "due"] = row.due
            queue[row.platform, "waiting"] = row.total - row.due
            if row.due:
                oldest_due[row.platform] = row.oldest
        for row in await connection.execute(connected):
            by_state[row.platform, row.state] = row.total
            if row.state == ACTIVE and row.expiry is not None:
                token_expiry[row.platform] = row.expiry
        active_users = dict((await connection.execute(seen)).mappings().one())
        registered = (await connection.execute(select(func.count()).select_from(users))).scalar_one()
    return Survey(queue, oldest_due, by_state, token_expiry, active_users, registered)
