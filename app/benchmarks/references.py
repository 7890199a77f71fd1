"""Middlewares as people write them by hand with prometheus_client; what our own one is compared with first."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allin_backend.metrics.contract import HTTP_BUCKETS

_LABELS: Final = ("method", "route", "status")


class _Instruments:
    """The three instruments that all of these middlewares fill: the same that ours has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("http_requests", "Requests.", _LABELS, registry=registry)
        self.duration = Histogram(
            "http_request_duration_seconds", "Duration.", _LABELS, buckets=HTTP_BUCKETS, registry=registry
        )
        self.in_flight = Gauge("http_requests_in_flight", "In flight.", registry=registry)


class HandWritten:
    """The good hand-written middleware: plain ASGI, children kept, clock stopped at the last part of the body."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self.instruments = _Instruments(registry)
        self.children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        ended: float | None = None

        async def measured_send(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                ended = perf_counter()
            await send(message)

        self.instruments.in_flight.inc()
        started = perf_counter()
        try:
            await self.app(scope, receive, measured_send)
        finally:
            seconds = (ended or perf_counter()) - started
            self.instruments.in_flight.dec()
            key = (scope["method"], getattr(scope.get("route"), "path", "unmatched"), status)
            children = self.children.get(key)
            if children is None:
                labels = (key[0], key[1], str(status))
                children = (self.instruments.requests.labels(*labels), self.instruments.duration.labels(*labels))
                self.children[key] = children
            children[0].inc()
            children[1].observe(seconds)


class HandWrittenLabels:
    """The same, but the children are looked up by ``labels()`` on each request."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self.instruments = _Instruments(registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        ended: float | None = None

        async def measured_send(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                ended = perf_counter()
            await send(message)

        self.instruments.in_flight.inc()
        started = perf_counter()
        try:
            await self.app(scope, receive, measured_send)
        finally:
            seconds = (ended or perf_counter()) - started
            self.instruments.in_flight.dec()
            labels = (scope["method"], getattr(scope.get("route"), "path", "unmatched"), str(status))
            self.instruments.requests.labels(*labels).inc()
            self.instruments.duration.labels(*labels).observe(seconds)


class Tutorial(BaseHTTPMiddleware):
    """The pattern of most tutorials: Starlette's ``BaseHTTPMiddleware`` and ``labels()`` on each request."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        super().__init__(app)
        self.instruments = _Instruments(registry)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Measure one request."""
        status = 500
        self.instruments.in_flight.inc()
        started = perf_counter()
        try:
            response = await call_next(request)
            status = response.status_code
            return response
        finally:
            self.instruments.in_flight.dec()
            labels = (request.method, getattr(request.scope.get("route"), "path", "unmatched"), str(status))
            self.instruments.requests.labels(*labels).inc()
            self.instruments.duration.labels(*labels).observe(perf_counter() - started)
