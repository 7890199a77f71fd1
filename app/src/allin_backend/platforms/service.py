"""What is done for an account on its platform, with tokens that are renewed when they have ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

from allin_backend.database.accounts import AccountSecrets
from allin_backend.platforms.base import Figures, Platform, Published, Send
from allin_backend.platforms.client import PlatformClient
from allin_backend.platforms.errors import UnauthorizedError
from allin_backend.platforms.oauth import OAuthService
from allin_backend.platforms.registry import Platforms
from allin_backend.security.encryption import TokenCipher

T = TypeVar("T")
_ABOUT_TO_END: Final = timedelta(seconds=30)


class PlatformService:
    """Publishes posts and reads their figures.

    All methods raise:
        UnknownPlatformError: the account's platform is not set up here (any more).
        UnauthorizedError: the platform does not take the account's token, and a new one did not help or was not to be
            had; in the latter case the account is marked.
        PlatformError: it did not work; see its classes.
        DecryptionError: the tokens were encrypted with a key that is gone.
    ``budget`` is the number of seconds that requests may take, those to renew the token not included.
    """

    def __init__(self, platforms: Platforms, client: PlatformClient, oauth: OAuthService, cipher: TokenCipher) -> None:
        self._platforms: Final = platforms
        self._client: Final = client
        self._oauth: Final = oauth
        self._cipher: Final = cipher

    async def publish(
        self, account: AccountSecrets, text: str, idempotency_key: str, *, budget: float | None = None
    ) -> Published:
        """Make a post. With the same ``idempotency_key`` it is made once, on platforms that keep such keys.

        On an error with ``outcome_unknown`` it may have been made.
        """

        async def work(platform: Platform, send: Send) -> Published:
            return await platform.publish(send, account.platform_user_id, text, idempotency_key)

        return await self._for_account(account, work, budget)

    def publishes_once(self, platform: str) -> bool:
        """Whether the platform makes no second post where ``publish`` is called again with the same key.

        Raises:
            UnknownPlatformError: the platform is not set up here.
        """
        return self._platforms.named(platform).publishes_once

    async def figures(self, account: AccountSecrets, platform_post_id: str, *, budget: float | None = None) -> Figures:
        """The figures of a post that the account made."""

        async def work(platform: Platform, send: Send) -> Figures:
            return await platform.figures(send, platform_post_id)

        return await self._for_account(account, work, budget)

    async def _for_account(
        self, account: AccountSecrets, work: Callable[[Platform, Send], Awaitable[T]], budget: float | None
    ) -> T:
        platform = self._platforms.named(account.platform)
        if self._has_ended(account):
            account = await self._renewed(account)
            return await work(platform, self._sender(platform, account, budget))
        started = self._client.clock.monotonic()
        try:
            return await work(platform, self._sender(platform, account, budget))
        except UnauthorizedError:
            left = None if budget is None else budget - (self._client.clock.monotonic() - started)
        account = await self._renewed(account)
        return await work(platform, self._sender(platform, account, left))

    async def _renewed(self, account: AccountSecrets) -> AccountSecrets:
        return await self._oauth.refresh(account.account_id, instead_of=account.access_token)

    def _has_ended(self, account: AccountSecrets) -> bool:
        end = account.token_expires_at
        if end is None:
            return False
        # Where there is no refresh token the last moments are used too.
        margin = timedelta() if account.refresh_token is None else _ABOUT_TO_END
        return end - margin <= self._client.clock.now()

    def _sender(self, platform: Platform, account: AccountSecrets, budget: float | None) -> Send:
        access_token = self._cipher.decrypt(account.access_token)
        return self._client.sender(platform, access_token, account=account.account_id, budget=budget)
