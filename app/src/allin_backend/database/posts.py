"""Posts."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Row, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from allin_backend.database.tables import posts


class Post(msgspec.Struct, frozen=True):
    """A text that a user wants to publish."""

    id: int
    user_id: int
    text: str
    created_at: datetime


class UnknownUserError(Exception):
    """The post's user does not exist."""


class PostStore:
    """Reads and writes posts."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, user_id: int, text: str) -> Post:
        """Add a post.

        Raises:
            UnknownUserError: there is no such user.
        """
        try:
            async with self._engine.begin() as connection:
                result = await connection.execute(insert(posts).values(user_id=user_id, text=text).returning(posts))
                return _post(result.one())
        except IntegrityError:
            raise UnknownUserError(user_id) from None

    async def get(self, post_id: int) -> Post | None:
        """The post with this id, if there is one."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(posts).where(posts.c.id == post_id))).one_or_none()
        return None if row is None else _post(row)

    async def newest(self, limit: int, before: int | None = None) -> list[Post]:
        """At most ``limit`` posts, newest first, with ids below ``before`` if it is given."""
        query = select(posts).order_by(posts.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(posts.c.id < before)
        async with self._engine.connect() as connection:
            return [_post(row) for row in await connection.execute(query)]

    async def delete(self, post_id: int) -> bool:
        """Remove a post; false if there was none."""
        async with self._engine.begin() as connection:
            result = await connection.execute(delete(posts).where(posts.c.id == post_id))
        return result.rowcount > 0


def _post(row: Row[tuple[object, ...]]) -> Post:
    return Post(id=row.id, user_id=row.user_id, text=row.text, created_at=row.created_at)
