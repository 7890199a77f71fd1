"""Runs the simulator with uvicorn."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from allin_simulator.app import create_simulator
from allin_simulator.faults import ConnectionDroppedError, NeverAnsweredError
from allin_simulator.settings import Settings


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Requests that are cut off now are no news.
        logging.disable()
        super().handle_exit(sig, frame)


class DroppingConnections:
    """Ends the connection where the application says so.

    ASGI has no message for that; the transport of uvicorn's connection is behind ``send``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            _abort(send)  # the simulator stops; without this the answer would be 500
            raise
        except (ConnectionDroppedError, NeverAnsweredError):
            _abort(send)
            # Until uvicorn knows it: it would send an answer of its own otherwise.
            while (await receive())["type"] != "http.disconnect":
                pass


def _abort(send: Send) -> None:
    send.__self__.transport.abort()  # type: ignore[attr-defined]


def serve(settings: Settings, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT. Returns the process's exit code: 0 after a requested stop, 1 if it cannot start.

    Nothing is waited for at the end: a test tool that hangs is worse than a request cut off.
    """
    # uvicorn raises the signal once more when it has stopped; that is then the end, with exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        print(f"allin-simulator: {host} port {port}: {error.strerror or error}", file=sys.stderr)
        return 1
    config = uvicorn.Config(
        DroppingConnections(create_simulator(settings)),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=0,
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"allin-simulator: serving on http://{shown}:{listener.getsockname()[1]}", flush=True)
    _Server(config).run(sockets=[listener])
    return 0
