"""Puts the application together: everything is built, started and stopped here."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final
from uuid import uuid4

import httpx2
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from allin_backend import __version__, paths
from allin_backend.background import Background, Job
from allin_backend.cache import make_cache
from allin_backend.database.accounts import AccountStore
from allin_backend.database.engine import Database, DatabaseUnavailableError
from allin_backend.database.oauth_states import OAuthStateStore
from allin_backend.database.posts import PostStore
from allin_backend.database.publications import PublicationStore
from allin_backend.database.revision import SchemaError
from allin_backend.database.sessions import SessionStore
from allin_backend.database.survey import survey
from allin_backend.database.users import UserStore
from allin_backend.faults import Faults
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.contract import UNMATCHED_ROUTE
from allin_backend.metrics.exposition import Exposition
from allin_backend.metrics.http import HttpMetricsMiddleware
from allin_backend.platforms.client import PlatformClient
from allin_backend.platforms.oauth import OAuthService
from allin_backend.platforms.registry import load_platforms
from allin_backend.platforms.service import PlatformService
from allin_backend.publishing import jobs
from allin_backend.publishing.publisher import Publisher
from allin_backend.security.encryption import TokenCipher, make_key
from allin_backend.security.passwords import Passwords
from allin_backend.settings import Settings
from allin_backend.web.accounts import Accounts, Revocations
from allin_backend.web.addresses import ClientAddresses
from allin_backend.web.context import RequestContextMiddleware
from allin_backend.web.feed import Feed
from allin_backend.web.figures import FiguresRoutes
from allin_backend.web.guard import Guard
from allin_backend.web.limits import RateLimiter
from allin_backend.web.operations import About, Operations
from allin_backend.web.platforms import PlatformRoutes
from allin_backend.web.posts import Posts
from allin_backend.web.presence import Presence
from allin_backend.web.requests import SizeLimitMiddleware
from allin_backend.web.resources import Resource
from allin_backend.web.responses import EXCEPTION_HANDLERS
from allin_backend.web.schedules import Schedules
from allin_backend.web.sessions import Sessions
from allin_backend.web.users import Users

_log: Final = logging.getLogger(__name__)


class Backend(Starlette):
    """Starlette with two layers around its own error handling, where the ``middleware`` argument cannot put them."""

    def __init__(
        self,
        resources: Iterable[Resource],
        guard: Guard,
        metrics: BackendMetrics,
        settings: Settings,
        lifespan: Lifespan[Starlette],
        faults: Faults | None,
    ) -> None:
        self._guard = guard
        self._metrics = metrics
        size_limit = Middleware(
            SizeLimitMiddleware, headers=settings.request_header_limit_bytes, body=settings.request_body_limit_bytes
        )
        super().__init__(
            routes=[resource.route(size_limit, *([faults.middleware] if faults else [])) for resource in resources],
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=lifespan,
        )
        # A redirect would send callers to whatever Host they named; the table's paths are the only ones.
        self.router.redirect_slashes = False
        self.router.default = self._unmatched

    def build_middleware_stack(self) -> ASGIApp:
        measured = RequestContextMiddleware(super().build_middleware_stack())
        return HttpMetricsMiddleware(measured, self._metrics.http, self.routes)

    async def _unmatched(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._guard.count_address(scope)
        await self.router.not_found(scope, receive, send)


def create_app(
    settings: Settings, registry: CollectorRegistry, *, platforms_http: httpx2.AsyncBaseTransport | None = None
) -> Starlette:
    """The application. Opens nothing until its lifespan starts.

    ``platforms_http`` takes the requests to the social platforms, in place of connections to them.

    Raises:
        ConfigurationError: a file that the settings name cannot be used.
        ValueError: the registry already holds one of the backend's metrics.
    """
    metrics = BackendMetrics(registry, version=__version__, release=settings.release)
    work = metrics.work
    exposition = Exposition(registry, metrics.event_loop)
    database = Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        timeout=settings.database_timeout_seconds,
        instrument=metrics.database.instrument,
        password_file=settings.database_password_file,
    )
    cache = make_cache(settings, work)
    platforms = load_platforms(settings.platforms_file, settings.platforms_url)
    faults = Faults(settings.faults_file, work.fault_active, cache) if settings.faults_file else None
    if faults:
        faults.slow_down(database.engine.sync_engine)
    passwords = Passwords()
    users, sessions, accounts = UserStore(database), SessionStore(database), AccountStore(database)
    posts, publications = PostStore(database), PublicationStore(database)
    states = OAuthStateStore(database)
    client = PlatformClient(
        work,
        timeout=settings.social_timeout_seconds,
        connect=None if platforms_http is None else lambda: platforms_http,
    )
    # Without a file with platforms there is nothing to encrypt.
    keys = settings.token_keys_file
    cipher = TokenCipher([make_key()]) if keys is None else TokenCipher.from_file(keys)
    oauth = OAuthService(
        platforms,
        client,
        states,
        accounts,
        cipher,
        work,
        redirect_url=settings.oauth_redirect_url,
    )
    service = PlatformService(platforms, client, oauth, cipher)

    presence = Presence(users)
    addresses = ClientAddresses(settings.trusted_proxies)
    guard = Guard(sessions, users, cache, presence, addresses, RateLimiter(settings.rate_limit_per_minute))
    feed = Feed(posts, publications, cache)
    revocations = Revocations(oauth, settings.social_timeout_seconds)
    schedules = Schedules(guard, posts, accounts, publications, feed, platforms, work)
    operations = Operations(
        database, exposition, release=settings.release, ready_timeout=settings.ready_timeout_seconds
    )
    resources = [
        *operations.resources(),
        *Users(guard, users, accounts, passwords, revocations, work).resources(),
        *Sessions(
            guard,
            users,
            sessions,
            passwords,
            addresses,
            work,
            session_seconds=settings.session_seconds,
            limit_per_minute=settings.sign_in_limit_per_minute,
        ).resources(),
        *PlatformRoutes(guard, platforms, oauth, work).resources(),
        *Accounts(guard, accounts, revocations, feed, work).resources(),
        *Posts(guard, posts, feed, schedules, work).resources(),
        *schedules.resources(),
        *FiguresRoutes(
            guard, posts, publications, accounts, service, cache, work, budget=settings.social_timeout_seconds
        ).resources(),
    ]
    resources += About(guard, release=settings.release).resources(resources)
    metrics.http.expect(_first_requests(resources))

    owner = uuid4().hex
    publisher = Publisher(
        publications,
        accounts,
        service,
        work,
        owner=owner,
        deadline=settings.publish_deadline_seconds,
        budget=2 * settings.social_timeout_seconds,
        changed=feed.changed,
    )
    background = Background(
        [
            Job("publish", settings.publish_interval_seconds, publisher.run),
            jobs.refresh_tokens(accounts, oauth),
            jobs.survey(partial(survey, database), work),
            jobs.housekeeping([sessions, states]),
        ],
        work,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:  # what was started last is stopped first
            running.callback(exposition.close)
            try:
                await database.start()
            except (DatabaseUnavailableError, SchemaError) as error:
                # The server adds a traceback; this is the line to read.
                _log.error("cannot start", extra={"fields": {"reason": str(error)}})
                raise
            running.push_async_callback(database.stop)
            await cache.start()
            running.push_async_callback(cache.stop)
            running.callback(passwords.close)
            running.push_async_callback(client.close)
            running.push_async_callback(oauth.close)
            running.push_async_callback(presence.stop)
            metrics.start()
            running.callback(metrics.stop)
            if faults:
                faults.start()
                running.push_async_callback(faults.stop)
            background.start()
            running.push_async_callback(_stop_jobs, background, publications, owner, settings.shutdown_grace_seconds)
            yield

    app = Backend(resources, guard, metrics, settings, lifespan, faults)
    app.state.database = database
    app.state.cache = cache
    # For the server, which answers these on a port of each process's own as well.
    app.state.operations = operations
    # For the server too, which refuses what is too large for it to become a request.
    app.state.count_refused = metrics.http.record_refused
    app.state.publisher = publisher
    # For the server, which has the jobs end while the last requests still run.
    app.state.background = background
    return app


async def _stop_jobs(background: Background, publications: PublicationStore, owner: str, grace: float) -> None:
    await background.stop(grace)
    # What a cancelled run had taken need not wait for its lease to end. Without the database it does.
    with suppress(DatabaseUnavailableError):
        await publications.release(owner)


def _first_requests(resources: Iterable[Resource]) -> set[tuple[str, str, int]]:
    """Method, route and status of the requests whose series are there from the start."""
    requests = {("GET", UNMATCHED_ROUTE, 404)}
    for resource in resources:
        if resource.path != paths.METRICS:
            for method, endpoint in resource.endpoints.items():
                requests |= {(method, resource.path, int(endpoint.success)), (method, resource.path, 500)}
    return requests
