"""What real connections leave behind in the metrics, on the server as the backend configures it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass

import pytest
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.http import HttpMetricsMiddleware
from allin_backend.paths import HEALTH, POST, POSTS
from allin_backend.server import server_config
from allin_backend.settings import Settings
from support import DEADLINE

Counts = dict[tuple[str, str, str], float]


class Service:
    """A measured application on a port of its own, which answers with a word, a stream that never ends, or the body."""

    def __init__(self, settings: Settings) -> None:
        self._registry = CollectorRegistry()
        self._metrics = BackendMetrics(self._registry, version="0", release="0")
        app = Starlette(
            routes=[
                Route(HEALTH, self._word),
                Route(POST, self._word),
                Route(POSTS, self._stream),
            ]
        )
        measured = HttpMetricsMiddleware(app, self._metrics.http, app.routes)
        self._server = uvicorn.Server(server_config(measured, settings))
        self.port = 0

    async def _word(self, _request: Request) -> Response:
        return PlainTextResponse("word")

    async def _stream(self, _request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"more"
                await asyncio.sleep(0.001)

        return StreamingResponse(body())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        task = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(DEADLINE):
            while not self._server.started:
                await asyncio.sleep(0.001)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.should_exit = True
            await task

    def counts(self) -> Counts:
        return {
            (sample.labels["method"], sample.labels["route"], sample.labels["status_code"]): sample.value
            for family in self._registry.collect()
            if family.name == "allin_http_requests"
            for sample in family.samples
        }

    def in_flight(self) -> float | None:
        return self._registry.get_sample_value("allin_active_connections")

    async def exchange(self, sent: bytes) -> bytes:
        """Everything that comes back until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            return await reader.read()
        finally:
            writer.close()


def request(line: str, *headers: str, host: str = "x", close: bool = True) -> bytes:
    last = ["Connection: close"] if close else []
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *headers, *last, "", ""]).encode()


def with_service(settings: Settings, scenario: Callable[[Service], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE), Service(settings).running() as service:
            await scenario(service)
            assert service.in_flight() == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@dataclass(frozen=True)
class Case:
    name: str
    sent: bytes
    statuses: list[int]
    expected: Counts


CASES = [
    Case("HEAD", request("HEAD /health"), [200], {("HEAD", HEALTH, "200"): 1}),
    Case(
        "pipelined requests",
        request("GET /health", close=False) + request("GET /api/v1/posts/1", close=False) + request("GET /nowhere"),
        [200, 200, 404],
        {("GET", HEALTH, "200"): 1, ("GET", POST, "200"): 1, ("GET", "unmatched", "404"): 1},
    ),
    # The server's parser knows the methods of HTTP and its relatives. Others do not reach the application.
    Case("made-up method", request("BREW /health"), [400], {}),
    Case("method in lower case", request("get /health"), [400], {}),
    Case("method that only the server knows", request("PROPFIND /health"), [405], {("OTHER", HEALTH, "405"): 1}),
    Case("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400], {}),
    Case("made-up host", request("GET /health", host="made.up.example.com"), [200], {("GET", HEALTH, "200"): 1}),
    Case("path in full", request("GET http://made.up.example.com/health"), [200], {("GET", HEALTH, "200"): 1}),
    Case("no path", request("OPTIONS *"), [404], {("OPTIONS", "unmatched", "404"): 1}),
    Case("encoded path", request("GET /%68ealth?query=1"), [200], {("GET", HEALTH, "200"): 1}),
    Case("path that climbs", request("GET /api/v1/posts/../../health"), [404], {("GET", "unmatched", "404"): 1}),
    # The server speaks no websockets, so this is the GET that it also is.
    Case(
        "websocket",
        request(
            "GET /health",
            "Connection: Upgrade, close",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            close=False,
        ),
        [200],
        {("GET", HEALTH, "200"): 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_sent_and_counted(case: Case, settings: Settings) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.exchange(case.sent)

        assert [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == case.statuses
        assert service.counts() == case.expected
        if case.name == "HEAD":
            assert b"content-length: 4" in answer.lower()
            assert not answer.partition(b"\r\n\r\n")[2]

    with_service(settings, scenario)


def test_one_connection_may_bring_several_requests(settings: Settings) -> None:
    async def scenario(service: Service) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        for number in range(1, 4):
            writer.write(request("GET /health", close=False))
            await reader.readuntil(b"word")
            assert service.counts() == {("GET", HEALTH, "200"): number}
            # The connection is open and idle: it is no request.
            assert service.in_flight() == 0
        writer.close()

    with_service(settings, scenario)


@pytest.mark.parametrize("reset", [False, True])
def test_client_that_leaves_during_a_stream_is_499(settings: Settings, reset: bool) -> None:
    async def scenario(service: Service) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request("GET /api/v1/posts", close=False))
        await reader.readuntil(b"more")
        assert service.in_flight() == 1
        assert service.counts() == {}
        if reset:
            writer.transport.abort()
        else:
            writer.close()
        while service.in_flight():
            await asyncio.sleep(0.001)

        assert service.counts() == {("GET", POSTS, "499"): 1}

    with_service(settings, scenario)


def test_made_up_hosts_and_paths_add_a_fixed_number_of_series(settings: Settings) -> None:
    async def scenario(service: Service) -> None:
        for number in range(20):
            for path in (f"/api/v1/posts/{number}", f"/nowhere/{number}"):
                await service.exchange(request(f"GET {path}", host=f"host{number}.example.com"))

        assert service.counts() == {("GET", POST, "200"): 20, ("GET", "unmatched", "404"): 20}

    with_service(settings, scenario)
