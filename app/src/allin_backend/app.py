"""Puts the application together. Later parts (cache, publisher, OAuth) are built, started and stopped here too."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Lifespan

from allin_backend import __version__, paths
from allin_backend.database.engine import Database, DatabaseUnavailableError
from allin_backend.database.posts import PostStore
from allin_backend.database.revision import SchemaError
from allin_backend.database.users import UserStore
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.contract import UNMATCHED_ROUTE
from allin_backend.metrics.exposition import Exposition
from allin_backend.metrics.http import HttpMetricsMiddleware
from allin_backend.settings import Settings
from allin_backend.web.context import RequestContextMiddleware
from allin_backend.web.operations import Operations
from allin_backend.web.posts import Posts
from allin_backend.web.requests import BodyLimitMiddleware
from allin_backend.web.resources import Resource
from allin_backend.web.responses import EXCEPTION_HANDLERS
from allin_backend.web.users import Users

_log: Final = logging.getLogger(__name__)


class Backend(Starlette):
    """Starlette with two layers around its own error handling, where the ``middleware`` argument cannot put them."""

    def __init__(
        self, resources: Iterable[Resource], metrics: BackendMetrics, settings: Settings, lifespan: Lifespan[Starlette]
    ) -> None:
        self._metrics = metrics
        body_limit = Middleware(BodyLimitMiddleware, limit=settings.request_body_limit_bytes)
        super().__init__(
            routes=[resource.route(body_limit) for resource in resources],
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=lifespan,
        )
        # A redirect would send callers to whatever Host they named; the table's paths are the only ones.
        self.router.redirect_slashes = False

    def build_middleware_stack(self) -> ASGIApp:
        measured = RequestContextMiddleware(super().build_middleware_stack())
        return HttpMetricsMiddleware(measured, self._metrics.http, self.routes)


def create_app(settings: Settings, registry: CollectorRegistry) -> Starlette:
    """The application. Opens nothing until its lifespan starts.

    Raises:
        ValueError: the registry already holds one of the backend's metrics.
    """
    requests = {("GET", UNMATCHED_ROUTE, 404)}
    metrics = BackendMetrics(registry, version=__version__, release=settings.release)
    database = Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        timeout=settings.database_timeout_seconds,
        instrument=metrics.database.instrument,
        password_file=settings.database_password_file,
    )
    exposition = Exposition(registry, metrics.event_loop)
    operations = Operations(
        database, exposition, release=settings.release, ready_timeout=settings.ready_timeout_seconds
    )
    resources = [
        *operations.resources(),
        *Users(UserStore(database)).resources(),
        *Posts(PostStore(database)).resources(),
    ]
    for resource in resources:
        if resource.path != paths.METRICS:
            for method, endpoint in resource.endpoints.items():
                requests |= {(method, resource.path, endpoint.success), (method, resource.path, 500)}
    metrics.http.expect(requests)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await database.start()
        except (DatabaseUnavailableError, SchemaError) as error:
            # The server adds a traceback; this is the line to read.
            _log.error("cannot start", extra={"fields": {"reason": str(error)}})
            raise
        metrics.start()
        try:
            yield
        finally:
            metrics.stop()
            await database.stop()
            exposition.close()

    app = Backend(resources, metrics, settings, lifespan)
    app.state.database = database
    # For the server, which answers these on a port of each process's own as well.
    app.state.operations = operations
    return app
