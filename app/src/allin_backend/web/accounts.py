"""The routes for connected accounts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.accounts import Account, AccountSecrets, AccountStore
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.oauth import OAuthService
from allin_backend.web.feed import Feed
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.requests import path_id
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse, no_such


class AccountAnswer(msgspec.Struct, frozen=True):
    """A connected account. ``state`` is active, or needs_reconnect where the platform no longer lets the service in."""

    id: int
    platform: str
    handle: str
    state: str
    created_at: datetime


class AccountList(msgspec.Struct, frozen=True):
    """All accounts of a user, oldest first."""

    items: list[AccountAnswer]


class Revocations:
    """Gives permissions back that are not needed any more, for ``seconds`` at most: nobody can do more about it."""

    def __init__(self, oauth: OAuthService, seconds: float) -> None:
        self._oauth = oauth
        self._seconds = seconds

    async def revoke(self, accounts: Iterable[AccountSecrets]) -> None:
        """Have the platforms forget the tokens of accounts that have been deleted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await asyncio.gather(*(self._oauth.revoke(account) for account in accounts))


class Accounts:
    """List, read and disconnect accounts."""

    def __init__(
        self, guard: Guard, accounts: AccountStore, revocations: Revocations, feed: Feed, metrics: WorkMetrics
    ) -> None:
        self._guard = guard
        self._accounts = accounts
        self._revocations = revocations
        self._feed = feed
        self._metrics = metrics

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        unknown = {HTTPStatus.NOT_FOUND: "The user has no account with this id."}
        signed_in = self._guard.signed_in
        return [
            Resource(paths.ACCOUNTS, {"GET": Endpoint(signed_in(self.all), answer=AccountList)}),
            Resource(
                paths.ACCOUNT,
                {
                    "GET": Endpoint(signed_in(self.get), answer=AccountAnswer, problems=unknown),
                    "DELETE": Endpoint(signed_in(self.delete), HTTPStatus.NO_CONTENT, problems=unknown),
                },
            ),
        ]

    async def all(self, _request: Request, signed_in: SignedIn) -> Response:
        """The user's connected accounts."""
        found = await self._accounts.list(signed_in.user.id)
        return JsonResponse(AccountList([answer(account) for account in found]))

    async def get(self, request: Request, signed_in: SignedIn) -> Response:
        """One connected account."""
        account_id = path_id(request, "account_id")
        account = None if account_id is None else await self._accounts.get(account_id, signed_in.user.id)
        if account is None:
            raise no_such("account")
        return JsonResponse(answer(account))

    async def delete(self, request: Request, signed_in: SignedIn) -> Response:
        """Disconnect an account, with all that was to be published there, and give the permission back."""
        account_id = path_id(request, "account_id")
        user_id = signed_in.user.id
        secrets = None if account_id is None else await self._accounts.secrets(account_id)
        if account_id is None or not await self._accounts.delete(account_id, user_id):
            raise no_such("account")
        self._metrics.user_actions.inc("account_disconnect")
        await self._feed.changed(user_id)
        await self._revocations.revoke([] if secrets is None else [secrets])
        return Response(status_code=HTTPStatus.NO_CONTENT)


def answer(account: Account) -> AccountAnswer:
    """What callers see of an account."""
    return AccountAnswer(account.id, account.platform, account.handle, account.state, account.created_at)
