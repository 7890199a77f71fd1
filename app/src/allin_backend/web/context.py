"""The id and the log line of each request."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from time import perf_counter
from typing import Final
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allin_backend import paths
from allin_backend.logs import request_id
from allin_backend.metrics.contract import CLIENT_CLOSED_REQUEST, UNMATCHED_ROUTE

_log: Final = logging.getLogger(__name__)
_ACCEPTABLE_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Asked for every few seconds by machines: their lines would be most of the log.
_QUIET: Final = frozenset({paths.HEALTH, paths.READY, paths.METRICS})


class RequestContextMiddleware:
    """Gives each request an id (the caller's ``X-Request-ID`` if it is acceptable) and logs how it ended.

    Sits outside Starlette's error handling, so that the responses to unhandled errors have the id as well. Query
    strings are not logged: they can hold secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        identifier = b""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
                identifier = value
        identifier = identifier or uuid4().hex.encode()
        # Left set: the server logs unhandled exceptions after this returns, in the same context, the request's own.
        request_id.set(identifier.decode())
        header = (b"x-request-id", identifier)
        status = 0

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            return send(message)

        started = perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        except (ClientDisconnect, asyncio.CancelledError):
            status = CLIENT_CLOSED_REQUEST
            raise
        except BaseException:
            status = 500
            raise
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET and status < 500 else logging.INFO
            if _log.isEnabledFor(level):
                fields = {
                    "method": scope["method"],
                    "route": getattr(scope.get("route"), "path", UNMATCHED_ROUTE),
                    "path": scope["path"][:200],
                    "status": status,
                    "duration_ms": round((perf_counter() - started) * 1000, 2),
                }
                _log.log(level, "request", extra={"fields": fields})
