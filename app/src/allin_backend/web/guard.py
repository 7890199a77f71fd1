"""Who may use a handler, and how often."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from allin_backend.cache import Cache
from allin_backend.database.sessions import Session, SessionStore
from allin_backend.database.tables import now
from allin_backend.database.users import User, UserStore
from allin_backend.security import tokens
from allin_backend.web.addresses import ClientAddresses
from allin_backend.web.cached import cached
from allin_backend.web.limits import RateLimiter
from allin_backend.web.presence import Presence
from allin_backend.web.resources import Handler
from allin_backend.web.responses import sign_in_first, too_many

# With a cache in each process, another process learns of a sign-out or a deletion only when its own entry has ended.
_STALE_SECONDS: Final = 30.0
_TOKEN: Final = re.compile(r"allin_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who makes a request, and the digest of the token that proved it."""

    user: User
    token_hash: str


UserHandler = Callable[[Request, SignedIn], Awaitable[Response]]


class OpenHandler:
    """A handler for anybody, as often as the limit for an address allows."""

    def __init__(self, guard: Guard, handler: Handler) -> None:
        self._guard = guard
        self._handler = handler
        functools.update_wrapper(self, handler)

    async def __call__(self, request: Request) -> Response:
        self._guard.count_address(request.scope)
        return await self._handler(request)


class SignedInHandler:
    """A handler for users with a session, as often as the limit for a user allows."""

    def __init__(self, guard: Guard, handler: UserHandler) -> None:
        self._guard = guard
        self._handler = handler
        functools.update_wrapper(self, handler)

    async def __call__(self, request: Request) -> Response:
        return await self._handler(request, await self._guard.admit(request))


class Guard:
    """Finds the session and the user of a request, through the cache, and keeps the rate limits."""

    def __init__(
        self,
        sessions: SessionStore,
        users: UserStore,
        cache: Cache,
        presence: Presence,
        addresses: ClientAddresses,
        limiter: RateLimiter,
    ) -> None:
        self._sessions = sessions
        self._users = users
        self._cache = cache
        self._presence = presence
        self._addresses = addresses
        self._limiter = limiter

    def anyone(self, handler: Handler) -> OpenHandler:
        """The handler behind the limit for addresses."""
        return OpenHandler(self, handler)

    def signed_in(self, handler: UserHandler) -> SignedInHandler:
        """The handler behind the session and the limit for users."""
        return SignedInHandler(self, handler)

    def count_address(self, scope: Scope) -> None:
        """Count a request without a session.

        Raises:
            HTTPException: 429, the client's address has had its share.
        """
        self._count(f"address {self._addresses.of(scope)}")

    async def admit(self, request: Request) -> SignedIn:
        """The user behind the request's bearer token.

        Raises:
            HTTPException: 401 without a session, 429 where the user, or the address without a session, has had its
                share.
        """
        token = _bearer_token(request)
        signed_in = None if token is None else await self._find(tokens.digest(token))
        if signed_in is None:
            self.count_address(request.scope)
            raise sign_in_first("Send the token of a session that has not ended as Authorization: Bearer TOKEN.")
        self._count(f"user {signed_in.user.id}")
        self._presence.seen(signed_in.user.id)
        return signed_in

    async def forget_session(self, token_hash: str) -> None:
        """Take a session that has been ended out of the cache."""
        await self._cache.delete("session", token_hash)

    async def forget_user(self, user_id: int) -> None:
        """Take a user who has been deleted out of the cache. Without the user, no session of theirs is of use."""
        await self._cache.delete("user", str(user_id))

    async def _find(self, token_hash: str) -> SignedIn | None:
        session = await cached(
            self._cache,
            "session",
            token_hash,
            self._cache.lifetime(_STALE_SECONDS),
            Session,
            lambda: self._sessions.get(token_hash, now()),
        )
        if session is None or session.expires_at <= now():
            return None
        user_id = session.user_id
        user = await cached(
            self._cache,
            "user",
            str(user_id),
            self._cache.lifetime(_STALE_SECONDS),
            User,
            lambda: self._users.get(user_id),
        )
        return None if user is None else SignedIn(user, token_hash)

    def _count(self, key: str) -> None:
        wait = self._limiter.allow(key)
        if wait > 0:
            raise too_many("Too many requests; the Retry-After header says when to go on.", wait)


def _bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # What is no token of ours costs no look-up.
    return token if scheme.lower() == "bearer" and _TOKEN.fullmatch(token) else None
