"""Brings the database to the schema that this release needs."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from allin_backend.database import revision
from allin_backend.database.engine import DatabaseUnavailableError, postgresql_arguments, sqlite_arguments
from allin_backend.database.revision import NONE, SchemaError
from allin_backend.database.tables import alembic_version, schema_version
from allin_backend.settings import ConfigurationError

_ADVISORY_LOCK: Final = 0x616C6C696E  # "allin": any number that nothing else in this database locks
_TURN_SECONDS: Final = 300.0
"""Longest wait for another process that migrates just now."""
_STATEMENT_SECONDS: Final = 3600.0
"""Longest time for one statement, which may build an index over a large table."""


@dataclass(frozen=True, slots=True)
class Migration:
    """The revisions before and after; ``0000`` stands for an empty database."""

    before: str
    after: str

    def __str__(self) -> str:
        if self.before == self.after:
            return f"schema {self.after}: nothing to do"
        return f"schema {self.before} -> {self.after}"


async def migrate(url: URL, *, timeout: float, password_file: Path | None = None, dry_run: bool = False) -> Migration:
    """Apply the migrations that are missing, all or none. Several processes may do so at once: the first does it all.

    A database that release 0.1.0 made is taken over as it is. ``timeout`` is the longest wait, in seconds, for the
    connection and for the locks of statements that are running. ``dry_run`` only looks and changes nothing.

    Raises:
        DatabaseUnavailableError: with the reason.
        SchemaError: the database belongs to a newer release, or is none of this service's.
    """
    sqlite = url.get_backend_name() == "sqlite"
    arguments = (
        sqlite_arguments(_TURN_SECONDS)
        if sqlite
        else postgresql_arguments(password_file, connect=timeout, statement=_STATEMENT_SECONDS)
    )
    engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    file = Path(url.database or "") if sqlite else None
    try:
        if file is not None and dry_run and not file.exists():
            return _wanted(NONE)
        if file is not None and not dry_run:
            _keep_write_ahead_log(file, timeout)
        async with engine.connect() as connection:
            if dry_run:
                return _wanted(await connection.run_sync(_found))
            migration = await connection.run_sync(_upgrade, timeout)
            await connection.commit()
    except (SQLAlchemyError, sqlite3.Error, OSError, ConfigurationError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        shown = url.render_as_string(hide_password=True)
        raise DatabaseUnavailableError(f"cannot migrate the database {shown}: {reason}") from error
    finally:
        await engine.dispose()
    return migration


def _upgrade(connection: Connection, timeout: float) -> Migration:
    _take_turn(connection, timeout)
    found = _found(connection)
    migration = _wanted(found)
    config = Config()
    config.set_main_option("script_location", "allin_backend.database:migrations")
    config.attributes["connection"] = connection
    if found != NONE and not inspect(connection).has_table(alembic_version.name):
        command.stamp(config, found)
    if found < migration.after:
        command.upgrade(config, migration.after)
    return migration


def _wanted(found: str) -> Migration:
    """What there is to do at revision ``found``; a database of the next release is left as it is."""
    revision.require(found, at_least=NONE)
    return Migration(found, max(found, revision.REVISION))


def _take_turn(connection: Connection, timeout: float) -> None:
    if connection.dialect.name == "sqlite":
        # Takes the write lock now, and the driver adds no BEGIN of its own then.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    connection.execute(text(f"SET LOCAL lock_timeout = {int(_TURN_SECONDS * 1000)}"))
    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    # Whoever waits for a table's lock holds up everybody who comes later, so this waits no longer than they do.
    connection.execute(text(f"SET LOCAL lock_timeout = {int(timeout * 1000)}"))


def _found(connection: Connection) -> str:
    tables = inspect(connection)
    if tables.has_table(alembic_version.name):
        return connection.execute(select(alembic_version.c.version_num)).scalar() or NONE
    if not tables.has_table(schema_version.name):
        return NONE
    version = connection.execute(select(func.max(schema_version.c.version))).scalar() or 0
    if version > 1:
        raise SchemaError(f"the database has schema version {version} of no release that this one knows")
    return f"{version:04}"


def _keep_write_ahead_log(path: Path, timeout: float) -> None:
    """Create the file if it is missing, and have it keep a write-ahead log, so that readers do not wait for the writer.

    The file remembers the choice. SQLite does not wait for another process that is making it at the same moment, so
    this does, for ``timeout`` seconds at most.
    """
    deadline = time.monotonic() + timeout
    connection = sqlite3.connect(path, timeout=timeout)
    try:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return
    finally:
        connection.close()
