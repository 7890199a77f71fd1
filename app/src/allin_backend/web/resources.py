"""The flat route table: one entry for each path, with its methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A handler and the status with which it answers when all goes well."""

    handler: Handler
    success: int = 200


@dataclass(frozen=True, slots=True)
class Resource:
    """A path and what each method does there. ``HEAD`` comes with ``GET``."""

    path: str
    endpoints: Mapping[str, Endpoint]

    def route(self, *middleware: Middleware) -> Route:
        """The Starlette route. One for all methods, so that the ``Allow`` header of a 405 is complete."""
        handlers = {method: endpoint.handler for method, endpoint in self.endpoints.items()}
        if "GET" in handlers:
            handlers["HEAD"] = handlers["GET"]

        async def dispatch(request: Request) -> Response:
            return await handlers[request.method](request)

        return Route(self.path, dispatch, methods=list(handlers), middleware=middleware)
