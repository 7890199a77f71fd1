"""Brings the database to the schema that this release needs.

A list of numbered steps and a table of those already done. Alembic replaces this module when the first step is needed
that changes existing tables: its revisions start from version 1 here, and ``schema_version`` gives way to its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from allin_backend.database.tables import metadata, posts, schema_version, users


class SchemaError(Exception):
    """The database's schema and this release do not fit."""


def _create_users_and_posts(connection: Connection) -> None:
    metadata.create_all(connection, tables=[users, posts])


STEPS: Final[tuple[Callable[[Connection], None], ...]] = (_create_users_and_posts,)
"""Step n, counted from 1, leads to version n. Never change or remove a step that has been released."""

CURRENT_VERSION: Final = len(STEPS)


async def prepare(engine: AsyncEngine) -> None:
    """Apply the steps that are missing. Safe to repeat, and for several processes that start at once.

    Raises:
        SchemaError: the database was made by a newer release.
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
    """
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # Takes the write lock now: of two processes, the second waits here and then finds nothing left to do.
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        await connection.run_sync(_apply)
        await connection.commit()


def _apply(connection: Connection) -> None:
    schema_version.create(connection, checkfirst=True)
    version = connection.execute(select(func.max(schema_version.c.version))).scalar() or 0
    if version > CURRENT_VERSION:
        raise SchemaError(
            f"the database has schema version {version}, this release knows {CURRENT_VERSION}:"
            " deploy the newer release again, or restore a backup made by this one"
        )
    for number in range(version + 1, CURRENT_VERSION + 1):
        STEPS[number - 1](connection)
        connection.execute(insert(schema_version).values(version=number))
