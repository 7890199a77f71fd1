"""What counts as which request: the cases that the usual instrumentations get wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from allin_backend import paths
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.http import HttpMetricsMiddleware
from support import DEADLINE, Caller, http_scope

Handler = Callable[[Request], Awaitable[Response]]


class Bench:
    """A Starlette application with one handler under a path of the contract, measured."""

    def __init__(self, app: ASGIApp) -> None:
        self.registry = CollectorRegistry()
        self.metrics = BackendMetrics(self.registry, version="0", release="0")
        self.app = HttpMetricsMiddleware(app, self.metrics.http)

    def counts(self, in_flight: float | None = 0) -> dict[tuple[str, str, str], float]:
        """Requests by method, route and status. Counter and histogram must agree, and the number in flight fit."""
        found = {}
        for family in self.registry.collect():
            if family.name == "allin_http_requests":
                for sample in family.samples:
                    labels = sample.labels
                    found[labels["method"], labels["route"], labels["status_code"]] = sample.value
                    name = "allin_http_request_duration_seconds_count"
                    assert self.registry.get_sample_value(name, labels) == sample.value
        assert in_flight in (None, self.registry.get_sample_value("allin_active_connections"))
        return found

    def seconds(self, method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status_code": status}
        total = self.registry.get_sample_value("allin_http_request_duration_seconds_sum", labels)
        assert total is not None
        return total


def bench(handler: Handler) -> Bench:
    return Bench(Starlette(routes=[Route(paths.USER, handler), Route(paths.HEALTH, handler)]))


async def ok(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def fails(_request: Request) -> Response:
    raise RuntimeError("broken")


async def http_error(_request: Request) -> Response:
    raise HTTPException(404)


async def connection_error(_request: Request) -> Response:
    # What a database driver raises when its server is gone; the client is still there.
    raise ConnectionResetError("the database hung up")


async def odd_status(_request: Request) -> Response:
    return Response(status_code=799)


async def breaks_after_start(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("broken")

    return StreamingResponse(body())


async def connection_error_after_start(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise ConnectionResetError("the database hung up")

    return StreamingResponse(body())


async def endless(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b"more"

    return StreamingResponse(body())


async def reads_body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (ok, "200"),
        (http_error, "404"),
        (fails, "500"),
        (connection_error, "500"),
        (breaks_after_start, "500"),
        (connection_error_after_start, "500"),
        (odd_status, "other"),
    ],
    ids=lambda parameter: getattr(parameter, "__name__", parameter),
)
def test_status_of_a_request(handler: Handler, expected: str) -> None:
    target = bench(handler)
    client = TestClient(target.app, raise_server_exceptions=False)

    client.get("/api/v1/users/7")

    assert target.counts() == {("GET", paths.USER, expected): 1}


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
def test_client_that_leaves_during_a_stream_is_499(spec: str) -> None:
    target = bench(endless)
    caller = Caller(http_scope("/api/v1/users/7", spec=spec), gone_after=3, send_raises=spec == "2.4")

    # Servers that raise in send() make Starlette raise as well.
    with pytest.raises(ClientDisconnect) if caller.send_raises else contextlib.nullcontext():
        asyncio.run(asyncio.wait_for(caller.run(target.app), DEADLINE))

    assert caller.status == 200
    assert target.counts() == {("GET", paths.USER, "499"): 1}


def test_client_that_leaves_before_its_body_is_complete_is_499(app: Starlette, registry: CollectorRegistry) -> None:
    headers = {"content-type": "application/json"}
    caller = Caller(http_scope(paths.POSTS, "POST", headers), gone_after=0)

    asyncio.run(caller.run(app))

    labels = {"method": "POST", "route": paths.POSTS, "status_code": "499"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1
    labels["status_code"] = "500"
    assert registry.get_sample_value("allin_http_requests_total", labels) == 0


def test_cancelled_request_is_499() -> None:
    started = asyncio.Event()

    async def waits(_request: Request) -> Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    async def scenario() -> None:
        task = asyncio.create_task(Caller(http_scope("/health")).run(target.app))
        await started.wait()
        assert target.registry.get_sample_value("allin_active_connections") == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    target = bench(waits)
    asyncio.run(scenario())

    assert target.counts() == {("GET", paths.HEALTH, "499"): 1}


def test_application_without_a_response_is_500() -> None:
    async def silent(_scope: Scope, _receive: Receive, _send: Send) -> None:
        return

    target = Bench(silent)
    asyncio.run(Caller(http_scope("/health")).run(target.app))

    assert target.counts() == {("GET", "unmatched", "500"): 1}


def test_clock_runs_to_the_end_of_the_body_and_not_further() -> None:
    release = asyncio.Event()

    async def stream(_request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x"
                await asyncio.sleep(0.05)

        return StreamingResponse(body(), background=BackgroundTask(release.wait))

    async def scenario() -> None:
        request = asyncio.create_task(Caller(http_scope("/health")).run(target.app))
        async with asyncio.timeout(DEADLINE):
            while not target.counts(in_flight=None):
                await asyncio.sleep(0.001)
        # Counted as done, although the work after the response still runs.
        assert target.counts() == {("GET", paths.HEALTH, "200"): 1}
        assert not request.done()
        release.set()
        await request

    target = bench(stream)
    asyncio.run(scenario())

    assert target.seconds("GET", paths.HEALTH, "200") >= 0.19
    assert target.counts() == {("GET", paths.HEALTH, "200"): 1}


def test_failure_after_the_response_does_not_change_it() -> None:
    def background() -> None:
        raise RuntimeError("broken")

    async def handler(_request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(background))

    target = bench(handler)
    TestClient(target.app, raise_server_exceptions=False).get("/health")

    assert target.counts() == {("GET", paths.HEALTH, "200"): 1}


def test_made_up_paths_methods_and_hosts_add_a_fixed_number_of_series() -> None:
    target = bench(ok)

    async def scenario() -> None:
        for number in range(400):
            method = f"METHOD{number}" if number % 2 else "GET"
            path = f"/api/v1/users/{number}" if number % 4 < 2 else f"/nowhere/{number}"
            await Caller(http_scope(path, method, {"host": f"host{number}.example.com"})).run(target.app)

    asyncio.run(scenario())

    assert target.counts() == {
        ("GET", paths.USER, "200"): 100,
        ("OTHER", paths.USER, "405"): 100,
        ("GET", "unmatched", "404"): 100,
        ("OTHER", "unmatched", "404"): 100,
    }


def test_slash_redirects_do_not_show_concrete_paths() -> None:
    target = bench(ok)  # Starlette's default: redirects
    client = TestClient(target.app, follow_redirects=False)

    assert {client.get(f"/api/v1/users/{number}/").status_code for number in range(20)} == {307}

    assert target.counts() == {("GET", "unmatched", "307"): 20}


def test_preflights_do_not_show_concrete_paths() -> None:
    cors = Middleware(CORSMiddleware, allow_origins=["https://app.example.com"])
    target = Bench(Starlette(routes=[Route(paths.USER, ok)], middleware=[cors]))
    client = TestClient(target.app)
    headers = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}

    assert {client.options(f"/api/v1/users/{number}", headers=headers).status_code for number in range(20)} == {200}

    assert target.counts() == {("OPTIONS", "unmatched", "200"): 20}


def test_head_has_its_own_method() -> None:
    target = bench(ok)
    TestClient(target.app).head("/api/v1/users/1")

    assert target.counts() == {("HEAD", paths.USER, "200"): 1}


def test_paths_below_a_mount_are_not_mistaken_for_routes() -> None:
    target = Bench(Starlette(routes=[Mount("/tenant", routes=[Route("/users/{uid}", ok)])]))
    client = TestClient(target.app)
    client.get("/tenant/users/1")
    client.get("/tenant/users/2")

    assert target.counts() == {("GET", "unmatched", "200"): 2}


def test_metrics_requests_are_not_measured(client: TestClient, registry: CollectorRegistry) -> None:
    before = _total(registry)
    for method in ("GET", "HEAD", "POST"):
        client.request(method, "/metrics")

    assert _total(registry) == before
    assert "allin_active_connections 0.0" in client.get("/metrics").text


def test_health_is_measured(client: TestClient, registry: CollectorRegistry) -> None:
    client.get("/health")

    labels = {"method": "GET", "route": "/health", "status_code": "200"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1


def test_websockets_are_left_alone() -> None:
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    target = Bench(Starlette(routes=[WebSocketRoute("/socket", echo)]))
    with TestClient(target.app).websocket_connect("/socket") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"

    assert target.counts() == {}


def test_unhandled_error_in_the_whole_application(
    app: Starlette, client: TestClient, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("a secret inside")

    monkeypatch.setattr("allin_backend.database.posts.PostStore.get", broken)
    response = client.get("/api/v1/posts/1", headers={"X-Request-ID": "abc"})

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == "abc"
    assert response.json()["request_id"] == "abc"
    assert "secret" not in response.text
    labels = {"method": "GET", "route": "/api/v1/posts/{post_id}", "status_code": "500"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1
    assert registry.get_sample_value("allin_active_connections") == 0


def test_value_on_a_bound_is_in_that_bucket() -> None:
    target = bench(ok)
    target.metrics.http.record("GET", "/health", 200, 0.2)
    labels = {"method": "GET", "route": "/health", "status_code": "200"}

    def bucket(bound: str) -> float | None:
        return target.registry.get_sample_value("allin_http_request_duration_seconds_bucket", labels | {"le": bound})

    assert (bucket("0.15"), bucket("0.2"), bucket("10.0"), bucket("+Inf")) == (0, 1, 1, 1)
    target.metrics.http.record("GET", "/health", 200, 60)
    assert (bucket("10.0"), bucket("+Inf")) == (1, 2)


def _total(registry: CollectorRegistry) -> float:
    return sum(
        sample.value
        for family in registry.collect()
        if family.name == "allin_http_requests"
        for sample in family.samples
    )
