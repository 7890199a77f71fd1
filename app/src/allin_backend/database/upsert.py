"""INSERT ... ON CONFLICT, which SQLAlchemy has only once for each kind of database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_or_update(
    dialect: str,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    key: Sequence[str],
    changed: Sequence[str],
    *,
    where: ColumnElement[bool] | None = None,
) -> sqlite.Insert | postgresql.Insert:
    """A statement that inserts ``rows``. Where one with the same ``key`` exists, it gets the ``changed`` columns.

    Existing rows for which ``where`` does not hold are left alone.
    """
    new = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table).values(list(rows))
    return new.on_conflict_do_update(
        index_elements=list(key), set_={name: new.excluded[name] for name in changed}, where=where
    )
