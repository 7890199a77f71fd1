"""The tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time. SQLite keeps no zone, so it is stored in UTC and given its zone back when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


# Named constraints: a later migration can then drop or change them.
metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only where the type is INTEGER, which holds 64 bits there.
_Id: Final = BigInteger().with_variant(Integer(), "sqlite")

alembic_version: Final = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

# Read by release 0.1.0, which must be able to serve after a rollback. A later release drops it.
schema_version: Final = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", UtcDateTime, nullable=False, default=now),
)

users: Final = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False, default=now),
    Column("password_hash", String(255)),  # none: made by release 0.1.0, and cannot sign in
    Column("last_seen_at", UtcDateTime, index=True),
    sqlite_autoincrement=True,  # the id of a deleted user must not come back as another one
)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False, default=now),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("platform", String(32), nullable=False),
    Column("platform_user_id", String(255), nullable=False),
    Column("handle", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("access_token", Text, nullable=False),
    Column("refresh_token", Text),
    Column("token_expires_at", UtcDateTime),
    Column("state", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False, default=now),
    UniqueConstraint("user_id", "platform", "platform_user_id"),
    Index(None, "state", "token_expires_at"),
    sqlite_autoincrement=True,
)

oauth_states: Final = Table(
    "oauth_states",
    metadata,
    Column("state_hash", String(64), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("platform", String(32), nullable=False),
    Column("code_verifier", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, default=now),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

posts: Final = Table(
    "posts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, default=now),
    Index(None, "user_id", "id"),  # a page of one user's posts; the index on user_id alone was release 0.1.0's
    sqlite_autoincrement=True,
)

publications: Final = Table(
    "publications",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("post_id", ForeignKey("posts.id", ondelete="CASCADE"), nullable=False),
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("platform", String(32), nullable=False),
    Column("state", String(32), nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", String(64)),
    Column("leased_until", UtcDateTime),
    Column("idempotency_key", String(32), nullable=False, unique=True),
    Column("platform_post_id", Text),
    Column("platform_url", Text),
    Column("published_at", UtcDateTime),
    Column("failure_reason", String(32)),
    Column("last_error", Text),
    UniqueConstraint("post_id", "account_id"),
    Index(None, "state", "next_attempt_at"),
    sqlite_autoincrement=True,
)
