"""The routes for the social platforms, and for connecting accounts of theirs."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.oauth import Authorization, OAuthService
from allin_backend.platforms.registry import Platforms
from allin_backend.web.accounts import AccountAnswer, answer
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.requests import read_json
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import NO_STORE, PLATFORM_PROBLEMS, JsonResponse


class PlatformAnswer(msgspec.Struct, frozen=True):
    """A platform that this service is set up for. Texts have ``text_limit`` characters at most, as it counts them."""

    name: str
    text_limit: int


class PlatformList(msgspec.Struct, frozen=True):
    """All platforms that accounts can be connected of."""

    items: list[PlatformAnswer]


class Return(msgspec.Struct, forbid_unknown_fields=True):
    """What the person brought back from the platform's page: the state, with either a code or an error."""

    state: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)] | msgspec.UnsetType = msgspec.UNSET
    error: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | msgspec.UnsetType = msgspec.UNSET


class PlatformRoutes:
    """Which platforms there are, and connecting accounts."""

    def __init__(self, guard: Guard, platforms: Platforms, oauth: OAuthService, metrics: WorkMetrics) -> None:
        self._guard = guard
        self._platforms = platforms
        self._oauth = oauth
        self._metrics = metrics

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        signed_in = self._guard.signed_in
        unknown = {HTTPStatus.NOT_FOUND: "This service is not set up for this platform."}
        begin = Endpoint(signed_in(self.authorize), HTTPStatus.CREATED, Authorization, problems=unknown)
        end = Endpoint(
            signed_in(self.callback),
            HTTPStatus.CREATED,
            AccountAnswer,
            body=Return,
            problems={
                **PLATFORM_PROBLEMS,
                **unknown,
                HTTPStatus.UNPROCESSABLE_ENTITY: "The account was not connected; begin again.",
            },
            headers={"Location": "The path of the account."},
        )
        return [
            Resource(paths.PLATFORMS, {"GET": Endpoint(signed_in(self.all), answer=PlatformList)}),
            Resource(paths.AUTHORIZATIONS, {"POST": begin}),
            Resource(paths.CALLBACK, {"POST": end}),
        ]

    async def all(self, _request: Request, _signed_in: SignedIn) -> Response:
        """The platforms that accounts can be connected of."""
        found = [PlatformAnswer(platform.name, platform.text_limit) for platform in self._platforms.values()]
        return JsonResponse(PlatformList(found))

    async def authorize(self, request: Request, signed_in: SignedIn) -> Response:
        """Begin to connect an account: send the person to the url, and wait for them to come back with the state."""
        authorization = await self._oauth.authorize(signed_in.user.id, request.path_params["platform"])
        return JsonResponse(authorization, HTTPStatus.CREATED, NO_STORE)

    async def callback(self, request: Request, signed_in: SignedIn) -> Response:
        """Connect the account of a person who came back, or give its tokens anew if it is connected already."""
        brought = await read_json(request, Return)
        code = None if isinstance(brought.code, msgspec.UnsetType) else brought.code
        error = None if isinstance(brought.error, msgspec.UnsetType) else brought.error
        if (code is None) == (error is None):
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "Send either code or error.")
        platform = request.path_params["platform"]
        account = await self._oauth.callback(signed_in.user.id, platform, brought.state, code=code, error=error)
        self._metrics.user_actions.inc("account_connect")
        return JsonResponse(
            answer(account), HTTPStatus.CREATED, {"Location": paths.ACCOUNT.format(account_id=account.id)}
        )
