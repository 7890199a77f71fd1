"""People sign in, connect accounts, and schedule posts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add what release 0.1.0 does not know, and leave what it does know as it is."""
    op.add_column("users", sa.Column("password_hash", sa.String(255)))
    op.add_column("users", sa.Column("last_seen_at", _TIME))
    op.create_index("ix_users_last_seen_at", "users", ["last_seen_at"])
    op.create_index("ix_posts_user_id_id", "posts", ["user_id", "id"])
    _sessions()
    _oauth_states()
    _accounts()
    _publications()


def _belongs_to(table: str, column: str, owner: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{owner}.id"], name=f"fk_{table}_{column}_{owner}", ondelete="CASCADE")


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_sessions"),
        _belongs_to("sessions", "user_id", "users"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])


def _oauth_states() -> None:
    op.create_table(
        "oauth_states",
        sa.Column("state_hash", sa.String(64), nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("platform", sa.String(32), nullable=False),
        sa.Column("code_verifier", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("state_hash", name="pk_oauth_states"),
        _belongs_to("oauth_states", "user_id", "users"),
    )
    op.create_index("ix_oauth_states_user_id", "oauth_states", ["user_id"])
    op.create_index("ix_oauth_states_expires_at", "oauth_states", ["expires_at"])


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("platform", sa.String(32), nullable=False),
        sa.Column("platform_user_id", sa.String(255), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("access_token", sa.Text(), nullable=False),
        sa.Column("refresh_token", sa.Text()),
        sa.Column("token_expires_at", _TIME),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint(
            "user_id", "platform", "platform_user_id", name="uq_accounts_user_id_platform_platform_user_id"
        ),
        _belongs_to("accounts", "user_id", "users"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_accounts_state_token_expires_at", "accounts", ["state", "token_expires_at"])


def _publications() -> None:
    op.create_table(
        "publications",
        sa.Column("id", _ID, nullable=False),
        sa.Column("post_id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("platform", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("next_attempt_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("leased_until", _TIME),
        sa.Column("idempotency_key", sa.String(32), nullable=False),
        sa.Column("platform_post_id", sa.Text()),
        sa.Column("platform_url", sa.Text()),
        sa.Column("published_at", _TIME),
        sa.Column("failure_reason", sa.String(32)),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_publications"),
        sa.UniqueConstraint("idempotency_key", name="uq_publications_idempotency_key"),
        sa.UniqueConstraint("post_id", "account_id", name="uq_publications_post_id_account_id"),
        _belongs_to("publications", "post_id", "posts"),
        _belongs_to("publications", "account_id", "accounts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_publications_account_id", "publications", ["account_id"])
    op.create_index("ix_publications_state_next_attempt_at", "publications", ["state", "next_attempt_at"])
