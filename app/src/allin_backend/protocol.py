"""The server's protocol, with an end to what it collects of a request before the application sees it."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

Refused = Callable[[str], None]
"""Told the method of a request that was refused here."""

_REFUSAL: Final = STATUS_LINE[HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE] + (
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def bounded_protocol(head_limit: int, refused: Refused | None = None) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, which gives a connection up when a request's head has gone on beyond ``head_limit`` bytes.

    uvicorn and its parser have no limit: they would keep whatever somebody sends as one endless head. The limit is for
    what arrives after the first part of a head, so it is exact to within one read.
    """

    class BoundedProtocol(HttpToolsProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._in_head = False
            self._head_size = 0

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._in_head:
                self._head_size += len(data)
                if self._head_size > head_limit:
                    self._refuse()
                    return
            super().data_received(data)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True
            self._head_size = 0

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def _refuse(self) -> None:
            if refused is not None:
                refused(self.parser.get_method().decode("ascii", "replace"))
            # An answer that is still being made to an earlier request on this connection is lost with it.
            self.transport.write(_REFUSAL)
            self.transport.close()

    return BoundedProtocol
