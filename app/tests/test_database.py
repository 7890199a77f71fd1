"""The connection: every call ends in time, and what was lost comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from allin_backend.database.engine import Database, DatabaseUnavailableError
from allin_backend.database.revision import SchemaError
from allin_backend.database.tables import users
from allin_backend.metrics.database import DatabaseMetrics, PoolState
from services import PostgreSQL
from support import DEADLINE, make_database, with_database

ANN = {"email": "ann@example.com", "name": "Ann"}
LIMIT = 1.0
"""Seconds that a statement may take where it is to take longer: what goes before it must fit in too."""
SILENCE = r"no answer within [0-9.]+ s"
# Takes minutes where nobody stops it.
ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e10) SELECT count(*) FROM n",
    "postgresql": "SELECT count(*) FROM generate_series(1, 10000000000)",
}


async def count_users(database: Database) -> int:
    async with database.read() as connection:
        return len((await connection.execute(select(users.c.id))).all())


def start(url: URL) -> None:
    async def scenario(database: Database) -> None:
        await database.start()
        await database.check(DEADLINE)

    with_database(url, scenario)


def test_start_with_the_right_schema(url: URL) -> None:
    start(url)


def test_start_without_a_schema(empty_url: URL, engine: str) -> None:
    if engine == "sqlite":
        Path(empty_url.database or "").touch()

    with pytest.raises(SchemaError, match="schema 0000, this release needs 0002: run allin-backend migrate"):
        start(empty_url)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"missing/test\.db.*ALLIN_DATABASE_URL"):
        start(make_url(f"sqlite+aiosqlite:///{tmp_path}/missing/test.db"))


def test_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"test\.db: run allin-backend migrate"):
        start(make_url(f"sqlite+aiosqlite:///{tmp_path}/test.db"))
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    url = make_url(make_database(tmp_path))
    (tmp_path / "test.db").write_text("this is no database " * 100)

    with pytest.raises(DatabaseUnavailableError, match="not a database"):
        start(url)


def test_sqlite_is_set_up(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        async with database.read() as connection:
            for pragma, expected in [("foreign_keys", 1), ("journal_mode", "wal"), ("busy_timeout", 1500)]:
                assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar() == expected

    with_database(make_url(make_database(tmp_path)), scenario, timeout=3)


def test_transaction_is_all_or_nothing(url: URL) -> None:
    async def twice(database: Database) -> None:
        async with database.begin() as connection:
            await connection.execute(insert(users).values(ANN))
            await connection.execute(insert(users).values(ANN))

    async def scenario(database: Database) -> None:
        with pytest.raises(IntegrityError):
            await twice(database)
        assert await count_users(database) == 0

    with_database(url, scenario)


def test_wrong_statement_is_not_blamed_on_the_database(postgresql_url: URL) -> None:
    async def scenario(database: Database) -> None:
        with pytest.raises(ProgrammingError):
            async with database.read() as connection:
                await connection.execute(text("SELECT nothing FROM users"))

    with_database(postgresql_url, scenario)


@pytest.mark.parametrize("way", [Database.read, Database.begin])
def test_wait_for_a_connection_ends(
    url: URL, way: Callable[[Database], AbstractAsyncContextManager[AsyncConnection]]
) -> None:
    async def scenario(database: Database) -> None:
        async with database.engine.connect():
            with pytest.raises(DatabaseUnavailableError, match=f"in time|{SILENCE}"):
                async with way(database):
                    pass

    with_database(url, scenario, pool_size=1, timeout=LIMIT)


def test_long_statement_ends_also_on_the_server(url: URL, engine: str) -> None:
    async def scenario(database: Database) -> None:
        with pytest.raises(DatabaseUnavailableError, match=SILENCE):
            async with database.read() as connection:
                await connection.exec_driver_sql(ENDLESS[engine])
        # SQLite's runs in this process, and closing its connection has waited for it.
        while engine == "postgresql" and await is_running(database):
            pass

    async def is_running(database: Database) -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()"
        )
        async with database.read() as connection:
            return bool((await connection.exec_driver_sql(query)).scalar())

    with_database(url, scenario, timeout=LIMIT)


def test_wait_for_a_lock_ends(url: URL) -> None:
    async def scenario(database: Database) -> None:
        async with database.begin() as connection:
            await connection.execute(insert(users).values(ANN))
        patient = Database(url, pool_size=1, timeout=DEADLINE, instrument=lambda _engine: None)
        async with patient.begin() as holder:
            await holder.execute(update(users).values(name="x"))
            with pytest.raises(DatabaseUnavailableError, match=f"database is locked|{SILENCE}"):
                async with database.begin() as connection:
                    await connection.execute(update(users).values(name="y"))
        await patient.stop()
        async with database.begin() as connection:
            await connection.execute(update(users).values(name="z"))

    with_database(url, scenario, timeout=LIMIT)


def test_sqlite_locked_by_another_process(tmp_path: Path) -> None:
    url = make_url(make_database(tmp_path))
    code = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "connection.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "test.db")]

    async def scenario(database: Database) -> None:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"locked\n"
            with pytest.raises(DatabaseUnavailableError, match="database is locked"):
                async with database.begin() as connection:
                    await connection.execute(insert(users).values(ANN))
            assert await count_users(database) == 0  # readers do not wait for the writer
            await asyncio.to_thread(process.communicate)
        async with database.begin() as connection:
            await connection.execute(insert(users).values(ANN))

    with_database(url, scenario, timeout=LIMIT)


def test_lost_server_comes_back(postgresql: PostgreSQL, postgresql_url: URL, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(database: Database) -> None:
        async with database.read(), database.read():
            pass  # two idle connections, which the crash will close
        await asyncio.to_thread(postgresql.stop)
        for _ in range(4):
            with pytest.raises(DatabaseUnavailableError):
                await count_users(database)
            with pytest.raises(DatabaseUnavailableError):
                await database.check(DEADLINE)
        await database.start()
        assert "starting without the database" in caplog.text

        await asyncio.to_thread(postgresql.start)
        await database.check(DEADLINE)
        assert await count_users(database) == 0

    try:
        with_database(postgresql_url, scenario)
    finally:
        postgresql.stop()
        postgresql.start()


def test_connections_that_a_restart_closed_are_not_used(postgresql: PostgreSQL, postgresql_url: URL) -> None:
    async def scenario(database: Database) -> None:
        async with database.read(), database.read():
            pass
        await asyncio.to_thread(postgresql.stop)
        await asyncio.to_thread(postgresql.start)
        # No request pays for the restart, whichever connection it is given.
        await asyncio.gather(count_users(database), count_users(database), count_users(database))

    with_database(postgresql_url, scenario)


def test_connection_lost_within_a_transaction(postgresql: PostgreSQL, postgresql_url: URL) -> None:
    async def interrupted(database: Database) -> None:
        async with database.begin() as connection:
            await connection.execute(insert(users).values(ANN))
            await asyncio.to_thread(postgresql.stop)
            await connection.execute(select(users.c.id))

    async def scenario(database: Database) -> None:
        with pytest.raises(DatabaseUnavailableError):
            await interrupted(database)
        await asyncio.to_thread(postgresql.start)
        assert await count_users(database) == 0

    with_database(postgresql_url, scenario)


def test_server_that_stays_silent(postgresql_url: URL) -> None:
    async def scenario(database: Database) -> None:
        async with database.read() as connection:
            process = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseUnavailableError, match=SILENCE):
                await count_users(database)
            assert await count_users(database) == 0  # on another connection
        finally:
            os.kill(process, signal.SIGCONT)

    # Long enough for a new connection on a busy machine.
    with_database(postgresql_url, scenario, pool_size=1, timeout=2.0)


def test_server_that_accepts_and_never_answers() -> None:
    async def scenario(database: Database) -> None:
        with pytest.raises(DatabaseUnavailableError, match=SILENCE):
            await count_users(database)
        await database.start()  # not a wrong schema, so it goes on

    callers: list[asyncio.StreamWriter] = []

    async def silent() -> None:
        server = await asyncio.start_server(lambda _reader, writer: callers.append(writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = make_url(f"postgresql+asyncpg://allin:x@127.0.0.1:{port}/allin")
        database = Database(url, pool_size=1, timeout=0.2, instrument=lambda _engine: None)
        async with asyncio.timeout(DEADLINE):
            await scenario(database)
        await database.stop()
        for writer in callers:
            writer.close()
        server.close()

    asyncio.run(silent())


def test_password_comes_from_a_file_and_may_change(postgresql: PostgreSQL, postgresql_url: URL, tmp_path: Path) -> None:
    postgresql.execute(postgresql_url, "CREATE ROLE reader LOGIN PASSWORD 'first'")
    postgresql.execute(postgresql_url, "GRANT SELECT ON users TO reader")
    file = tmp_path / "password"
    file.write_text("first\nthe rest does not count\n")

    async def scenario(database: Database) -> None:
        assert await count_users(database) == 0
        await asyncio.to_thread(postgresql.execute, postgresql_url, "ALTER ROLE reader PASSWORD 'second'")
        await database.engine.dispose()
        with pytest.raises(DatabaseUnavailableError, match="password authentication failed"):
            await count_users(database)
        file.write_text("second")
        assert await count_users(database) == 0
        await database.engine.dispose()
        file.unlink()
        with pytest.raises(DatabaseUnavailableError, match="ALLIN_DATABASE_PASSWORD_FILE"):
            await count_users(database)

    with_database(postgresql_url.set(username="reader", password=None), scenario, password_file=file)


def test_pool_is_measured(url: URL) -> None:
    metrics = DatabaseMetrics()

    async def scenario() -> None:
        database = Database(url, pool_size=3, timeout=DEADLINE, instrument=metrics.instrument)
        assert metrics.pool() == PoolState(idle=0, in_use=0, limit=3)
        async with database.read():
            assert metrics.pool() == PoolState(idle=0, in_use=1, limit=3)
            async with database.begin():
                assert metrics.pool() == PoolState(idle=0, in_use=2, limit=3)
            assert metrics.pool() == PoolState(idle=1, in_use=1, limit=3)
        assert metrics.pool() == PoolState(idle=2, in_use=0, limit=3)
        await database.stop()
        assert metrics.pool() == PoolState(idle=0, in_use=0, limit=3)

    asyncio.run(scenario())


def test_lost_connections_are_not_counted_as_idle(postgresql: PostgreSQL, postgresql_url: URL) -> None:
    metrics = DatabaseMetrics()

    async def scenario() -> None:
        database = Database(postgresql_url, pool_size=3, timeout=DEADLINE, instrument=metrics.instrument)
        async with database.read(), database.read():
            pass
        await asyncio.to_thread(postgresql.stop)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError):
                await count_users(database)
        assert metrics.pool() == PoolState(idle=0, in_use=0, limit=3)
        await asyncio.to_thread(postgresql.start)
        await count_users(database)
        assert metrics.pool() == PoolState(idle=1, in_use=0, limit=3)
        await database.stop()

    asyncio.run(scenario())
