"""The schema's history, applied by ``migrate.py`` with Alembic.

Rules: a revision's id is the number after the last one, with four digits. A revision that was released is never
changed. It only adds (tables, columns that may be null, indexes), because the release before it goes on serving while
the new one is deployed, and after a rollback; what nothing uses any more is dropped one release later. So there is no
way back, and none is needed.
"""
