"""Reading requests and writing answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

BODY_LIMIT: Final = 262_144


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        HTTPException: 413, it is larger than ``BODY_LIMIT`` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise HTTPException(413)
    return bytes(body)


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form; nothing of it if it is not one."""
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except ValueError:
        return {}


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")
