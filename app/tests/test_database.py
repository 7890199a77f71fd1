"""The connection, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from allin_backend.database.engine import Database, DatabaseUnavailableError
from allin_backend.database.revision import SchemaError
from support import make_settings


def database(directory: Path, **variables: str) -> Database:
    settings = make_settings(directory, **variables)
    return Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        timeout=settings.database_timeout_seconds,
        instrument=lambda _engine: None,
    )


def start_and_stop(target: Database) -> None:
    async def scenario() -> None:
        await target.start()
        await target.stop()

    asyncio.run(scenario())


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"missing/test\.db.*ALLIN_DATABASE_URL"):
        start_and_stop(database(tmp_path, ALLIN_DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path}/missing/test.db"))


def test_missing_file_is_not_created(tmp_path: Path) -> None:
    target = database(tmp_path)
    (tmp_path / "test.db").unlink()

    with pytest.raises(SchemaError, match=r"test\.db: run allin-backend migrate"):
        start_and_stop(target)
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    target = database(tmp_path)
    (tmp_path / "test.db").write_text("this is no database " * 100)

    with pytest.raises(DatabaseUnavailableError, match="not a database"):
        start_and_stop(target)


def test_sqlite_is_set_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        target = database(tmp_path, ALLIN_DATABASE_TIMEOUT_SECONDS="3")
        await target.start()
        async with target.read() as connection:
            for pragma, expected in [("foreign_keys", 1), ("journal_mode", "wal"), ("busy_timeout", 1500)]:
                assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar() == expected
        await target.stop()

    asyncio.run(scenario())
