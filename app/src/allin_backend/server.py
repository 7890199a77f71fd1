"""Runs the application with uvicorn."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry

from allin_backend import logs
from allin_backend.app import create_app
from allin_backend.settings import Settings

_log: Final = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What exists now stays. Collections that need not look at it again stop the loop for less time.
        gc.collect()
        gc.freeze()
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                fields = {
                    "host": host,
                    "port": port,
                    "environment": self._settings.environment,
                    "release": self._settings.release,
                    "database": self._settings.database_url.render_as_string(hide_password=True),
                }
                _log.info("serving", extra={"fields": fields})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("stopping", extra={"fields": {"grace_seconds": self._settings.shutdown_grace_seconds}})
        await super().shutdown(sockets)
        _log.info("stopped")


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the process's exit code: 0 after a requested stop."""
    logs.configure(settings.log_level)
    config = uvicorn.Config(
        create_app(settings, CollectorRegistry()),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
    )

    # uvicorn raises the signal once more when it has stopped in good order; that is then the end, with exit code 0.
    def leave(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    server = _Server(config, settings)
    server.run()
    return 0 if server.started else 1
