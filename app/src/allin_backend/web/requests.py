"""Reading what callers send: bodies, ids, page cursors."""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import Annotated, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allin_backend.web.resources import Parameter

T = TypeVar("T", bound=msgspec.Struct)
LARGEST_ID: Final = 2**63 - 1
Id = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_ID)]
TEXT: Final = r"^[^\u0000]*$"
"""The pattern of a text that every database can store: PostgreSQL takes no NUL."""
# What is left of a refused request is not read, so its connection cannot be used again.
_CLOSE: Final = {"Connection": "close"}


class SizeLimitMiddleware:
    """Refuses headers above ``headers`` bytes and bodies above ``body`` bytes.

    A body is refused by its announced length or, failing that, while it arrives. Set on each route rather than around
    the application, so that the refusal passes through the error handlers and is measured under its route.
    """

    def __init__(self, app: ASGIApp, *, headers: int, body: int) -> None:
        self.app = app
        self.headers = headers
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self.body:
                raise self._body_refusal()
        if size > self.headers:
            raise HTTPException(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The request's headers are larger than {self.headers} bytes in sum.",
                _CLOSE,
            )
        arrived = 0

        async def limited_receive() -> Message:
            nonlocal arrived
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > self.body:
                    raise self._body_refusal()
            return message

        await self.app(scope, limited_receive, send)

    def _body_refusal(self) -> HTTPException:
        return HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request body is larger than {self.body} bytes.", _CLOSE
        )


async def read_json(request: Request, kind: type[T]) -> T:
    """The request's body as a ``kind``.

    Raises:
        HTTPException: 415 if it is not declared as JSON, 400 if it is not JSON, 422 if it is not a ``kind``.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {error}.") from None


def path_id(request: Request, name: str) -> int | None:
    """The number in the path under ``name``; ``None`` if it is no number that a record can have."""
    return _id(request.path_params[name])


PAGE: Final = 20
LARGEST_PAGE: Final = 100
LIMIT: Final = Parameter(
    "limit",
    Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PAGE)],
    f"The most items of a page; {PAGE} if it is left out.",
)
CURSOR: Final = Parameter("cursor", str, "The next_cursor of an earlier page; left out for the first page.")


def query_limit(request: Request) -> int:
    """The ``limit`` of the query string.

    Raises:
        HTTPException: 400 if it is not a whole number from 1 to ``LARGEST_PAGE``.
    """
    text = request.query_params.get(LIMIT.name)
    if text is None:
        return PAGE
    number = _id(text)
    if number is None or number > LARGEST_PAGE:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"limit must be a whole number from 1 to {LARGEST_PAGE}.")
    return number


def query_cursor(request: Request) -> int | None:
    """The id behind the ``cursor`` of the query string.

    Raises:
        HTTPException: 400 if it was not made by ``make_cursor``.
    """
    text = request.query_params.get(CURSOR.name)
    if text is None:
        return None
    try:
        number = _id(base64.urlsafe_b64decode(text.encode("ascii") + b"==").decode("ascii"))
    except (binascii.Error, ValueError):
        number = None
    if number is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "cursor must be the next_cursor of an earlier page.")
    return number


def make_cursor(last_id: int) -> str:
    """A cursor for the records after ``last_id``. Callers must not look inside, so that its content may change."""
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def _id(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if 1 <= number <= LARGEST_ID else None
