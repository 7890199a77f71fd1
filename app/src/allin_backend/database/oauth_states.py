"""Authorizations that have begun: people who are at a social platform's page just now."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError

from allin_backend.database.engine import Database
from allin_backend.database.tables import oauth_states
from allin_backend.database.users import UnknownUserError


class OAuthState(msgspec.Struct, frozen=True):
    """What must be remembered until the person comes back. ``code_verifier`` is encrypted."""

    platform: str
    code_verifier: str
    created_at: datetime


class OAuthStateStore:
    """Reads and writes authorizations. It is given digests of the states, never the states."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, state_hash: str, user_id: int, platform: str, code_verifier: str, expires_at: datetime
    ) -> None:
        """Add an authorization.

        Raises:
            UnknownUserError: there is no such user.
        """
        new = insert(oauth_states).values(
            state_hash=state_hash,
            user_id=user_id,
            platform=platform,
            code_verifier=code_verifier,
            expires_at=expires_at,
        )
        try:
            async with self._database.begin() as connection:
                await connection.execute(new)
        except IntegrityError:
            raise UnknownUserError(user_id) from None

    async def take(self, state_hash: str, user_id: int, now: datetime) -> OAuthState | None:
        """Remove the user's authorization and return it; ``None`` if there is none or it has expired at ``now``.

        Of several callers with the same state only one gets it.
        """
        taken = (
            delete(oauth_states)
            .where(oauth_states.c.state_hash == state_hash, oauth_states.c.user_id == user_id)
            .returning(
                oauth_states.c.platform,
                oauth_states.c.code_verifier,
                oauth_states.c.created_at,
                oauth_states.c.expires_at,
            )
        )
        async with self._database.begin() as connection:
            row = (await connection.execute(taken)).one_or_none()
        if row is None or row.expires_at <= now:
            return None
        return OAuthState(platform=row.platform, code_verifier=row.code_verifier, created_at=row.created_at)

    async def delete_expired(self, now: datetime) -> int:
        """Remove authorizations that nobody came back to in time. Returns how many."""
        async with self._database.begin() as connection:
            return (await connection.execute(delete(oauth_states).where(oauth_states.c.expires_at <= now))).rowcount
