"""The connection to the database."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from allin_backend.database import schema
from allin_backend.database.tables import schema_version


class DatabaseUnavailableError(Exception):
    """The database did not answer, or not in time."""


class Database:
    """Owns the engine. ``pool_size`` connections at most; ``timeout`` seconds at most for a free one, or for a lock.

    ``instrument`` is given the engine before its first statement.
    """

    def __init__(self, url: URL, *, pool_size: int, timeout: float, instrument: Callable[[Engine], None]) -> None:
        self._timeout = timeout
        connect_args: dict[str, Any] = {"timeout": timeout} if url.get_backend_name() == "sqlite" else {}
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout,
            connect_args=connect_args,
            hide_parameters=True,  # error messages go to the log; what people wrote does not
        )
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
        instrument(self.engine.sync_engine)

    async def start(self) -> None:
        """Connect and bring the schema up to date.

        Raises:
            DatabaseUnavailableError: with the reason.
            schema.SchemaError: the database belongs to a newer release.
        """
        try:
            await self._prepare()
        except (SQLAlchemyError, sqlite3.Error) as error:
            # The driver's own words, without SQLAlchemy's statement and link.
            reason = getattr(error, "orig", None) or error
            url = self.engine.url.render_as_string(hide_password=True)
            raise DatabaseUnavailableError(
                f"cannot open or prepare the database {url}: {reason}. Check ALLIN_DATABASE_URL, that the directory"
                " exists, and that the service's user may write to it"
            ) from None

    async def _prepare(self) -> None:
        path = self.engine.url.database
        if self.engine.dialect.name == "sqlite" and path:
            # Fails as the engine would, but without its thread: aiosqlite lets go of the thread of a connection that
            # cannot be opened without waiting for it, and it then complains in the log when the loop is closed.
            await asyncio.to_thread(_open_and_choose_journal, path, self._timeout)
        try:
            await schema.prepare(self.engine)
        except BaseException:
            await self.engine.dispose()  # nobody calls stop() after a start that failed
            raise

    async def check(self, timeout: float) -> None:
        """Return if the database answers within ``timeout`` seconds and has this release's schema.

        Raises:
            DatabaseUnavailableError: with the reason.
        """
        try:
            async with asyncio.timeout(timeout), self.engine.connect() as connection:
                version = (await connection.execute(select(func.max(schema_version.c.version)))).scalar()
        except TimeoutError:
            raise DatabaseUnavailableError(f"no answer within {timeout:g} s") from None
        except SQLAlchemyError as error:
            raise DatabaseUnavailableError(str(getattr(error, "orig", None) or error)) from error
        if version != schema.CURRENT_VERSION:
            raise DatabaseUnavailableError(f"schema version {version} instead of {schema.CURRENT_VERSION}")

    async def stop(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _open_and_choose_journal(path: str, timeout: float) -> None:
    """Open the file once, and have it keep a write-ahead log, so that readers do not wait for the writer.

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


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL: a power cut may cost the last commits, not the file
    finally:
        cursor.close()
