"""HTTP requests: the cells and the outermost middleware that fills them."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Iterable, Iterator
from http import HTTPStatus
from time import perf_counter
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allin_backend import paths
from allin_backend.metrics import contract
from allin_backend.metrics.cells import HistogramCell

_METHODS: Final = frozenset(contract.METHODS)
_ROUTES: Final = frozenset(contract.ROUTES)
_STATUS_CODES: Final = frozenset(contract.STATUS_CODES)


class HttpMetrics:
    """The cells of the HTTP families and the number of requests in flight."""

    __slots__ = ("_by_key", "cells", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        # Only ever appended to: a scrape copies it from another thread while requests come in.
        self.cells: list[HistogramCell] = []
        self._by_key: dict[tuple[str, str, int], HistogramCell] = {}

    def expect(self, requests: Iterable[tuple[str, str, int]]) -> None:
        """Show combinations of method, route and status before their first request.

        Prometheus sees no increase in the first sample of a series: the very first error would otherwise go unnoticed.
        """
        for method, route, status in sorted(requests):
            self._cell(method, route, status)

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one finished request. Values outside the contract's sets are counted under their collective value."""
        cell = self._by_key.get((method, route, status)) or self._cell(method, route, status)
        # The cell's own observe() would be one more call for each request.
        cell.counts[bisect_left(cell.bounds, seconds)] += 1
        cell.total += seconds

    def record_refused(self, method: str) -> None:
        """Count a request whose headers had no end, so that it never got to a route."""
        self.record(method, contract.UNMATCHED_ROUTE, int(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), 0.0)

    def _cell(self, method: str, route: str, status: int) -> HistogramCell:
        method = method if method in _METHODS else contract.OTHER_METHOD
        route = route if route in _ROUTES else contract.UNMATCHED_ROUTE
        label = str(status)
        if label not in _STATUS_CODES:
            status, label = 0, contract.OTHER
        key = (method, route, status)
        cell = self._by_key.get(key)
        if cell is None:
            cell = HistogramCell(contract.HTTP_BUCKETS, (method, route, label))
            self._by_key[key] = cell
            self.cells.append(cell)
        return cell


def _templates(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[BaseRoute, str]]:
    """Every route with its whole template. A route below a mount knows only its own part of the path."""
    for route in routes:
        template = prefix + getattr(route, "path", "")  # a Host has none
        yield route, template
        yield from _templates(getattr(route, "routes", None) or (), template)


class HttpMetricsMiddleware:
    """Measures every HTTP request but those to ``/metrics``; ``routes`` are those of the application within.

    Must be the outermost ASGI layer: only there an unhandled exception and the error page made from it are both seen.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self.metrics = metrics
        # By identity, because routes cannot be hashed. They are kept, so that no other object gets one's identity.
        self._routes = tuple(_templates(routes))
        self._templates = {id(route): template for route, template in self._routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == paths.METRICS:
            await self.app(scope, receive, send)
            return

        metrics = self.metrics
        status = 0
        finished = False

        # Not a coroutine: handing on the inner awaitable saves one coroutine per message.
        def measured_send(message: Message) -> Awaitable[None]:
            nonlocal finished, status
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind == "http.response.body" and not finished and not message.get("more_body", False):
                finished = True
                self._finish(scope, status, started)
            return send(message)

        metrics.in_flight += 1
        started = perf_counter()
        try:
            await self.app(scope, receive, measured_send)
        # Only these two mean that the client left. An OSError may as well be the database's connection.
        except (ClientDisconnect, asyncio.CancelledError):
            if not finished:
                self._finish(scope, contract.CLIENT_CLOSED_REQUEST, started)
            raise
        except BaseException as error:
            # Starlette's way to say so if there is a handler for ClientDisconnect and the response has been started.
            client_left = isinstance(error.__cause__, ClientDisconnect)
            # The status that may already have been sent was a promise that the server broke.
            if not finished:
                self._finish(scope, contract.CLIENT_CLOSED_REQUEST if client_left else 500, started)
            raise
        if not finished:
            # The server stops a streaming response quietly when the client leaves. No response at all is our fault.
            self._finish(scope, contract.CLIENT_CLOSED_REQUEST if status else 500, started)

    def _finish(self, scope: Scope, status: int, started: float) -> None:
        seconds = perf_counter() - started
        self.metrics.in_flight -= 1
        template = self._templates.get(id(scope.get("route")), contract.UNMATCHED_ROUTE)
        self.metrics.record(scope["method"], template, status, seconds)
