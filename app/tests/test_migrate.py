"""The schema: where it comes from, and that releases on both sides of a change can serve."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from allin_backend.cli import main
from allin_backend.database import migrate as module
from allin_backend.database import revision
from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.database.migrate import Migration
from allin_backend.database.revision import REVISION, SchemaError
from allin_backend.database.tables import metadata
from support import DEADLINE, database_url, running

T = TypeVar("T")
# What release 0.1.0 wrote into a new file.
RELEASE_0_1_0 = """
CREATE TABLE schema_version (
    version INTEGER NOT NULL, applied_at DATETIME NOT NULL, CONSTRAINT pk_schema_version PRIMARY KEY (version)
);
CREATE TABLE users (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, email VARCHAR(254) NOT NULL, name VARCHAR(200) NOT NULL,
    created_at DATETIME NOT NULL, CONSTRAINT uq_users_email UNIQUE (email)
);
CREATE TABLE posts (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL, text TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    CONSTRAINT fk_posts_user_id_users FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX ix_posts_user_id ON posts (user_id);
INSERT INTO schema_version VALUES (1, '2026-11-01 10:00:00.000000');
INSERT INTO users VALUES (3, 'ann@example.com', 'Ann', '2026-11-01 10:00:00.000000');
INSERT INTO posts VALUES (5, 3, 'hello', '2026-11-01 10:00:01.000000');
"""


def migrate(url: URL, timeout: float = DEADLINE) -> Migration:
    return asyncio.run(module.migrate(url, timeout=timeout))


def inspected(url: URL, look: Callable[[Connection], T]) -> T:
    async def scenario() -> T:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            found = await connection.run_sync(look)
        await engine.dispose()
        return found

    return asyncio.run(scenario())


def tables(url: URL) -> set[str]:
    return set(inspected(url, lambda connection: inspect(connection).get_table_names()))


def execute(url: URL, statement: str) -> None:
    async def scenario() -> None:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.exec_driver_sql(statement)
        await engine.dispose()

    asyncio.run(scenario())


@pytest.fixture
def old_file(tmp_path: Path) -> sqlite3.Connection:
    """A database that release 0.1.0 made."""
    connection = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    connection.executescript(f"PRAGMA journal_mode = WAL; {RELEASE_0_1_0}")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def test_revisions_are_numbered_and_this_release_needs_the_last() -> None:
    config = Config()
    config.set_main_option("script_location", "allin_backend.database:migrations")
    scripts = ScriptDirectory.from_config(config)
    found = [(script.revision, script.down_revision) for script in reversed(list(scripts.walk_revisions()))]

    assert found == [(f"{n:04}", f"{n - 1:04}" if n > 1 else None) for n in range(1, len(found) + 1)]
    assert found[-1][0] == REVISION


def test_migrations_make_what_the_code_expects(url: URL) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert inspected(url, differences) == []
    assert tables(url) == set(metadata.tables)


def test_second_run_changes_nothing(empty_url: URL) -> None:
    assert str(migrate(empty_url)) == "schema 0000 -> 0002"
    assert str(migrate(empty_url)) == "schema 0002: nothing to do"


def test_database_of_release_0_1_0_is_taken_over(tmp_path: Path, old_file: sqlite3.Connection) -> None:
    made = old_file.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    release = [(name, _words(sql)) for name, sql in made if sql]

    assert str(migrate(make_url(database_url(tmp_path)))) == "schema 0001 -> 0002"
    assert old_file.execute("SELECT * FROM users").fetchall() == [
        (3, "ann@example.com", "Ann", "2026-11-01 10:00:00.000000", None, None)
    ]
    assert old_file.execute("SELECT * FROM posts").fetchall() == [(5, 3, "hello", "2026-11-01 10:00:01.000000")]
    old_file.close()

    # And the first revision makes the same tables as that release did.
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revision, "REVISION", "0001")
        migrate(make_url(database_url(fresh)))
    connection = sqlite3.connect(fresh / "test.db")
    made = connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    assert [(name, _words(sql)) for name, sql in made if sql and name != "alembic_version"] == release
    connection.close()


def test_release_0_1_0_can_serve_again_after_a_rollback(tmp_path: Path, old_file: sqlite3.Connection) -> None:
    migrate(make_url(database_url(tmp_path)))
    moment = "2026-11-02 10:00:00.000000"

    # Its own statements, as it sent them.
    run = old_file.execute
    assert run("SELECT max(schema_version.version) AS max_1 \nFROM schema_version").fetchall() == [(1,)]
    new_user = "INSERT INTO users (email, name, created_at) VALUES (?, ?, ?) RETURNING id, email, name, created_at"
    assert run(new_user, ("bob@example.com", "Bob", moment)).fetchall() == [(4, "bob@example.com", "Bob", moment)]
    with pytest.raises(sqlite3.IntegrityError):
        run(new_user, ("ann@example.com", "Other", moment))
    new_post = "INSERT INTO posts (user_id, text, created_at) VALUES (?, ?, ?) RETURNING id, user_id, text, created_at"
    assert run(new_post, (4, "first", moment)).fetchall() == [(6, 4, "first", moment)]
    page = (
        "SELECT posts.id, posts.user_id, posts.text, posts.created_at \nFROM posts"
        " \nWHERE posts.id < ? ORDER BY posts.id DESC\n LIMIT ? OFFSET ?"
    )
    assert [row[0] for row in run(page, (9, 5, 0))] == [6, 5]
    assert run("DELETE FROM users WHERE users.id = ?", (4,)).rowcount == 1
    assert [row[0] for row in run(page, (9, 5, 0))] == [5]
    old_file.close()

    assert str(migrate(make_url(database_url(tmp_path)))) == "schema 0002: nothing to do"


def test_processes_that_migrate_at_once_do_it_once(empty_url: URL) -> None:
    env = {"ALLIN_DATABASE_URL": empty_url.render_as_string(hide_password=False)}
    with ExitStack() as stack:
        processes = [stack.enter_context(running("allin_backend", "migrate", env=env)) for _ in range(3)]
        codes = [process.wait() for process in processes]
        output = sorted(line for process in processes for line in process.lines)

    assert codes == [0] * 3, output
    assert output == ["schema 0000 -> 0002", *["schema 0002: nothing to do"] * 2]


def test_interrupted_migration_leaves_nothing(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade

    def breaks(config: Config, target: str) -> None:
        upgrade(config, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", breaks)
    with pytest.raises(KeyboardInterrupt):
        migrate(empty_url)
    assert tables(empty_url) == set()
    monkeypatch.undo()

    assert str(migrate(empty_url)) == "schema 0000 -> 0002"


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ("0003", 0, "schema 0003: nothing to do"),  # the next release's, after a rollback
        ("0004", 1, "schema 0004, this release can use 0002 and the one after it"),
        ("a1b2", 1, "no release of this service"),
    ],
)
def test_schema_of_another_release(
    url: URL,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    found: str,
    code: int,
    said: str,
) -> None:
    execute(url, f"UPDATE alembic_version SET version_num = '{found}'")  # noqa: S608
    monkeypatch.setenv("ALLIN_DATABASE_URL", url.render_as_string(hide_password=False))

    assert main(["migrate"]) == code
    output = capsys.readouterr()
    assert said in (output.err if code else output.out)


def test_schema_version_that_release_0_1_0_does_not_know(tmp_path: Path, old_file: sqlite3.Connection) -> None:
    old_file.execute("INSERT INTO schema_version VALUES (2, '2026-11-01 10:00:00.000000')")
    old_file.close()

    with pytest.raises(SchemaError, match="schema version 2"):
        migrate(make_url(database_url(tmp_path)))


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        ("sqlite+aiosqlite:////nowhere/test.db", "unable to open database file"),
        ("postgresql+asyncpg://allin:secret@127.0.0.1:1/allin", "Connect call failed"),
    ],
)
def test_database_out_of_reach(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, reason: str
) -> None:
    monkeypatch.setenv("ALLIN_DATABASE_URL", database)

    assert main(["migrate"]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert database.replace("secret", "***") in error
    assert len(error.splitlines()) == 1


def test_bad_configuration(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLIN_PORT", "x")

    assert main(["migrate"]) == 2
    assert "ALLIN_PORT" in capsys.readouterr().err


def test_table_that_stays_locked_does_not_hold_up_everybody(
    empty_postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_postgresql_url
    monkeypatch.setattr(revision, "REVISION", "0001")
    migrate(url)
    monkeypatch.undo()

    async def scenario() -> None:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT * FROM users")  # keeps the table as it is until the end
            with pytest.raises(DatabaseUnavailableError, match="lock timeout"):
                await asyncio.wait_for(module.migrate(url, timeout=2), DEADLINE)
        await engine.dispose()

    asyncio.run(scenario())

    assert str(migrate(url)) == "schema 0001 -> 0002"


def test_wait_for_another_migration_ends(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.2)
    take_turn = module._take_turn

    async def scenario() -> None:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(take_turn, DEADLINE)
            with pytest.raises(DatabaseUnavailableError, match=r"lock"):
                await module.migrate(url, timeout=DEADLINE)
        await engine.dispose()

    asyncio.run(scenario())


def _words(sql: str) -> str:
    return re.sub(r"\s+", " ", sql.replace("(", " ( ").replace(")", " ) ").replace(",", " , ")).strip()
