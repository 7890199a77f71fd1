"""Connecting accounts: authorization, its end, refreshing, revoking. Tokens are stored encrypted only."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from datetime import datetime, timedelta
from typing import Final

import msgspec

from allin_backend.database.accounts import ACTIVE, NEEDS_RECONNECT, Account, AccountSecrets, AccountStore
from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.database.oauth_states import OAuthStateStore
from allin_backend.metrics.contract import ERROR, NO_PLATFORM, SUCCESS
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Identity, Platform
from allin_backend.platforms.client import PlatformClient
from allin_backend.platforms.errors import PlatformError, RejectedError, UnauthorizedError
from allin_backend.platforms.registry import Platforms
from allin_backend.platforms.tokens import TokenClient, Tokens
from allin_backend.security.encryption import DecryptionError, TokenCipher
from allin_backend.security.tokens import digest

AUTHORIZATION_SECONDS: Final = 600
"""How long a person may take on the platform's page."""
DENIED: Final = "denied"
# Another process that used the same refresh token up may need a moment to store what it got.
_LOOK_AGAIN_SECONDS: Final = (0.1, 0.3, 0.6, 1.0, 2.0)
_STORE_AGAIN_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)
_LONGEST_COLUMN: Final = 255

_log: Final = logging.getLogger(__name__)


class Authorization(msgspec.Struct, frozen=True):
    """An authorization that has begun: where to send the person, and what they will come back with."""

    url: str
    state: str
    expires_at: datetime


class AuthorizationError(Exception):
    """An account was not connected. The message may be shown: it holds none of the platform's words."""


class InvalidStateError(AuthorizationError):
    """The authorization is not known, not this user's, not for this platform, was used or took too long."""

    def __init__(self) -> None:
        super().__init__("This authorization is not known or has expired; begin again.")


class DeniedError(AuthorizationError):
    """The person said no."""

    def __init__(self, platform: str) -> None:
        super().__init__(f"The permission was not given on {platform}.")


class RefusedError(AuthorizationError):
    """The platform did not connect the account."""

    def __init__(self, platform: str) -> None:
        super().__init__(f"{platform} did not connect the account; begin again.")


