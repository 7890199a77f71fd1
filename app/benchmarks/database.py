"""What the database hook adds to a statement: a row read by its key from SQLite in memory, through SQLAlchemy's Core.

The quicker the statement, the better the hook can be seen; the hook itself is the same for every database.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy import Column, Connection, Integer, MetaData, Select, Table, bindparam, create_engine, event, select
from sqlalchemy.engine import Engine

from allin_backend.metrics.contract import DB_BUCKETS
from allin_backend.metrics.database import DatabaseMetrics
from benchmarks.measuring import Batch, Rounds, WrongCountError, pinned, repeated, run_rounds
from benchmarks.report import Row, at_most, compared

LIMIT_MICROSECONDS: Final = 2.0
BARE: Final = "no hook"
OURS: Final = "ours"
EMPTY_LISTENERS: Final = "before/after_cursor_execute listeners that do nothing"
USUAL: Final = "before/after_cursor_execute with prometheus_client's labels()"
_SUBJECT: Final = "database statement"
_STATEMENTS: Final = 100

Counted = Callable[[], float]
"""How many statements a hook has counted so far."""


def _no_hook(_engine: Engine) -> None:
    return


def _ours(engine: Engine) -> Counted:
    metrics = DatabaseMetrics()
    metrics.instrument(engine)
    return lambda: sum(sum(cell.counts) for cell in metrics.cells)


def _empty_listeners(engine: Engine) -> None:
    def nothing(*_arguments: object) -> None:
        return

    event.listen(engine, "before_cursor_execute", nothing)
    event.listen(engine, "after_cursor_execute", nothing)


def _usual(engine: Engine) -> Counted:
    registry = CollectorRegistry()
    labels = ("operation", "table")
    duration = Histogram("db_seconds", "Duration.", labels, buckets=DB_BUCKETS, registry=registry)
    queries = Counter("db_queries", "Statements.", (*labels, "status"), registry=registry)

    def before(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        context.started = perf_counter()

    def after(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        # Finding out the operation and the table is left out, in this one's favour.
        duration.labels("select", "users").observe(perf_counter() - context.started)
        queries.labels("select", "users", "success").inc()

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    return lambda: registry.get_sample_value("db_seconds_count", {"operation": "select", "table": "users"}) or 0.0


_HOOKS: Final[dict[str, Callable[[Engine], Counted | None]]] = {
    BARE: _no_hook,
    OURS: _ours,
    EMPTY_LISTENERS: _empty_listeners,
    USUAL: _usual,
}


def _read(connection: Connection, statement: Select[tuple[int]]) -> None:
    connection.execute(statement, {"wanted": 1}).scalar_one()


def measure(*, rounds: int) -> Rounds:
    """Compare the hooks, each on an engine of its own.

    Raises:
        WrongCountError: a hook missed statements.
    """
    metadata = MetaData()
    users = Table("users", metadata, Column("id", Integer, primary_key=True))
    statement = select(users.c.id).where(users.c.id == bindparam("wanted"))
    batches: dict[str, Batch] = {}
    counts: dict[str, Counted] = {}
    connections: list[Connection] = []
    try:
        for name, attach in _HOOKS.items():
            engine = create_engine("sqlite://")
            counted = attach(engine)
            connection = engine.connect()
            connections.append(connection)
            metadata.create_all(connection)
            connection.execute(users.insert(), {"id": 1})
            batches[name] = repeated(partial(_read, connection, statement), _STATEMENTS)
            batches[name]()  # compiles the statement
            if counted is not None:
                counts[name] = counted
        before = {name: counted() for name, counted in counts.items()}
        with pinned():
            times = run_rounds(batches, rounds=rounds, operations=_STATEMENTS)
        for name, counted in counts.items():
            if counted() - before[name] != rounds * _STATEMENTS:
                raise WrongCountError(f"{name} did not count every statement")
    finally:
        for connection in connections:
            connection.close()
    return times


def rows(*, quick: bool) -> list[Row]:
    """The table's part for the database."""
    times = measure(rounds=40 if quick else 240)
    ours = times.added(OURS, BARE)
    found = [
        at_most(
            _SUBJECT, "our hook adds", ours.median, LIMIT_MICROSECONDS, "us", f" ({ours.low:.2f} to {ours.high:.2f})"
        ),
        compared(_SUBJECT, "no hook, in all", times.total(BARE), "us"),
    ]
    for name in (EMPTY_LISTENERS, USUAL):
        note = f", {times.ratio(name, OURS, BARE):.1f}x ours"
        found.append(compared(_SUBJECT, f"{name} add", times.added(name, BARE), "us", note))
    return found
