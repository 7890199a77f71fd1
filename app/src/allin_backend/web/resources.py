"""The flat route table: one entry for each path, with its methods. The API's description is made from it as well."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query string. ``kind`` is a type that msgspec can describe."""

    name: str
    kind: Any
    description: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A handler and what the API's description says of it.

    ``success`` is the status with which it answers when all goes well, ``answer`` the type of that answer's content
    (``None``: no content), ``body`` the type of the request's. ``problems`` has the statuses that are this endpoint's
    own, with the reason for each; those that any endpoint can answer are added by the description.
    """

    handler: Handler
    success: int = 200
    answer: Any = None
    media_type: str = JSON
    body: type[msgspec.Struct] | None = None
    query: tuple[Parameter, ...] = ()
    problems: Mapping[HTTPStatus, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the successful answer, with their meanings."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A path and what each method does there. ``HEAD`` comes with ``GET``."""

    path: str
    endpoints: Mapping[str, Endpoint]

    @property
    def path_parameters(self) -> list[str]:
        """The names in the path's braces, in their order."""
        return re.findall(r"\{(\w+)\}", self.path)

    def route(self, *middleware: Middleware) -> Route:
        """The Starlette route. One for all methods, so that the ``Allow`` header of a 405 is complete."""
        endpoints = dict(self.endpoints)
        if "GET" in endpoints:
            endpoints["HEAD"] = endpoints["GET"]

        async def dispatch(request: Request) -> Response:
            endpoint = endpoints[request.method]
            if endpoint.query:
                _refuse_unknown(request, endpoint.query)
            return await endpoint.handler(request)

        return Route(self.path, dispatch, methods=list(endpoints), middleware=middleware)


def _refuse_unknown(request: Request, known: Sequence[Parameter]) -> None:
    """A parameter with a slip in its name would otherwise be as if it were not there."""
    names = [parameter.name for parameter in known]
    if not request.query_params.keys() <= set(names):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The query string takes {' and '.join(names)} only.")