class OAuthService:
    """Everything that gives, renews and takes back an account's tokens. Counts each operation by its outcome."""

    def __init__(
        self,
        platforms: Platforms,
        client: PlatformClient,
        states: OAuthStateStore,
        accounts: AccountStore,
        cipher: TokenCipher,
        metrics: WorkMetrics,
        *,
        redirect_url: str,
    ) -> None:
        self._platforms: Final = platforms
        self._client: Final = client
        self._tokens: Final = TokenClient(client, redirect_url)
        self._states: Final = states
        self._accounts: Final = accounts
        self._cipher: Final = cipher
        self._metrics: Final = metrics
        self._refreshes: Final[dict[int, asyncio.Task[AccountSecrets]]] = {}

    async def authorize(self, user_id: int, platform_name: str) -> Authorization:
        """Begin to connect an account.

        Raises:
            UnknownPlatformError: this platform is not set up here.
            UnknownUserError: there is no such user.
        """
        platform = self._platforms.named(platform_name)
        status = ERROR
        try:
            state = secrets.token_urlsafe(32)
            code_verifier = secrets.token_urlsafe(48)
            expires_at = self._client.clock.now() + timedelta(seconds=AUTHORIZATION_SECONDS)
            await self._states.create(
                digest(state), user_id, platform.name, self._cipher.encrypt(code_verifier), expires_at
            )
            url = self._tokens.authorize_url(platform, state, code_verifier)
            status = SUCCESS
            return Authorization(url, state, expires_at)
        finally:
            self._metrics.oauth_operations.inc(platform.name, "authorize", status)

    async def callback(
        self, user_id: int, platform_name: str, state: str, *, code: str | None = None, error: str | None = None
    ) -> Account:
        """Connect the account of a person who came back from the platform's page, with a ``code`` or an ``error``.

        Raises:
            UnknownPlatformError: this platform is not set up here.
            AuthorizationError: the account is not connected; the person may begin again.
            PlatformError: the platform cannot be reached or is not itself; the person may begin again later.
            DecryptionError: the authorization was begun with a key that is gone.
        """
        platform = self._platforms.named(platform_name)
        status = ERROR
        try:
            account = await self._connect(user_id, platform, state, code, error)
            status = SUCCESS
        except DeniedError:
            status = DENIED
            raise
        else:
            return account
        finally:
            self._metrics.oauth_operations.inc(platform.name, "callback", status)

    async def _connect(
        self, user_id: int, platform: Platform, state: str, code: str | None, error: str | None
    ) -> Account:
        begun = await self._states.take(digest(state), user_id, self._client.clock.now())
        if begun is None or begun.platform != platform.name:
            raise InvalidStateError
        if error in platform.denials:
            raise DeniedError(platform.name)
        if error or not code:
            # Whoever has the state can send any text here.
            known = error if error and re.fullmatch(r"[a-z_]{1,64}", error) else "no code"
            _log.warning("a platform sent a person back", extra={"fields": {"platform": platform.name, "error": known}})
            raise RefusedError(platform.name)
        code_verifier = self._cipher.decrypt(begun.code_verifier)
        try:
            tokens = await self._tokens.exchange(platform, code, code_verifier)
            identity = await self._identity(platform, tokens.access_token)
        except (UnauthorizedError, RejectedError) as refusal:
            _log.warning(
                "a platform did not connect an account",
                extra={"fields": {"platform": platform.name, "error": refusal.error, "detail": refusal.detail}},
            )
            raise RefusedError(platform.name) from None
        granted = platform.scopes if not tokens.scope else tokens.scope.replace(",", " ").split()
        return await self._accounts.connect(
            user_id,
            platform.name,
            identity.platform_user_id,
            handle=identity.handle[:_LONGEST_COLUMN],
            scopes=" ".join(granted),
            access_token=self._cipher.encrypt(tokens.access_token),
            refresh_token=None if tokens.refresh_token is None else self._cipher.encrypt(tokens.refresh_token),
            token_expires_at=self._end(tokens),
        )

    async def _identity(self, platform: Platform, access_token: str) -> Identity:
        identity = await platform.identity(self._client.sender(platform, access_token))
        if not 0 < len(identity.platform_user_id) <= _LONGEST_COLUMN:
            raise RejectedError(platform.name, "the account has no usable id")
        return identity

    def _end(self, tokens: Tokens) -> datetime | None:
        lifetime = tokens.lifetime
        return None if lifetime is None else self._client.clock.now() + timedelta(seconds=lifetime)

    async def refresh(self, account_id: int, *, instead_of: str | None = None) -> AccountSecrets:
        """New tokens, or those that somebody else got meanwhile if they are not the (encrypted) ones ``instead_of``.

        One refresh at a time for each account: others wait for it. It goes on when its caller is cancelled, because a
        refresh token that is used up and not replaced would cost the person a new authorization. An account whose
        refresh the platform refuses must be connected again, and is marked so.

        Raises:
            UnknownPlatformError: the account's platform is not set up here any more.
            UnauthorizedError: the account must be connected again, or is gone.
            PlatformError: there are no new tokens now.
            DecryptionError: the refresh token was encrypted with a key that is gone.
        """
        task = self._refreshes.get(account_id)
        if task is None:
            task = asyncio.create_task(self._refresh(account_id, instead_of), name=f"refresh account {account_id}")
            self._refreshes[account_id] = task
            task.add_done_callback(lambda done: self._forget(account_id, done))
        return await asyncio.shield(task)

    def _forget(self, account_id: int, task: asyncio.Task[AccountSecrets]) -> None:
        del self._refreshes[account_id]
        if not task.cancelled():
            task.exception()  # taken note of: all who waited may be gone

    async def _refresh(self, account_id: int, instead_of: str | None) -> AccountSecrets:
        current = await self._accounts.secrets(account_id)
        if current is None:
            raise UnauthorizedError(NO_PLATFORM, "the account is gone")
        platform = self._platforms.named(current.platform)
        if current.state == NEEDS_RECONNECT:
            raise UnauthorizedError(platform.name, "the account must be connected again")
        if instead_of is not None and current.access_token != instead_of:
            return current
        if current.refresh_token is None:
            return await self._give_up(current, UnauthorizedError(platform.name, "there is no refresh token"))
        status: str | None = ERROR
        try:
            try:
                tokens = await self._tokens.refresh(platform, self._cipher.decrypt(current.refresh_token))
            except UnauthorizedError as error:
                if (newer := await self._newer(current)) is not None:
                    status = None  # the other process has counted its success
                    return newer
                return await self._give_up(current, error)
            renewed = await self._store(current, tokens)
            status = SUCCESS
            return renewed
        finally:
            if status is not None:
                self._metrics.oauth_operations.inc(platform.name, "refresh", status)

    async def _newer(self, current: AccountSecrets) -> AccountSecrets | None:
        """Tokens that another process stored after ``current``, if it did."""
        for wait in (0.0, *_LOOK_AGAIN_SECONDS):
            await self._client.clock.sleep(wait)
            found = await self._accounts.secrets(current.account_id)
            if found is None:
                return None
            if found.access_token != current.access_token:
                return found
        return None

    async def _give_up(self, current: AccountSecrets, error: UnauthorizedError) -> AccountSecrets:
        """Mark the account, unless it has other tokens by now, which are returned then.

        Raises:
            UnauthorizedError: ``error``.
        """
        if await self._accounts.mark_needs_reconnect(current.account_id, access_token=current.access_token):
            fields = {"platform": current.platform, "account_id": current.account_id, "detail": error.detail}
            _log.warning("an account must be connected again", extra={"fields": fields})
        else:
            found = await self._accounts.secrets(current.account_id)
            if found is not None and found.state == ACTIVE:
                return found
        raise error

    async def _store(self, current: AccountSecrets, tokens: Tokens) -> AccountSecrets:
        access_token = self._cipher.encrypt(tokens.access_token)
        refresh_token = None if tokens.refresh_token is None else self._cipher.encrypt(tokens.refresh_token)
        token_expires_at = self._end(tokens)
        # The platform may have forgotten the old tokens: a database that is away for a moment must not cost them.
        for wait in (*_STORE_AGAIN_SECONDS, None):
            try:
                kept = await self._accounts.update_tokens(
                    current.account_id,
                    access_token=access_token,
                    refresh_token=refresh_token,
                    token_expires_at=token_expires_at,
                    replaces=current.access_token,
                )
                break
            except DatabaseUnavailableError:
                if wait is None:
                    raise
                await self._client.clock.sleep(wait)
        # Not kept: another process was quicker, or an attempt that seemed to fail did not.
        renewed = None if kept else await self._accounts.secrets(current.account_id)
        if not kept and renewed is None:
            raise UnauthorizedError(current.platform, "the account is gone")
        return renewed or msgspec.structs.replace(
            current,
            access_token=access_token,
            refresh_token=refresh_token or current.refresh_token,
            token_expires_at=token_expires_at,
            state=ACTIVE,
        )

    async def revoke(self, account: AccountSecrets) -> bool:
        """Have the platform forget an account's tokens, as far as it offers that. Whether it did; never raises
        because it did not: the account can be deleted all the same.
        """
        platform = self._platforms.get(account.platform)
        if platform is None or (platform.addresses.revoke is None and platform.withdrawal() is None):
            return False
        status = ERROR
        try:
            await self._revoke(platform, account)
            status = SUCCESS
        except UnauthorizedError:
            status = SUCCESS  # the token had ended already
        except (PlatformError, DecryptionError) as error:
            fields = {"platform": platform.name, "account_id": account.account_id, "error": str(error)}
            _log.warning("a platform did not revoke a token", extra={"fields": fields})
        finally:
            self._metrics.oauth_operations.inc(platform.name, "revoke", status)
        return status == SUCCESS

    async def _revoke(self, platform: Platform, account: AccountSecrets) -> None:
        withdrawal = platform.withdrawal()
        if platform.addresses.revoke is not None:
            if platform.revokes == "refresh_token" and account.refresh_token is not None:
                kind, encrypted = "refresh_token", account.refresh_token
            else:
                kind, encrypted = "access_token", account.access_token
            await self._tokens.revoke(platform, platform.addresses.revoke, self._cipher.decrypt(encrypted), kind)
        elif withdrawal is not None:
            await self._client.sender(platform, self._cipher.decrypt(account.access_token))(withdrawal)

    async def close(self) -> None:
        """Wait for refreshes that are under way; they end within the time-outs."""
        await asyncio.gather(*self._refreshes.values(), return_exceptions=True)
