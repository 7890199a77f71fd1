"""The OAuth protocol, spoken by Authlib through the platforms' one transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from authlib.common.urls import add_params_to_qs  # type: ignore[import-untyped]
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]

from allin_backend.platforms.base import Nothing, Platform
from allin_backend.platforms.client import HEADERS, Exchange, Labelled, PlatformClient

LONGEST_LIFE_SECONDS: Final = 10 * 365 * 86_400.0


class Tokens(msgspec.Struct, frozen=True):
    """What a platform's token address answers, as far as it is used (RFC 6749, section 5.1)."""

    access_token: str
    refresh_token: str | None = None
    expires_in: float | str | None = None
    scope: str | None = None

    def __post_init__(self) -> None:
        if not self.access_token:
            raise ValueError("the access token is empty")

    @property
    def lifetime(self) -> float | None:
        """Seconds until the access token ends; ``None`` where the platform does not say."""
        try:
            seconds = float(self.expires_in or 0)
        except ValueError:
            return None
        return min(seconds, LONGEST_LIFE_SECONDS) if seconds > 0 else None

    def __repr__(self) -> str:
        return "Tokens()"


class TokenClient:
    """Authorization codes with PKCE (S256), refreshing and revoking. ``redirect_url``: where people come back to."""

    def __init__(self, client: PlatformClient, redirect_url: str) -> None:
        self._client: Final = client
        self._redirect_url: Final = redirect_url

    def authorize_url(self, platform: Platform, state: str, code_verifier: str) -> str:
        """The address of the page on which a person gives the permission."""
        client = self._authlib(
            platform,
            redirect_uri=self._redirect_url,
            scope=platform.scope_separator.join(platform.scopes),
            code_challenge_method="S256",
        )
        more = dict.fromkeys(platform.authorize_params, platform.client_id)
        url, _ = client.create_authorization_url(
            platform.addresses.authorize, state=state, code_verifier=code_verifier, **more
        )
        return str(url)

    async def exchange(self, platform: Platform, code: str, code_verifier: str) -> Tokens:
        """The tokens for an authorization code.

        Raises:
            PlatformError: the platform gives none.
        """

        async def fetch(exchange: Exchange) -> None:
            client = self._authlib(platform, exchange, redirect_uri=self._redirect_url)
            await client.fetch_token(platform.addresses.token, code=code, code_verifier=code_verifier)

        tokens: Tokens = await self._persist(platform, "token", Tokens, fetch)
        return tokens

    async def refresh(self, platform: Platform, refresh_token: str) -> Tokens:
        """New tokens for a refresh token, which may be used up by that.

        Raises:
            PlatformError: the platform gives none.
        """

        async def fetch(exchange: Exchange) -> None:
            # Without a scope: it stays what the person granted, which may be less than what was asked for.
            client = self._authlib(platform, exchange)
            await client.refresh_token(platform.addresses.token, refresh_token=refresh_token)

        tokens: Tokens = await self._persist(platform, "token", Tokens, fetch)
        return tokens

    async def revoke(self, platform: Platform, address: str, token: str, kind: str) -> None:
        """Have the platform forget a token; ``kind`` is ``access_token`` or ``refresh_token``.

        Raises:
            PlatformError: it did not say that it has.
        """

        async def fetch(exchange: Exchange) -> None:
            await self._authlib(platform, exchange).revoke_token(address, token=token, token_type_hint=kind)

        # To revoke twice is to revoke (RFC 7009, section 2.2).
        await self._persist(platform, "revoke", Nothing, fetch, idempotent=True)

    async def _persist(
        self,
        platform: Platform,
        endpoint: str,
        answer: type[Any],
        fetch: Callable[[Exchange], Awaitable[None]],
        *,
        idempotent: bool = False,
    ) -> Any:
        async def attempt(timeout: float) -> Any:
            exchange = self._client.exchange(platform, endpoint, answer, timeout)
            try:
                await fetch(exchange)
            except (ValueError, TypeError, OverflowError):
                # Authlib reads members of the answer that are not needed here, and fails at what it cannot read. New
                # tokens must not be lost by that.
                if exchange.value is None:
                    raise
            return exchange.value

        return await self._client.persist(attempt, platform.name, endpoint, idempotent=idempotent)

    def _authlib(self, platform: Platform, exchange: Exchange | None = None, **options: Any) -> Any:
        method: Any = _client_key_post if platform.client_auth == "client_key_post" else platform.client_auth
        if exchange is not None:
            options |= {"transport": Labelled(self._client.transport, exchange), "timeout": self._client.http_timeout}
        return AsyncOAuth2Client(
            client_id=platform.client_id,
            client_secret=platform.client_secret,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            headers=HEADERS,
            trust_env=False,
            **options,
        )


def _client_key_post(
    client: Any, _method: str, uri: str, headers: dict[str, str], body: bytes | str
) -> tuple[str, dict[str, str], str]:
    """The client's id and secret in the form, the id under the name that TikTok gives it."""
    text = body.decode() if isinstance(body, bytes) else body
    added = [("client_key", client.client_id), ("client_secret", client.client_secret)]
    return uri, headers, add_params_to_qs(text, added)
