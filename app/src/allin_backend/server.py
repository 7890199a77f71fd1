"""Runs the application with uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from allin_backend import logs, paths
from allin_backend.app import create_app
from allin_backend.background import Background
from allin_backend.protocol import Refused, bounded_protocol
from allin_backend.settings import Settings
from allin_backend.web.operations import Operations
from allin_backend.web.responses import EXCEPTION_HANDLERS

_log: Final = logging.getLogger(__name__)

# How long a connection that is open when the stop begins may still bring its first request.
_FIRST_REQUEST_SECONDS: Final = 0.5
# Bytes of a request's head on the metrics port.
_HEAD_LIMIT: Final = 65_536
# A scrape that runs when all else has ended may still get its answer.
_LAST_SCRAPE_SECONDS: Final = 2.0


class MetricsListener:
    """Answers for this process alone, on a port of its own, in the server's event loop.

    Where several processes share the service's port, the kernel chooses who answers there. Requests here are not
    counted: they are no traffic of the service.
    """

    def __init__(self, operations: Operations, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        routes = [
            Route(paths.METRICS, operations.metrics),
            Route(paths.HEALTH, operations.health),
            Route(paths.READY, operations.ready),
        ]
        app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
        app.router.redirect_slashes = False
        self._config = _config(app, lifespan="off")
        self._state = ServerState()

    async def start(self) -> None:
        self._config.load()
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            self._servers.append(await loop.create_server(_protocols(self._config, self._state, {}), sock=listener))
            host, port = listener.getsockname()[:2]
            _log.info("serving metrics", extra={"fields": {"host": host, "port": port}})

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SCRAPE_SECONDS):
                while self._state.connections:
                    await asyncio.sleep(0.01)


class Server(uvicorn.Server):
    """uvicorn's server on sockets of ours, which loses no connection when it stops.

    Its sockets stay open until the connections that wait in them have been taken; the kernel resets what waits in a
    socket that is closed, also where other processes share its port.
    """

    def __init__(
        self, config: uvicorn.Config, settings: Settings, metrics: MetricsListener, background: Background
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._metrics = metrics
        self._background = background

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            # The event loop closes those that it is given.
            await super().startup([listener.dup() for listener in sockets or []])
        except OSError as error:
            # Another process was given the port since it was bound.
            _cannot_start(error)
            await self.lifespan.shutdown()
            sys.exit(1)
        await self._metrics.start()
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
        self._background.drain()
        await self._take_the_last(sockets or [])
        await super().shutdown(sockets)
        # Last, so that the end of the requests and of the jobs can be watched.
        await self._metrics.stop()
        _log.info("stopped")

    async def _take_the_last(self, sockets: list[socket.socket]) -> None:
        """Close the port, and let every connection that was made by then bring a request."""
        for server in self.servers:
            server.close()
        waiting: list[socket.socket] = []
        for listener in sockets:
            listener.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    waiting.append(listener.accept()[0])
            listener.close()
        protocol = _protocols(self.config, self.server_state, self.lifespan.state)
        for connection in waiting:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                while any(
                    isinstance(one, HttpToolsProtocol) and one.cycle is None for one in self.server_state.connections
                ):
                    await asyncio.sleep(0.01)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the process's exit code: 0 after a requested stop."""
    logs.configure(settings.log_level)
    try:
        # Taken first and at once: a second process of the same number then fails before it shares the service's port.
        metrics_sockets = bind(settings.host, settings.metrics_port) if settings.metrics_port else []
        for listener in metrics_sockets:
            listener.listen()
        sockets = bind(settings.host, settings.port, shared=bool(settings.metrics_port))
    except OSError as error:
        _cannot_start(error)
        return 1

    app = create_app(settings, CollectorRegistry())

    # uvicorn raises the signal once more when it has stopped in good order; that is then the end, with exit code 0.
    def leave(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    metrics = MetricsListener(app.state.operations, metrics_sockets)
    config = server_config(app, settings, app.state.count_refused)
    server = Server(config, settings, metrics, app.state.background)
    server.run(sockets)
    return 0 if server.started else 1


def server_config(app: ASGIApp, settings: Settings, refused: Refused | None = None) -> uvicorn.Config:
    """How uvicorn serves the application itself. ``refused`` is told of requests that do not get as far as that."""
    return _config(
        app,
        lifespan="on",
        # The application refuses from the limit on, in the usual form; this is for what would never get there.
        http=bounded_protocol(4 * settings.request_header_limit_bytes, refused),
        # Whoever is not named here could otherwise choose the address under which it is counted.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
    )


def _cannot_start(error: OSError) -> None:
    _log.error("cannot start", extra={"fields": {"reason": str(error)}})


def _config(app: ASGIApp, **options: object) -> uvicorn.Config:
    """What both listeners have in common."""
    common: dict[str, object] = {
        "loop": "uvloop",
        "http": bounded_protocol(_HEAD_LIMIT),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }
    return uvicorn.Config(app, **(common | options))  # type: ignore[arg-type]


def _protocols(config: uvicorn.Config, state: ServerState, app_state: dict[str, Any]) -> partial[HttpToolsProtocol]:
    """Makes the protocol of each new connection, as uvicorn itself does."""
    made: Any = config.http_protocol_class
    return partial(made, config=config, server_state=state, app_state=app_state)


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Sockets bound to every address that ``host`` has; they listen when the server starts.

    ``shared`` lets several processes of one user bind the same port; the kernel spreads connections over them.

    Raises:
        OSError: the port is taken or the address is not this machine's; the message names both.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # The IPv4 addresses of a name get a socket of their own.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from error
    return sockets
