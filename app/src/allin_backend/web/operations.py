"""The routes that operators and machines use."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from allin_backend import paths
from allin_backend.database.engine import Database, DatabaseUnavailableError
from allin_backend.database.revision import SchemaError
from allin_backend.metrics.exposition import CONTENT_TYPE, Exposition
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import JsonResponse, ProblemResponse

_log: Final = logging.getLogger(__name__)


class Operations:
    """The index, the health and readiness checks, and the metrics."""

    def __init__(self, database: Database, exposition: Exposition, *, release: str, ready_timeout: float) -> None:
        self._database = database
        self._exposition = exposition
        self._release = release
        self._ready_timeout = ready_timeout

    def resources(self) -> list[Resource]:
        """The paths that this class serves."""
        return [
            Resource(paths.INDEX, {"GET": Endpoint(self.index)}),
            Resource(paths.HEALTH, {"GET": Endpoint(self.health)}),
            Resource(paths.READY, {"GET": Endpoint(self.ready)}),
            Resource(paths.METRICS, {"GET": Endpoint(self.metrics)}),
        ]

    async def index(self, _request: Request) -> Response:
        """Says what this service is and where to go on."""
        links = {
            "health": paths.HEALTH,
            "ready": paths.READY,
            "metrics": paths.METRICS,
            "users": paths.USERS,
            "posts": paths.POSTS,
        }
        return JsonResponse({"service": "allin-backend", "release": self._release, "links": links})

    async def health(self, _request: Request) -> Response:
        """The process lives. Asks nothing else, so that a slow database does not get the process restarted."""
        return JsonResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """The service can do its work: the database answers in time and has a schema that this release can use."""
        try:
            await self._database.check(self._ready_timeout)
        except (DatabaseUnavailableError, SchemaError) as error:
            _log.warning("not ready", extra={"fields": {"reason": str(error)}})
            missing = "does not answer" if isinstance(error, DatabaseUnavailableError) else "has another schema"
            return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, f"The database {missing}.")
        return JsonResponse({"status": "ready", "release": self._release})

    async def metrics(self, _request: Request) -> Response:
        """The metrics in the Prometheus text format."""
        return Response(await self._exposition.render(), headers={"Content-Type": CONTENT_TYPE})
