"""The routes for sessions: sign in and sign out."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.sessions import SessionStore
from allin_backend.database.tables import now
from allin_backend.database.users import UserStore
from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.security import tokens
from allin_backend.security.passwords import Passwords
from allin_backend.web.addresses import ClientAddresses
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.limits import RateLimiter
from allin_backend.web.requests import TEXT, read_json
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import NO_STORE, JsonResponse, sign_in_first, too_many
from allin_backend.web.users import normal_email


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a session."""

    email: Annotated[str, msgspec.Meta(min_length=1, max_length=254, pattern=TEXT)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class NewSession(msgspec.Struct, frozen=True):
    """A session that has just begun. The token is told only this once."""

    token: str
    expires_at: datetime


class SignInLimits:
    """How often a password may be tried: for one user from one address, and ten times as often from anywhere.

    So somebody who guesses gets few tries, and cannot keep the user out from elsewhere with them.
    """

    def __init__(self, per_minute: int) -> None:
        self._by_address = RateLimiter(per_minute)
        self._by_email = RateLimiter(per_minute * 10)

    def wait(self, email: str, address: str) -> float:
        """Count a try; the seconds until the next one is allowed, 0 if this one is."""
        return self._by_address.allow(f"{address} {email}") or self._by_email.allow(email)


class Sessions:
    """Sign in and sign out."""

    def __init__(
        self,
        guard: Guard,
        users: UserStore,
        sessions: SessionStore,
        passwords: Passwords,
        addresses: ClientAddresses,
        metrics: WorkMetrics,
        *,
        session_seconds: float,
        limit_per_minute: int,
    ) -> None:
        self._guard = guard
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._addresses = addresses
        self._metrics = metrics
        self._lifetime = timedelta(seconds=session_seconds)
        self._limits = SignInLimits(limit_per_minute)

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        sign_in = Endpoint(
            self._guard.anyone(self.create),
            HTTPStatus.CREATED,
            NewSession,
            body=Credentials,
            problems={
                HTTPStatus.UNAUTHORIZED: "No user has this email address and password.",
                HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer.",
            },
        )
        sign_out = Endpoint(self._guard.signed_in(self.delete), HTTPStatus.NO_CONTENT)
        return [
            Resource(paths.SESSIONS, {"POST": sign_in}),
            Resource(paths.CURRENT_SESSION, {"DELETE": sign_out}),
        ]

    async def create(self, request: Request) -> Response:
        """Sign in: get a token for the Authorization header of the other requests."""
        given = await read_json(request, Credentials)
        email = normal_email(given.email) or given.email
        wait = self._limits.wait(email, self._addresses.of(request.scope))
        if wait > 0:
            self._metrics.sign_ins.inc("rate_limited")
            raise too_many("Too many attempts to sign in; the Retry-After header says when to go on.", wait)
        known = await self._users.by_email(email)
        stored = None if known is None else known.password_hash
        if not await self._passwords.verify(stored, given.password) or known is None:
            self._metrics.sign_ins.inc("wrong_credentials")
            raise sign_in_first("No user has this email address and password.")
        token = tokens.new_token()
        expires_at = now() + self._lifetime
        await self._sessions.create(tokens.digest(token), known.user_id, expires_at)
        self._metrics.sign_ins.inc(contract.SUCCESS)
        self._metrics.user_actions.inc("sign_in")
        return JsonResponse(NewSession(token, expires_at), HTTPStatus.CREATED, NO_STORE)

    async def delete(self, _request: Request, signed_in: SignedIn) -> Response:
        """Sign out: the session of this request ends."""
        await self._sessions.delete(signed_in.token_hash)
        await self._guard.forget_session(signed_in.token_hash)
        self._metrics.user_actions.inc("sign_out")
        return Response(status_code=HTTPStatus.NO_CONTENT)
