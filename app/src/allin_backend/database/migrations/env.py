"""Run by Alembic: applies revisions on the connection that ``migrate.py`` opened and will commit."""

from __future__ import annotations

from alembic import context

from allin_backend.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
