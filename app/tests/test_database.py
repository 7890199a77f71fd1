"""Schema and connection."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from allin_backend.database import schema
from allin_backend.database.engine import Database, DatabaseUnavailableError
from support import make_settings


def database(directory: Path, **variables: str) -> Database:
    settings = make_settings(directory, **variables)
    return Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        timeout=settings.database_timeout_seconds,
        instrument=lambda _engine: None,
    )


def content(directory: Path) -> list[str]:
    connection = sqlite3.connect(directory / "test.db")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def start_and_stop(directory: Path) -> None:
    async def scenario() -> None:
        target = database(directory)
        await target.start()
        await target.check(5)
        await target.stop()

    asyncio.run(scenario())


def test_second_start_changes_nothing(tmp_path: Path) -> None:
    start_and_stop(tmp_path)
    before = content(tmp_path)
    start_and_stop(tmp_path)

    assert content(tmp_path) == before
    assert any("CREATE TABLE posts" in line for line in before)


def test_processes_that_start_together_do_not_disturb_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        targets = [database(tmp_path) for _ in range(8)]
        await asyncio.gather(*(target.start() for target in targets))
        for target in targets:
            await target.stop()

    asyncio.run(scenario())

    assert len([line for line in content(tmp_path) if line.startswith('INSERT INTO "schema_version"')]) == 1


def test_interrupted_step_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(connection: object) -> None:
        schema._create_users_and_posts(connection)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(schema, "STEPS", (breaks,))
    with pytest.raises(KeyboardInterrupt):
        start_and_stop(tmp_path)
    assert not any("CREATE TABLE" in line for line in content(tmp_path))
    monkeypatch.undo()

    start_and_stop(tmp_path)


def test_only_missing_steps_are_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_and_stop(tmp_path)

    def second(connection: object) -> None:
        connection.execute(text("CREATE TABLE extra (id INTEGER)"))  # type: ignore[attr-defined]

    def first(connection: object) -> None:
        raise AssertionError("applied twice")

    monkeypatch.setattr(schema, "STEPS", (first, second))
    monkeypatch.setattr(schema, "CURRENT_VERSION", 2)
    start_and_stop(tmp_path)

    assert any("CREATE TABLE extra" in line for line in content(tmp_path))


def test_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    start_and_stop(tmp_path)
    with sqlite3.connect(tmp_path / "test.db") as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, '2026-01-01')")
    connection.close()

    with pytest.raises(schema.SchemaError, match="99"):
        start_and_stop(tmp_path)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"missing/test\.db.*ALLIN_DATABASE_URL"):
        start_and_stop(tmp_path / "missing")


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_text("this is no database " * 100)

    with pytest.raises(DatabaseUnavailableError, match="not a database"):
        start_and_stop(tmp_path)


def test_sqlite_is_set_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        target = database(tmp_path, ALLIN_DATABASE_TIMEOUT_SECONDS="3")
        await target.start()
        async with target.engine.connect() as connection:
            for pragma, expected in [("foreign_keys", 1), ("journal_mode", "wal"), ("busy_timeout", 3000)]:
                assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar() == expected
        await target.stop()

    asyncio.run(scenario())
