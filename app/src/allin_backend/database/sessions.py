"""Who is signed in."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from allin_backend.database.engine import Database
from allin_backend.database.tables import sessions
from allin_backend.database.users import UnknownUserError


class Session(msgspec.Struct, frozen=True):
    """A user who is signed in."""

    user_id: int
    expires_at: datetime


class SessionStore:
    """Reads and writes sessions. It is given digests of the tokens, never the tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, token_hash: str, user_id: int, expires_at: datetime) -> None:
        """Add a session.

        Raises:
            UnknownUserError: there is no such user.
        """
        new = insert(sessions).values(token_hash=token_hash, user_id=user_id, expires_at=expires_at)
        try:
            async with self._database.begin() as connection:
                await connection.execute(new)
        except IntegrityError:
            raise UnknownUserError(user_id) from None

    async def get(self, token_hash: str, now: datetime) -> Session | None:
        """The session, unless there is none or it has ended at ``now``."""
        query = select(sessions.c.user_id, sessions.c.expires_at).where(
            sessions.c.token_hash == token_hash, sessions.c.expires_at > now
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Session(user_id=row.user_id, expires_at=row.expires_at)

    async def delete(self, token_hash: str) -> bool:
        """End a session; false if there was none."""
        async with self._database.begin() as connection:
            result = await connection.execute(delete(sessions).where(sessions.c.token_hash == token_hash))
        return result.rowcount > 0

    async def delete_expired(self, now: datetime) -> int:
        """Remove sessions that have ended at ``now``. Returns how many."""
        async with self._database.begin() as connection:
            return (await connection.execute(delete(sessions).where(sessions.c.expires_at <= now))).rowcount
