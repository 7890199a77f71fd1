"""JSON bodies and RFC 9457 problems."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.database.users import UnknownUserError
from allin_backend.logs import request_id
from allin_backend.metrics.contract import CLIENT_CLOSED_REQUEST

_log: Final = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode

_DATABASE_RETRY_SECONDS: Final = 5

PROBLEM: Final = "application/problem+json"
NO_STORE: Final = {"Cache-Control": "no-store"}
"""For answers with secrets in them."""


class JsonResponse(Response):
    """A response whose content is anything that msgspec can encode."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _encode(content)


class Problem(msgspec.Struct, frozen=True):
    """An error as RFC 9457 describes it. ``detail`` tells the caller what to change."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | msgspec.UnsetType = msgspec.UNSET


class ProblemResponse(JsonResponse):
    """A response with a problem. Its ``detail`` has nothing of our insides."""

    media_type = PROBLEM

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        identifier = request_id.get() or msgspec.UNSET
        super().__init__(Problem("about:blank", HTTPStatus(status).phrase, status, detail, identifier), status, headers)


def no_such(kind: str) -> HTTPException:
    """The refusal for a record that does not exist, or is another user's: callers cannot tell."""
    return HTTPException(HTTPStatus.NOT_FOUND, f"There is no {kind} with this id.")


def too_many(detail: str, wait: float) -> HTTPException:
    """The refusal of what would be allowed again in ``wait`` seconds."""
    return HTTPException(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after(wait))


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to try again."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


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


def sign_in_first(detail: str) -> HTTPException:
    """The refusal of a request without a session, or of a password."""
    return HTTPException(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})


async def _database_error(_request: Request, error: Exception) -> Response:
    _log.error("the database did not answer", exc_info=error)
    detail = "The database does not answer; try again."
    return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after(_DATABASE_RETRY_SECONDS))


async def _user_gone(request: Request, _error: Exception) -> Response:
    # Deleted while this request was on its way.
    return await _http_error(request, sign_in_first("The user of this session has been deleted."))


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # The server logs the exception, which is raised on after this response.
    return ProblemResponse(
        HTTPStatus.INTERNAL_SERVER_ERROR, "This is an error of the service; report it with the request_id."
    )


EXCEPTION_HANDLERS: Final[Mapping[type[Exception], ExceptionHandler]] = {
    HTTPException: _http_error,
    ClientDisconnect: _client_gone,
    DatabaseUnavailableError: _database_error,
    UnknownUserError: _user_gone,
    Exception: _unexpected,
}
