"""Accounts of social platforms that users have connected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, delete, select, update
from sqlalchemy.exc import IntegrityError

from allin_backend.database.engine import Database
from allin_backend.database.tables import accounts
from allin_backend.database.upsert import insert_or_update
from allin_backend.database.users import UnknownUserError

ACTIVE = "active"
NEEDS_RECONNECT = "needs_reconnect"


class Account(msgspec.Struct, frozen=True):
    """A connected account, without its tokens. ``scopes`` are separated by spaces."""

    id: int
    user_id: int
    platform: str
    platform_user_id: str
    handle: str
    scopes: str
    token_expires_at: datetime | None
    state: str
    created_at: datetime


class AccountSecrets(msgspec.Struct, frozen=True):
    """What it takes to act for an account. The tokens are encrypted."""

    account_id: int
    user_id: int
    platform: str
    platform_user_id: str
    access_token: str
    refresh_token: str | None
    token_expires_at: datetime | None
    state: str


_COLUMNS = tuple(accounts.c[name] for name in Account.__struct_fields__)
_SECRETS = (accounts.c.id.label("account_id"), *(accounts.c[name] for name in AccountSecrets.__struct_fields__[1:]))


class AccountStore:
    """Reads and writes accounts. It is given encrypted tokens only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def connect(
        self,
        user_id: int,
        platform: str,
        platform_user_id: str,
        *,
        handle: str,
        scopes: str,
        access_token: str,
        refresh_token: str | None,
        token_expires_at: datetime | None,
    ) -> Account:
        """Add an account, or give the one that this user already has there its new tokens. It is active then.

        Raises:
            UnknownUserError: there is no such user.
        """
        key = {"user_id": user_id, "platform": platform, "platform_user_id": platform_user_id}
        new = {
            "handle": handle,
            "scopes": scopes,
            "access_token": access_token,
            "refresh_token": refresh_token,
            "token_expires_at": token_expires_at,
            "state": ACTIVE,
        }
        statement = insert_or_update(self._database.dialect, accounts, [key | new], list(key), list(new))
        try:
            async with self._database.begin() as connection:
                return _account((await connection.execute(statement.returning(*_COLUMNS))).one())
        except IntegrityError:
            raise UnknownUserError(user_id) from None

    async def list(self, user_id: int) -> Sequence[Account]:
        """The user's accounts, oldest first."""
        query = select(*_COLUMNS).where(accounts.c.user_id == user_id).order_by(accounts.c.id)
        async with self._database.read() as connection:
            return [_account(row) for row in await connection.execute(query)]

    async def get(self, account_id: int, user_id: int) -> Account | None:
        """The user's account with this id, if there is one."""
        query = select(*_COLUMNS).where(accounts.c.id == account_id, accounts.c.user_id == user_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _account(row)

    async def secrets(self, account_id: int) -> AccountSecrets | None:
        """The account's tokens, if there is such an account."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(*_SECRETS).where(accounts.c.id == account_id))).one_or_none()
        return None if row is None else _secrets(row)

    async def update_tokens(
        self,
        account_id: int,
        *,
        access_token: str,
        refresh_token: str | None,
        token_expires_at: datetime | None,
        replaces: str | None = None,
    ) -> bool:
        """Keep new tokens. Without a ``refresh_token`` the present one stays: some platforms send it only once.

        With ``replaces``, only if that is still the access token: what another process got meanwhile is newer.

        Returns:
            Whether the tokens were kept.
        """
        values: dict[str, object] = {
            "access_token": access_token,
            "token_expires_at": token_expires_at,
            "state": ACTIVE,
        }
        if refresh_token is not None:
            values["refresh_token"] = refresh_token
        return await self._update(account_id, replaces, values)

    async def mark_needs_reconnect(self, account_id: int, *, access_token: str | None = None) -> bool:
        """Remember that the platform no longer takes the account's tokens.

        With ``access_token``, only if the account still has that one: a refused old token says nothing about the new
        one that another process got meanwhile.

        Returns:
            Whether the account was marked.
        """
        return await self._update(account_id, access_token, {"state": NEEDS_RECONNECT})

    async def delete(self, account_id: int, user_id: int) -> bool:
        """Remove the user's account with its publications; false if there was none."""
        statement = delete(accounts).where(accounts.c.id == account_id, accounts.c.user_id == user_id)
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def expiring(self, before: datetime, limit: int) -> Sequence[AccountSecrets]:
        """At most ``limit`` active accounts, earliest first, whose token ends before then and can be refreshed."""
        query = (
            select(*_SECRETS)
            .where(
                accounts.c.state == ACTIVE,
                accounts.c.token_expires_at < before,
                accounts.c.refresh_token.is_not(None),
            )
            .order_by(accounts.c.token_expires_at, accounts.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [_secrets(row) for row in await connection.execute(query)]

    async def _update(self, account_id: int, access_token: str | None, values: dict[str, object]) -> bool:
        which: list[ColumnElement[bool]] = [accounts.c.id == account_id]
        if access_token is not None:
            which.append(accounts.c.access_token == access_token)
        async with self._database.begin() as connection:
            return (await connection.execute(update(accounts).where(*which).values(**values))).rowcount > 0


def _account(row: Row[*tuple[Any, ...]]) -> Account:
    return Account(**row._mapping)


def _secrets(row: Row[*tuple[Any, ...]]) -> AccountSecrets:
    return AccountSecrets(**row._mapping)
