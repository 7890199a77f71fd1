"""The connection to the database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from allin_backend.database import revision
from allin_backend.database.revision import SchemaError
from allin_backend.secret_files import read_line
from allin_backend.settings import ConfigurationError

_log: Final = logging.getLogger(__name__)

# What PostgreSQL says when the fault is not the statement's: no connection, wrong password or no such database, a
# read-only server, too few resources, a server that stops, a lock held too long, a deadlock, its own disk.
_UNAVAILABLE_CODES: Final = ("08", "25006", "25P", "28", "3D", "40", "42P01", "53", "55P03", "57", "58")


class DatabaseUnavailableError(Exception):
    """The database did not answer, or not in time. What was asked may have been done all the same."""


class Database:
    """Owns the engine. ``pool_size`` connections at most; whatever is asked ends within ``timeout`` seconds.

    ``instrument`` is given the engine before its first statement. ``password_file`` is read for each new connection, so
    that a new password needs no restart.
    """

    def __init__(
        self,
        url: URL,
        *,
        pool_size: int,
        timeout: float,
        instrument: Callable[[Engine], None],
        password_file: Path | None = None,
    ) -> None:
        self._timeout = timeout
        sqlite = url.get_backend_name() == "sqlite"
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            # A thread that waits for SQLite's lock cannot be called off, so the two waits share the time.
            pool_timeout=timeout / 2 if sqlite else timeout,
            connect_args=(
                sqlite_arguments(timeout / 2)
                if sqlite
                else postgresql_arguments(password_file, connect=timeout, statement=timeout)
            ),
            hide_parameters=True,  # error messages go to the log; what people wrote does not
        )
        if sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "invalidate", _interrupt_sqlite)
            self._reader = self.engine
        else:
            event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
            event.listen(self.engine.sync_engine, "invalidate", _hang_up)
            # A single SELECT needs no BEGIN and COMMIT around it, which would cost two more round trips.
            self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        instrument(self.engine.sync_engine)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for statements that only read; each sees what is committed when it begins.

        Raises:
            DatabaseUnavailableError: with the reason.
        """
        async with self._bounded(self._timeout), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end, rolled back by an exception.

        On SQLite it begins with the first statement that writes, and keeps other writers out from then on.

        Raises:
            DatabaseUnavailableError: with the reason.
        """
        async with self._bounded(self._timeout), self.engine.begin() as connection:
            yield connection

    async def start(self) -> None:
        """Check the schema, before the first request.

        A PostgreSQL server that does not answer is only logged: it comes back by itself. A file does not.

        Raises:
            SchemaError: the schema does not fit this release.
            DatabaseUnavailableError: the SQLite file cannot be opened.
        """
        try:
            if self.dialect == "sqlite":
                # Without the engine, whose driver leaves a thread behind when it cannot open the file.
                await asyncio.to_thread(_try_to_open, self._file, self._timeout)
            await self.check(self._timeout)
        except DatabaseUnavailableError as error:
            if self.dialect == "sqlite":
                await self.stop()  # nobody calls it after a start that failed
                url = self.engine.url.render_as_string(hide_password=True)
                raise DatabaseUnavailableError(
                    f"cannot open the database {url}: {error}. Check ALLIN_DATABASE_URL, that the directory exists, and"
                    " that the service's user may write to it"
                ) from None
            _log.warning("starting without the database", extra={"fields": {"reason": str(error)}})
        except BaseException:
            await self.stop()
            raise

    async def check(self, timeout: float) -> None:
        """Return if the database answers within ``timeout`` seconds and has a schema that this release can use.

        Raises:
            DatabaseUnavailableError: with the reason.
            SchemaError: with the reason.
        """
        async with self._bounded(timeout), self._reader.connect() as connection:
            found = await revision.read(connection)
        revision.require(found)

    async def stop(self) -> None:
        """Close all connections."""
        try:
            async with asyncio.timeout(self._timeout):
                await self.engine.dispose()
        except (TimeoutError, OSError):
            _log.warning("the database did not answer when its connections were closed")

    @property
    def _file(self) -> Path:
        return Path(self.engine.url.database or "")

    @asynccontextmanager
    async def _bounded(self, timeout: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout):
                yield
        except TimeoutError:
            raise DatabaseUnavailableError(f"no answer within {timeout:g} s") from None
        except DBAPIError as error:
            if is_unavailable(error):
                raise DatabaseUnavailableError(str(error.orig)) from error
            raise
        except PoolTimeoutError:
            raise DatabaseUnavailableError("no connection came free in time") from None
        except (OSError, ConfigurationError) as error:  # no connection; no password
            raise DatabaseUnavailableError(str(error) or type(error).__name__) from error


def is_unavailable(error: DBAPIError) -> bool:
    """Whether a statement failed for want of a working database, rather than because it is wrong."""
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError | InternalError):
        return True
    code = getattr(error.orig, "sqlstate", None) or ""
    return bool(code) and code.startswith(_UNAVAILABLE_CODES)


def sqlite_arguments(lock_timeout: float) -> dict[str, Any]:
    """What the SQLite driver is told for each connection."""
    return {"timeout": lock_timeout}


def postgresql_arguments(password_file: Path | None, *, connect: float, statement: float) -> dict[str, Any]:
    """What the PostgreSQL driver is told for each connection, with the longest times, in seconds."""
    arguments: dict[str, Any] = {
        "timeout": connect,
        "command_timeout": statement,
        # The server gives up too: it would go on working for a caller who has left.
        "server_settings": {
            "application_name": "allin-backend",
            "statement_timeout": str(int(statement * 1000)),
            "idle_in_transaction_session_timeout": str(int(statement * 1000)),
        },
    }
    if password_file is not None:
        arguments["password"] = lambda: read_line("ALLIN_DATABASE_PASSWORD_FILE", password_file)
    return arguments


def _try_to_open(path: Path, timeout: float) -> None:
    if not path.exists() and path.parent.is_dir():
        raise SchemaError(f"there is no database {path}: run allin-backend migrate")
    try:
        # Never creates the file: that is for `migrate`.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DatabaseUnavailableError(str(error)) from None


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL: a power cut may cost the last commits, not the file
    finally:
        cursor.close()


def _interrupt_sqlite(connection: Any, _entry: ConnectionPoolEntry, _error: BaseException | None) -> None:
    """End the statement of a caller who was called off; closing the connection would otherwise wait for it."""
    driver = connection.driver_connection
    if driver is not None and driver._connection is not None:
        driver._connection.interrupt()


def _hang_up(connection: Any, _entry: ConnectionPoolEntry, _error: BaseException | None) -> None:
    """Close the socket at once. A polite good-bye would wait up to two seconds for a server that does not answer."""
    connection.driver_connection.terminate()


def _refuse_closed(connection: Any, _entry: ConnectionPoolEntry, _proxy: Any) -> None:
    """Have the pool connect anew when the server has gone since the last use, so that no request meets the dead one."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError
