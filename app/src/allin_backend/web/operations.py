"""The routes that operators and machines use."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from allin_backend import __version__, paths
from allin_backend.database.engine import Database, DatabaseUnavailableError
from allin_backend.database.revision import SchemaError
from allin_backend.metrics.exposition import CONTENT_TYPE, Exposition
from allin_backend.web.guard import Guard
from allin_backend.web.openapi import describe
from allin_backend.web.resources import JSON, Endpoint, Resource
from allin_backend.web.responses import JsonResponse, ProblemResponse, retry_after

_log: Final = logging.getLogger(__name__)
_READY_AGAIN_SECONDS: Final = 5


class Index(msgspec.Struct, frozen=True):
    """What this service is, and paths by their names."""

    service: str
    release: str
    links: dict[str, str]


class Health(msgspec.Struct, frozen=True):
    """The process lives: ``status`` is ok."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """The service can do its work: ``status`` is ready."""

    status: str
    release: str


class Operations:
    """The health and readiness checks, and the metrics."""

    def __init__(self, database: Database, exposition: Exposition, *, release: str, ready_timeout: float) -> None:
        self._database = database
        self._exposition = exposition
        self._release = release
        self._ready_timeout = ready_timeout

    def resources(self) -> list[Resource]:
        """The paths that this class serves. No limit holds back the checks, nor the metrics."""
        ready = Endpoint(
            self.ready, answer=Readiness, problems={HTTPStatus.SERVICE_UNAVAILABLE: "The database is not ready."}
        )
        return [
            Resource(paths.HEALTH, {"GET": Endpoint(self.health, answer=Health)}),
            Resource(paths.READY, {"GET": ready}),
            Resource(paths.METRICS, {"GET": Endpoint(self.metrics, answer=str, media_type="text/plain")}),
        ]

    async def health(self, _request: Request) -> Response:
        """The process lives. Asks nothing else, so that a slow database does not get the process restarted."""
        return JsonResponse(Health("ok"))

    async def ready(self, _request: Request) -> Response:
        """The service can do its work: the database answers in time and has a schema that this release can use."""
        try:
            await self._database.check(self._ready_timeout)
        except (DatabaseUnavailableError, SchemaError) as error:
            _log.warning("not ready", extra={"fields": {"reason": str(error)}})
            missing = "does not answer" if isinstance(error, DatabaseUnavailableError) else "has another schema"
            return ProblemResponse(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The database {missing}.", retry_after(_READY_AGAIN_SECONDS)
            )
        return JsonResponse(Readiness("ready", self._release))

    async def metrics(self, _request: Request) -> Response:
        """The metrics in the Prometheus text format."""
        return Response(await self._exposition.render(), headers={"Content-Type": CONTENT_TYPE})


class About:
    """The index, and the description of the whole API."""

    def __init__(self, guard: Guard, *, release: str) -> None:
        self._guard = guard
        self._release = release
        self._description = b""

    def resources(self, others: Iterable[Resource]) -> list[Resource]:
        """The paths that this class serves. ``others`` are described with them."""
        own = [
            Resource(paths.INDEX, {"GET": Endpoint(self._guard.anyone(self.index), answer=Index)}),
            Resource(paths.OPENAPI, {"GET": Endpoint(self._guard.anyone(self.description), answer=dict)}),
        ]
        self._description = msgspec.json.encode(describe([*own, *others], version=__version__))
        return own

    async def index(self, _request: Request) -> Response:
        """Says what this service is and where to go on."""
        links = {
            "description": paths.OPENAPI,
            "health": paths.HEALTH,
            "ready": paths.READY,
            "metrics": paths.METRICS,
            "users": paths.USERS,
            "sessions": paths.SESSIONS,
            "platforms": paths.PLATFORMS,
            "accounts": paths.ACCOUNTS,
            "posts": paths.POSTS,
        }
        return JsonResponse(Index("allin-backend", self._release, links))

    async def description(self, _request: Request) -> Response:
        """This description, in OpenAPI 3.1."""
        return Response(self._description, media_type=JSON)
