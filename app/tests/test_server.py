"""The server: its sockets, and what becomes of connections when it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from allin_backend.app import create_app
from allin_backend.server import MetricsListener, Server, bind, server_config
from support import DEADLINE, Caller, http_scope, make_settings

REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
Scenario = Callable[[Server, tuple[str, int]], Awaitable[None]]


def serve_until_stopped(directory: Path, scenario: Scenario) -> None:
    """Starts a server, calls the scenario with it and its address, and stops it."""

    settings = make_settings(directory)

    async def run() -> None:
        app = create_app(settings, CollectorRegistry())
        metrics = MetricsListener(app.state.operations, [])
        server = Server(server_config(app, settings), settings, metrics, app.state.background)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        sockets = bind("127.0.0.1", 0)
        address = sockets[0].getsockname()
        await server.startup(sockets)
        try:
            await scenario(server, address)
        finally:
            await server.shutdown(sockets)

    asyncio.run(run())


def test_connection_that_waits_in_the_socket_is_answered(tmp_path: Path) -> None:
    with socket.socket() as client:
        client.settimeout(DEADLINE)

        async def connect(_server: Server, address: tuple[str, int]) -> None:
            # No turn of the loop lies between this and the stop: only the kernel knows of the connection.
            client.connect(address)
            client.sendall(REQUEST)

        serve_until_stopped(tmp_path, connect)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_connection_without_a_request_may_still_bring_it(tmp_path: Path) -> None:
    with socket.socket() as client:
        client.settimeout(DEADLINE)

        async def connect(server: Server, address: tuple[str, int]) -> None:
            client.connect(address)
            while not server.server_state.connections:
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(client.sendall, REQUEST)

        serve_until_stopped(tmp_path, connect)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_connection_that_stays_silent_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with socket.socket() as client:
        client.settimeout(DEADLINE)

        async def connect(_server: Server, address: tuple[str, int]) -> None:
            client.connect(address)

        serve_until_stopped(tmp_path, connect)
        assert client.recv(4096) == b""


def test_port_is_shared_only_where_that_is_asked_for() -> None:
    (first,) = bind("127.0.0.1", 0, shared=True)
    port = first.getsockname()[1]
    (second,) = bind("127.0.0.1", port, shared=True)
    with first, second:
        first.listen()
        second.listen()
        with pytest.raises(OSError, match=rf"127\.0\.0\.1 port {port}"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("trusted", "client"),
    [
        ("", "192.0.2.7"),
        ("10.1.1.1", "192.0.2.7"),
        ("192.0.2.0/24", "198.51.100.9"),
        ("10.1.1.1,192.0.2.7", "198.51.100.9"),
    ],
)
def test_only_trusted_proxies_name_the_client(tmp_path: Path, trusted: str, client: str) -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["client"][0])

    config = server_config(app, make_settings(tmp_path, ALLIN_TRUSTED_PROXIES=trusted))
    config.load()
    scope = http_scope("/", headers={"X-Forwarded-For": "203.0.113.5, 198.51.100.9"})
    scope["client"] = ("192.0.2.7", 1)
    asyncio.run(Caller(scope).run(config.loaded_app))

    assert seen == [client]
