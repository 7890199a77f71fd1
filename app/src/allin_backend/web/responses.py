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
from allin_backend.database.tables import now
from allin_backend.database.users import UnknownUserError
from allin_backend.logs import request_id
from allin_backend.metrics.contract import CLIENT_CLOSED_REQUEST
from allin_backend.platforms.errors import PlatformError, RateLimitedError, UnauthorizedError
from allin_backend.platforms.oauth import AuthorizationError
from allin_backend.platforms.registry import UnknownPlatformError
from allin_backend.security.encryption import DecryptionError

_log: Final = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode

_DATABASE_RETRY_SECONDS: Final = 5
_PLATFORM_RETRY_SECONDS: Final = 30

PROBLEM: Final = "application/problem+json"
NO_STORE: Final = {"Cache-Control": "no-store"}
"""For answers with secrets in them."""
PLATFORM_PROBLEMS: Final = {
    HTTPStatus.TOO_MANY_REQUESTS: "The platform allows no more requests for now.",
    HTTPStatus.BAD_GATEWAY: "The platform did not do what it was asked to.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The platform does not answer.",
    HTTPStatus.CONFLICT: "The account must be connected again.",
}
"""What an endpoint that asks a platform can answer."""


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


async def _platform_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)  # noqa: S101  # registered for nothing else
    # Its text is for us: the platform's own words are not for callers.
    _log.warning("a platform did not do its part", extra={"fields": {"reason": str(error)}})
    wait = None if error.retry_at is None else (error.retry_at - now()).total_seconds()
    if isinstance(error, RateLimitedError):
        detail = f"{error.platform} allows no more requests for now."
        return ProblemResponse(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after(wait or 0))
    if isinstance(error, UnauthorizedError):
        return _reconnect(f"{error.platform} does not let this service in any more")
    if error.error in ("timeout", "connection", "circuit_open"):
        headers = retry_after(_PLATFORM_RETRY_SECONDS if wait is None else wait)
        return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, f"{error.platform} does not answer.", headers)
    headers = {} if wait is None else retry_after(wait)
    return ProblemResponse(HTTPStatus.BAD_GATEWAY, f"{error.platform} did not do what it was asked to.", headers)


async def _unknown_platform(request: Request, _error: Exception) -> Response:
    detail = "This service is not set up for this platform."
    return await _http_error(request, HTTPException(HTTPStatus.NOT_FOUND, detail))


async def _not_connected(_request: Request, error: Exception) -> Response:
    return ProblemResponse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))


async def _undecryptable(_request: Request, error: Exception) -> Response:
    _log.error("a stored secret cannot be read", extra={"fields": {"reason": str(error)}})
    return _reconnect("What this service keeps of the account cannot be read any more")


def _reconnect(reason: str) -> Response:
    return ProblemResponse(HTTPStatus.CONFLICT, f"{reason}; connect the account again.")


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
    PlatformError: _platform_error,
    UnknownPlatformError: _unknown_platform,
    AuthorizationError: _not_connected,
    DecryptionError: _undecryptable,
    Exception: _unexpected,
}
