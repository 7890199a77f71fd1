"""Which schema this release needs, and which it can still serve.

Kept apart from the migrations themselves: serving needs none of their machinery.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from allin_backend.database.tables import alembic_version

REVISION: Final = "0002"
"""The newest migration. Revisions are numbers with four digits, so that every release can tell older from newer."""

NONE: Final = "0000"
"""Stands for a database without a revision."""


class SchemaError(Exception):
    """The database's schema and this release do not fit."""


def require(found: str, *, at_least: str = REVISION) -> None:
    """Return if this release works with a database of revision ``found``.

    One revision more than its own is allowed: migrations only add until the release after next, so the release before
    the newest can serve while a deployment rolls out, or after it was rolled back.

    Raises:
        SchemaError: the database is older than ``at_least``, or more than one revision newer than this release.
    """
    if not (len(found) == 4 and found.isdigit()):
        raise SchemaError(f"the database has schema {found!r}, which no release of this service makes")
    if found < at_least:
        raise SchemaError(f"the database has schema {found}, this release needs {REVISION}: run allin-backend migrate")
    if int(found) > int(REVISION) + 1:
        raise SchemaError(
            f"the database has schema {found}, this release can use {REVISION} and the one after it:"
            " deploy a newer release, or restore a backup made by this one"
        )


async def read(connection: AsyncConnection) -> str:
    """The database's revision, ``NONE`` where it has none. The connection's transaction may be of no more use then."""
    try:
        found = (await connection.execute(select(alembic_version.c.version_num))).scalar()
    except (OperationalError, ProgrammingError) as error:
        if is_missing_table(error):
            return NONE
        raise
    return NONE if found is None else found


def is_missing_table(error: DBAPIError) -> bool:
    """Whether a statement failed because a table does not exist."""
    return getattr(error.orig, "sqlstate", None) == "42P01" or "no such table" in str(error.orig)
