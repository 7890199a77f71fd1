"""The routes for the social platforms that accounts can be connected of."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.platforms.registry import Platforms
from allin_backend.web.guard import Guard, SignedIn
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse


class PlatformAnswer(msgspec.Struct, frozen=True):
    """A platform that this service is set up for. Texts have ``text_limit`` characters at most, as it counts them."""

    name: str
    text_limit: int


class PlatformList(msgspec.Struct, frozen=True):
    """All platforms that accounts can be connected of."""

    items: list[PlatformAnswer]


class PlatformRoutes:
    """Which platforms there are."""

    def __init__(self, guard: Guard, platforms: Platforms) -> None:
        self._guard = guard
        self._platforms = platforms

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        return [Resource(paths.PLATFORMS, {"GET": Endpoint(self._guard.signed_in(self.all), answer=PlatformList)})]

    async def all(self, _request: Request, _signed_in: SignedIn) -> Response:
        """The platforms that accounts can be connected of."""
        found = [PlatformAnswer(platform.name, platform.text_limit) for platform in self._platforms.values()]
        return JsonResponse(PlatformList(found))
