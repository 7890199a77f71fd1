"""Posts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select
from sqlalchemy.exc import IntegrityError

from allin_backend.database.engine import Database
from allin_backend.database.tables import posts
from allin_backend.database.users import UnknownUserError


class Post(msgspec.Struct, frozen=True):
    """A text that a user wants to publish."""

    id: int
    user_id: int
    text: str
    created_at: datetime


class PostStore:
    """Reads and writes posts. Where a ``user_id`` is given, posts of other users are as if they did not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, user_id: int, text: str) -> Post:
        """Add a post.

        Raises:
            UnknownUserError: there is no such user.
        """
        try:
            async with self._database.begin() as connection:
                result = await connection.execute(insert(posts).values(user_id=user_id, text=text).returning(posts))
                return _post(result.one())
        except IntegrityError:
            raise UnknownUserError(user_id) from None

    async def get(self, post_id: int, user_id: int | None = None) -> Post | None:
        """The post with this id, if there is one."""
        query = select(posts).where(posts.c.id == post_id)
        if user_id is not None:
            query = query.where(posts.c.user_id == user_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _post(row)

    async def newest(self, user_id: int | None, limit: int, before: int | None = None) -> list[Post]:
        """At most ``limit`` posts, newest first, with ids below ``before`` if it is given."""
        query = select(posts).order_by(posts.c.id.desc()).limit(limit)
        if user_id is not None:
            query = query.where(posts.c.user_id == user_id)
        if before is not None:
            query = query.where(posts.c.id < before)
        async with self._database.read() as connection:
            return [_post(row) for row in await connection.execute(query)]

    async def delete(self, post_id: int, user_id: int | None = None) -> bool:
        """Remove a post with its publications; false if there was none."""
        statement = delete(posts).where(posts.c.id == post_id)
        if user_id is not None:
            statement = statement.where(posts.c.user_id == user_id)
        async with self._database.begin() as connection:
            result = await connection.execute(statement)
        return result.rowcount > 0


def _post(row: Row[*tuple[Any, ...]]) -> Post:
    return Post(id=row.id, user_id=row.user_id, text=row.text, created_at=row.created_at)
