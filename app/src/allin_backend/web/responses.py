"""JSON bodies and RFC 9457 problems."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.logs import request_id
from allin_backend.metrics.contract import CLIENT_CLOSED_REQUEST

_log: Final = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode


class JsonResponse(Response):
    """A response whose content is anything that msgspec can encode."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _encode(content)


class ProblemResponse(JsonResponse):
    """An error as RFC 9457 describes it. ``detail`` tells the caller what to change, and nothing of our insides."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        if identifier := request_id.get():
            problem["request_id"] = identifier
        super().__init__(problem, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "There is nothing at this address."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not possible here; the Allow header says what is."
    return ProblemResponse(error.status_code, detail, error.headers)


async def _client_gone(_request: Request, _error: Exception) -> Response:
    # Nobody receives this; the status is what the metrics and the log record.
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _database_error(_request: Request, error: Exception) -> Response:
    _log.error("the database did not answer", exc_info=error)
    detail = "The database does not answer; try again."
    return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"})


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # The server logs the exception, which is raised on after this response.
    return ProblemResponse(
        HTTPStatus.INTERNAL_SERVER_ERROR, "This is an error of the service; report it with the request_id."
    )


EXCEPTION_HANDLERS: Final[Mapping[type[Exception], ExceptionHandler]] = {
    HTTPException: _http_error,
    ClientDisconnect: _client_gone,
    DatabaseUnavailableError: _database_error,
    Exception: _unexpected,
}
