"""Every statement is counted once, under its operation, table and outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from allin_backend.database.engine import Database
from allin_backend.database.tables import users
from allin_backend.metrics import contract
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.database import DatabaseMetrics, classify
from support import make_settings, value


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT users.id FROM users WHERE users.id = ?", ("select", "users")),
        ("select * from posts", ("select", "posts")),
        ('SELECT "from" FROM "users"', ("select", "users")),
        ("SELECT * FROM public.users", ("select", "users")),
        ('SELECT * FROM "public"."users" AS u', ("select", "users")),
        ("SELECT * FROM `posts`", ("select", "posts")),
        ("SELECT max(schema_version.version) FROM schema_version", ("select", "schema_version")),
        ("SELECT (SELECT count(*) FROM posts) AS n FROM users", ("select", "users")),
        ("SELECT 'x FROM posts' FROM users", ("select", "users")),
        ("SELECT 'it''s (' FROM users", ("select", "users")),
        ("-- FROM posts\nSELECT 1 /* FROM posts */ FROM users", ("select", "users")),
        ("SELECT extract(year FROM created_at) FROM posts", ("select", "posts")),
        ("SELECT * FROM (SELECT * FROM users) AS x", ("select", "other")),
        ("SELECT * FROM customers", ("select", "other")),
        ("SELECT 1", ("select", "none")),
        ("INSERT INTO users (email) VALUES (?) RETURNING id", ("insert", "users")),
        ("INSERT OR IGNORE INTO posts (text) VALUES (?)", ("insert", "posts")),
        ("INSERT INTO posts SELECT * FROM users", ("insert", "posts")),
        ("UPDATE users SET name = ?", ("update", "users")),
        ("UPDATE OR REPLACE users SET name = ?", ("update", "users")),
        ("UPDATE ONLY public.posts SET text = ?", ("update", "posts")),
        ("DELETE FROM posts WHERE id = ?", ("delete", "posts")),
        ("WITH old AS (SELECT id FROM users) DELETE FROM posts WHERE id IN (SELECT id FROM old)", ("delete", "posts")),
        ("WITH RECURSIVE t(n) AS (SELECT 1) SELECT n FROM posts", ("select", "posts")),
        ("PRAGMA foreign_keys = ON", ("other", "none")),
        ("CREATE TABLE users (id INTEGER)", ("other", "none")),
        ("BEGIN IMMEDIATE", ("other", "none")),
        ("", ("other", "none")),
        ("SELECT * FROM", ("select", "none")),
        ("((( FROM", ("other", "none")),
    ],
)
def test_classification(statement: str, expected: tuple[str, str]) -> None:
    assert classify(statement) == expected


def test_any_text_lands_in_a_cell_and_memory_is_bounded() -> None:
    metrics = DatabaseMetrics()
    for number in range(3000):
        assert metrics.cell(f"SELECT name_{number} FROM users").labels == ("select", "users")  # noqa: S608

    assert len(metrics._by_statement) == 1000


@asynccontextmanager
async def measured(directory: Path, registry: CollectorRegistry) -> AsyncIterator[Database]:
    metrics = BackendMetrics(registry, version="0", release="0")
    settings = make_settings(directory)
    database = Database(settings.database_url, pool_size=2, timeout=5, instrument=metrics.database.instrument)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


def counted(registry: CollectorRegistry, operation: str, table: str) -> tuple[float | None, float | None, float | None]:
    """Successes, errors, and observations in the histogram."""
    labels = {"operation": operation, "table": table}
    return (
        value(registry, "allin_db_queries_total", **labels, status="success"),
        value(registry, "allin_db_queries_total", **labels, status="error"),
        value(registry, "allin_db_query_duration_seconds_count", **labels),
    )


def test_success_error_and_many(tmp_path: Path, registry: CollectorRegistry) -> None:
    async def scenario() -> None:
        async with measured(tmp_path, registry) as database:
            async with database.engine.begin() as connection:
                await connection.execute(
                    insert(users), [{"email": f"{n}@example.com", "name": "x"} for n in range(3)]
                )  # executemany
                await connection.execute(select(users.c.id))
                await connection.execute(update(users).values(name="y"))
                without = await connection.execution_options(no_parameters=True)
                await without.exec_driver_sql("DELETE FROM users WHERE email LIKE '0%'")
            with pytest.raises(OperationalError):
                async with database.engine.connect() as connection:
                    await connection.execute(text("SELECT nothing FROM users"))

    asyncio.run(scenario())

    assert counted(registry, "insert", "users") == (1, 0, 1)
    assert counted(registry, "select", "users") == (1, 1, 2)
    assert counted(registry, "update", "users") == (1, 0, 1)
    assert counted(registry, "delete", "users") == (1, 0, 1)


def test_every_way_to_execute_is_counted_once(tmp_path: Path, registry: CollectorRegistry) -> None:
    async def scenario() -> None:
        async with measured(tmp_path, registry) as database, database.engine.begin() as connection:
            # insertmanyvalues, a stream, and a raw executemany
            await connection.execute(
                insert(users).returning(users.c.id), [{"email": f"{n}@example.com", "name": "x"} for n in range(3)]
            )
            async for _ in await connection.stream(select(users.c.id)):
                pass
            await connection.exec_driver_sql("UPDATE users SET name = ? WHERE id = ?", [("a", 1), ("b", 2)])
            assert (await connection.execute(select(func.count()).select_from(users))).scalar() == 3

    asyncio.run(scenario())

    assert counted(registry, "insert", "users") == (1, 0, 1)
    assert counted(registry, "select", "users") == (2, 0, 2)
    assert counted(registry, "update", "users") == (1, 0, 1)


def test_cancelled_statement_is_an_error(tmp_path: Path, registry: CollectorRegistry) -> None:
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000000)"
        " SELECT count(*) FROM users, n"
    )

    async def scenario() -> None:
        async with measured(tmp_path, registry) as database:
            async with database.engine.begin() as connection:
                await connection.execute(insert(users).values(email="a@example.com", name="x"))
            async with database.engine.connect() as connection:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await connection.exec_driver_sql(slow)

    asyncio.run(scenario())

    assert counted(registry, "select", "users") == (0, 1, 1)
    seconds = value(registry, "allin_db_query_duration_seconds_sum", operation="select", table="users")
    assert seconds is not None
    assert seconds >= 0.04  # the timeout began a little before the statement


def test_cells_cover_every_classification() -> None:
    labels = {cell.labels for cell in DatabaseMetrics().cells}

    assert labels >= {(o, t) for o in contract.DB_OPERATIONS if o != "other" for t in contract.DB_TABLES}
    assert ("other", "none") in labels
