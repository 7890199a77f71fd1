"""Database statements: which operation on which table, how long, and whether it worked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Literal

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExecutionContext
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from allin_backend.metrics import contract
from allin_backend.metrics.cells import QueryCell

# Each text is taken apart once. Statements are few and parametrised; the bound is for the day they are not.
_REMEMBERED_STATEMENTS: Final = 1000
_TOKEN: Final = re.compile(
    r"""
      --[^\n]* | /\*.*?\*/          # comments
    | '(?:[^']|'')*'                # text
    | "(?P<quoted>(?:[^"]|"")*)"    # quoted names
    | `(?P<backquoted>[^`]*)`
    | (?P<word>\w+)
    | (?P<punctuation>[().])
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATIONS: Final = frozenset(contract.DB_OPERATIONS) - {contract.OTHER}
_TABLES: Final = frozenset(contract.DB_TABLES) - {contract.OTHER, contract.NO_TABLE}
# After which word the table of an operation is named.
_TABLE_FOLLOWS: Final = {"select": "from", "insert": "into", "update": "update", "delete": "from"}


def classify(statement: str) -> tuple[str, str]:
    """The operation and table of an SQL statement, as values of the contract's label sets.

    The outermost statement counts: what a subquery or a common table expression reads is not looked at.
    """
    operation = ""
    table = ""
    depth = 0
    expecting_table = False
    in_with = False
    after_dot = False
    for match in _TOKEN.finditer(statement):
        punctuation = match["punctuation"]
        if punctuation == "(":
            if expecting_table and not table:
                return operation, contract.OTHER  # reads from a subquery
            depth += 1
            continue
        if punctuation == ")":
            depth -= 1
            continue
        if punctuation == ".":
            after_dot = True
            continue
        name = match["word"] or match["quoted"] or match["backquoted"]
        if depth or not name:
            continue
        if table:
            # "schema.table": the last part is the table.
            if not after_dot:
                break
            table, after_dot = name, False
            continue
        word = name.lower() if match["word"] else ""
        if not operation:
            if word == "with":
                in_with = True
            elif word in _OPERATIONS:
                operation = word
                expecting_table = operation == "update"
            elif not in_with:
                return contract.OTHER, contract.NO_TABLE
        elif expecting_table:
            # UPDATE OR IGNORE, UPDATE ONLY: words between the verb and the table.
            if word in ("or", "ignore", "replace", "rollback", "abort", "fail", "only"):
                continue
            table, after_dot = name, False
        elif word == _TABLE_FOLLOWS[operation]:
            expecting_table = True
    if not operation:
        return contract.OTHER, contract.NO_TABLE
    if not table:
        return operation, contract.NO_TABLE
    return operation, table if table in _TABLES else contract.OTHER


@dataclass(frozen=True, slots=True)
class PoolState:
    """Connections of the pool now, and how many there may be."""

    idle: int = 0
    in_use: int = 0
    limit: int = 0


class DatabaseMetrics:
    """The cells of the database families, all of which exist from the start."""

    def __init__(self) -> None:
        self._by_label: dict[tuple[str, str], QueryCell] = {
            labels: QueryCell(contract.DB_BUCKETS, labels)
            for operation in contract.DB_OPERATIONS
            for table in contract.DB_TABLES
            # A statement whose operation is not known is not searched for a table.
            if operation != contract.OTHER or table == contract.NO_TABLE
            for labels in [(operation, table)]
        }
        self.cells: tuple[QueryCell, ...] = tuple(self._by_label.values())
        self._by_statement: dict[str, QueryCell] = {}
        self._engine: Engine | None = None
        self._open = 0

    def cell(self, statement: str) -> QueryCell:
        """The cell in which a statement is counted."""
        cell = self._by_statement.get(statement)
        if cell is None:
            cell = self._by_label[classify(statement)]
            if len(self._by_statement) < _REMEMBERED_STATEMENTS:
                self._by_statement[statement] = cell
        return cell

    def pool(self) -> PoolState:
        """The state of the instrumented engine's pool; all zero before ``instrument``, or for another kind of pool."""
        pool = None if self._engine is None else self._engine.pool  # another one after Engine.dispose()
        if not isinstance(pool, QueuePool):
            return PoolState()
        # The pool keeps places for connections that were lost, and counts them as idle.
        in_use = pool.checkedout()
        return PoolState(max(0, self._open - in_use), in_use, pool.size())

    def instrument(self, engine: Engine) -> None:
        """Measure every statement of an engine (of an async engine: its ``sync_engine``).

        These events replace the cursor call, so one place sees success, error and cancellation; the before/after cursor
        events see no cancellation and cost several times as much.
        """

        def timed(statement: str, execute: Callable[..., None], *arguments: object) -> Literal[True]:
            cell = self.cell(statement)
            started = perf_counter()
            try:
                execute(*arguments)
            except BaseException:  # cancellation too
                cell.errors += 1
                raise
            finally:
                cell.observe(perf_counter() - started)
            return True  # the statement has been run; SQLAlchemy must not run it again

        def do_execute(
            cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext
        ) -> Literal[True]:
            return timed(statement, context.dialect.do_execute, cursor, statement, parameters, context)

        def do_executemany(
            cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext
        ) -> Literal[True]:
            return timed(statement, context.dialect.do_executemany, cursor, statement, parameters, context)

        def do_execute_no_params(cursor: DBAPICursor, statement: str, context: ExecutionContext) -> Literal[True]:
            return timed(statement, context.dialect.do_execute_no_params, cursor, statement, context)

        def opened(_connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            self._open += 1

        def closed(_connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            self._open -= 1

        self._engine = engine
        event.listen(engine, "connect", opened)
        event.listen(engine, "close", closed)
        event.listen(engine, "do_execute", do_execute)
        event.listen(engine, "do_executemany", do_executemany)
        event.listen(engine, "do_execute_no_params", do_execute_no_params)
