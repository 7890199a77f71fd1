"""Users."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from allin_backend.database.engine import Database
from allin_backend.database.tables import users


class User(msgspec.Struct, frozen=True):
    """A person who uses the platform."""

    id: int
    email: str
    name: str
    created_at: datetime


class Credentials(msgspec.Struct, frozen=True):
    """What proves who somebody is. Without a hash, made by release 0.1.0, the user cannot sign in."""

    user_id: int
    password_hash: str | None


class EmailTakenError(Exception):
    """Another user has this email address."""


class UnknownUserError(Exception):
    """The record's user does not exist."""


_COLUMNS = (users.c.id, users.c.email, users.c.name, users.c.created_at)


class UserStore:
    """Reads and writes users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, email: str, name: str, password_hash: str | None = None) -> User:
        """Add a user.

        Raises:
            EmailTakenError: the address belongs to another user.
        """
        new = insert(users).values(email=email, name=name, password_hash=password_hash).returning(*_COLUMNS)
        try:
            async with self._database.begin() as connection:
                return _user((await connection.execute(new)).one())
        except IntegrityError:
            raise EmailTakenError(email) from None

    async def by_email(self, email: str) -> Credentials | None:
        """The credentials of the user with this address, if there is one."""
        query = select(users.c.id, users.c.password_hash).where(users.c.email == email)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Credentials(user_id=row.id, password_hash=row.password_hash)

    async def get(self, user_id: int) -> User | None:
        """The user with this id, if there is one."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(users.c.id == user_id))).one_or_none()
        return None if row is None else _user(row)

    async def delete(self, user_id: int) -> bool:
        """Remove a user with everything that is theirs; false if there was none."""
        async with self._database.begin() as connection:
            result = await connection.execute(delete(users).where(users.c.id == user_id))
        return result.rowcount > 0

    async def touch(self, user_id: int, now: datetime) -> None:
        """Remember that the user did something at ``now``. The caller sees to it that this is not done too often."""
        async with self._database.begin() as connection:
            await connection.execute(update(users).where(users.c.id == user_id).values(last_seen_at=now))


def _user(row: Row[*tuple[Any, ...]]) -> User:
    return User(id=row.id, email=row.email, name=row.name, created_at=row.created_at)
