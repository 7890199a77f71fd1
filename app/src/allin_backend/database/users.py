"""Users."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Row, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from allin_backend.database.tables import users


class User(msgspec.Struct, frozen=True):
    """A person who uses the platform."""

    id: int
    email: str
    name: str
    created_at: datetime


class EmailTakenError(Exception):
    """Another user has this email address."""


class UserStore:
    """Reads and writes users."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, email: str, name: str) -> User:
        """Add a user.

        Raises:
            EmailTakenError: the address belongs to another user.
        """
        try:
            async with self._engine.begin() as connection:
                result = await connection.execute(insert(users).values(email=email, name=name).returning(users))
                return _user(result.one())
        except IntegrityError:
            raise EmailTakenError(email) from None

    async def get(self, user_id: int) -> User | None:
        """The user with this id, if there is one."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
        return None if row is None else _user(row)

    async def delete(self, user_id: int) -> bool:
        """Remove a user with all posts; false if there was none."""
        async with self._engine.begin() as connection:
            result = await connection.execute(delete(users).where(users.c.id == user_id))
        return result.rowcount > 0


def _user(row: Row[tuple[object, ...]]) -> User:
    return User(id=row.id, email=row.email, name=row.name, created_at=row.created_at)
