"""What counts as which request: one row for each case that the usual instrumentations get wrong.

``test_http_metrics`` runs the rows against the middleware, ``test_http_metrics_mutants`` against broken copies of it.
Time is a clock that stands still unless an application moves it, so sums of seconds are compared exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from allin_backend.metrics.collector import BackendMetrics
from allin_backend.paths import HEALTH, METRICS, POST, POSTS
from allin_backend.web.responses import EXCEPTION_HANDLERS
from support import DEADLINE, Caller, http_scope

Series = tuple[str, str, str]
"""Method, route and status code."""


class Bench:
    """An application within the middleware of ``module``. Its handlers use ``look``, ``pass_time`` and ``wait``."""

    def __init__(self, module: ModuleType, make_app: Callable[[Bench], ASGIApp]) -> None:
        self.now = 0.0
        self.in_flight: list[int] = []
        self.waiting = asyncio.Event()
        self._registry = CollectorRegistry()
        self._metrics = BackendMetrics(self._registry, version="0", release="0")
        self._metrics.http = module.HttpMetrics()
        app = make_app(self)
        self.app: ASGIApp = module.HttpMetricsMiddleware(app, self._metrics.http, getattr(app, "routes", ()))

    def look(self) -> None:
        """Note the number of requests in flight."""
        self.in_flight.append(self._metrics.http.in_flight)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds

    async def wait(self) -> None:
        """Wait until the caller cancels the request."""
        self.waiting.set()
        await asyncio.Event().wait()

    def series(self) -> dict[Series, tuple[float, float]]:
        """Number of requests and their seconds, as a scrape shows them."""
        families = {family.name: family.samples for family in self._registry.collect()}
        shown: dict[str, dict[Series, float]] = {}
        for sample in [*families["allin_http_requests"], *families["allin_http_request_duration_seconds"]]:
            if "le" not in sample.labels:
                labels = sample.labels
                key = (labels["method"], labels["route"], labels["status_code"])
                shown.setdefault(sample.name.removeprefix("allin_http_"), {})[key] = sample.value
        requests = shown.get("requests_total", {})
        assert requests == shown.get("request_duration_seconds_count", {}), "counter and histogram differ"
        seconds = shown.get("request_duration_seconds_sum", {})
        return {key: (count, round(seconds[key], 6)) for key, count in requests.items()}


@dataclass(frozen=True)
class Call:
    """One request, and what the server sees of its end: the status sent (if any) and the exception raised (if any)."""

    path: str = HEALTH
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "http"
    status: int | None = 200
    raises: type[BaseException] | None = None
    gone_after: int | None = None
    send_raises: bool = False
    cancelled: bool = False

    async def run(self, bench: Bench) -> None:
        if self.kind != "http":
            await _talk(bench.app, self.kind, self.path)
            return
        spec = "2.4" if self.send_raises else "2.3"
        scope = http_scope(self.path, self.method, dict(self.headers), spec)
        caller = Caller(scope, gone_after=self.gone_after, send_raises=self.send_raises)
        task = asyncio.create_task(caller.run(bench.app))
        if self.cancelled:
            await bench.waiting.wait()
            task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        raised = type(end) if isinstance(end, BaseException) else None
        assert raised == self.raises, f"raised {end!r}"
        assert (caller.status if caller.sent else None) == self.status


async def _talk(app: ASGIApp, kind: str, path: str) -> None:
    """What a server does for a websocket, or at its start and stop."""
    begin, end = {"websocket": ("connect", "disconnect"), "lifespan": ("startup", "shutdown")}[kind]
    incoming: list[Message] = [{"type": f"{kind}.{begin}"}, {"type": f"{kind}.{end}", "code": 1000}]
    sent: list[str] = []
    scope: Scope = {"type": kind, "asgi": {"version": "3.0"}}
    if kind == "websocket":
        scope.update(path=path, raw_path=path.encode(), root_path="", headers=[], subprotocols=[])

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app(scope, receive, send)
    assert sent[0] in ("websocket.accept", "lifespan.startup.complete")


@dataclass(frozen=True)
class Row:
    """One case: an application, the calls to it, the series that they must leave behind with requests and seconds.

    ``in_flight`` is what ``Bench.look`` saw, in order; afterwards it must be 0 again. Calls are made one after the
    other, or ``together``.
    """

    name: str
    app: Callable[[Bench], ASGIApp]
    calls: list[Call]
    expected: dict[Series, tuple[int, float]]
    in_flight: list[int] = field(default_factory=list)
    together: bool = False


def run(row: Row, module: ModuleType, set_clock: Callable[[Callable[[], float]], None]) -> None:
    """Run one row against the middleware of ``module``, whose clock is replaced with ``set_clock``.

    Raises:
        AssertionError: the row does not come out as it must.
    """

    async def scenario() -> Bench:
        bench = Bench(module, row.app)
        set_clock(lambda: bench.now)
        async with asyncio.timeout(DEADLINE):
            if row.together:
                await asyncio.gather(*(call.run(bench) for call in row.calls))
            else:
                for call in row.calls:
                    await call.run(bench)
        return bench

    bench = asyncio.run(scenario())
    bench.look()
    assert bench.series() == row.expected
    assert bench.in_flight == [*row.in_flight, 0]


# --- applications -----------------------------------------------------------------------------------------------------


def routes(*found: BaseRoute, cors: bool = False) -> Callable[[Bench], ASGIApp]:
    """An application of these routes, with the error handlers of the backend."""
    middleware = [Middleware(CORSMiddleware, allow_origins=["https://app.example.com"])] if cors else []
    return lambda _bench: Starlette(routes=found, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)


async def ok(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def raw(_scope: Scope, _receive: Receive, send: Send) -> None:
    await PlainTextResponse("ok")(_scope, _receive, send)


def handler(answer: Callable[[Bench, Request], Awaitable[Response]], path: str = HEALTH) -> Callable[[Bench], ASGIApp]:
    """An application with one route, whose handler may use the bench."""

    def make(bench: Bench) -> ASGIApp:
        async def endpoint(request: Request) -> Response:
            return await answer(bench, request)

        return routes(Route(path, endpoint))(bench)

    return make


def stream(body: Callable[[Bench], AsyncIterator[bytes]]) -> Callable[[Bench], ASGIApp]:
    """An application that answers with a stream."""

    async def answer(bench: Bench, _request: Request) -> Response:
        return StreamingResponse(body(bench))

    return handler(answer)


async def looks(bench: Bench, _request: Request) -> Response:
    bench.look()
    return PlainTextResponse("ok")


async def slow(bench: Bench, _request: Request) -> Response:
    bench.pass_time(0.3)
    return PlainTextResponse("ok")


async def odd_status(_bench: Bench, _request: Request) -> Response:
    return Response(status_code=799)


async def not_found(_bench: Bench, _request: Request) -> Response:
    raise HTTPException(404)


async def broken(_bench: Bench, _request: Request) -> Response:
    raise RuntimeError("broken")


async def connection_error(_bench: Bench, _request: Request) -> Response:
    # What a database driver raises when its server is gone; the client is still there.
    raise ConnectionResetError("the database hung up")


async def reads_body(_bench: Bench, request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def waits(bench: Bench, _request: Request) -> Response:
    bench.look()
    await bench.wait()
    raise AssertionError("never reached")


async def works_afterwards(bench: Bench, _request: Request) -> Response:
    def work() -> None:
        bench.pass_time(0.2)
        bench.look()

    # Starlette runs a task that is no coroutine in a thread, but the request waits for it.
    return PlainTextResponse("ok", background=BackgroundTask(work))


async def fails_afterwards(_bench: Bench, _request: Request) -> Response:
    async def work() -> None:
        raise RuntimeError("broken")

    return PlainTextResponse("ok", background=BackgroundTask(work))


def meets(bench: Bench) -> ASGIApp:
    barrier = asyncio.Barrier(2)

    async def endpoint(_request: Request) -> Response:
        await barrier.wait()
        bench.look()
        await barrier.wait()
        return PlainTextResponse("ok")

    return routes(Route(HEALTH, endpoint))(bench)


async def four_parts(bench: Bench) -> AsyncIterator[bytes]:
    for _ in range(4):
        yield b"x"
        bench.pass_time(0.05)


async def endless(_bench: Bench) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield b"more"


async def breaks(_bench: Bench) -> AsyncIterator[bytes]:
    yield b"one"
    raise RuntimeError("broken")


async def loses_database(_bench: Bench) -> AsyncIterator[bytes]:
    yield b"one"
    raise ConnectionResetError("the database hung up")


async def stops_within(bench: Bench) -> AsyncIterator[bytes]:
    yield b"one"
    await bench.wait()


def raw_failure(_bench: Bench) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("broken")

    return app


def silent(_bench: Bench) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        return

    return app


def unfinished(_bench: Bench) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return app


def websocket(bench: Bench) -> ASGIApp:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        bench.look()

    return routes(WebSocketRoute(HEALTH, endpoint))(bench)


# --- rows -------------------------------------------------------------------------------------------------------------

FIFTY = range(50)
ORIGIN = {"origin": "https://app.example.com", "access-control-request-method": "GET"}

ROWS = [
    # Labels: whatever callers make up, the series are those of the contract.
    Row(
        "unmatched paths",
        routes(Route(POST, ok)),
        [Call(f"/nowhere/{number}", status=404) for number in FIFTY],
        {("GET", "unmatched", "404"): (50, 0)},
    ),
    Row(
        "concrete paths of one route",
        routes(Route(POST, ok)),
        [Call(f"/api/v1/posts/{number}") for number in FIFTY],
        {("GET", POST, "200"): (50, 0)},
    ),
    Row(
        "made-up methods",
        routes(Route(POST, ok)),
        [Call("/api/v1/posts/1", f"METHOD{number}", status=405) for number in FIFTY],
        {("OTHER", POST, "405"): (50, 0)},
    ),
    Row(
        "made-up Host headers",
        routes(Route(POST, ok)),
        [Call("/api/v1/posts/1", headers={"host": f"host{number}.example.com"}) for number in FIFTY],
        {("GET", POST, "200"): (50, 0)},
    ),
    Row(
        "status that HTTP does not have",
        handler(odd_status),
        [Call(status=799)],
        {("GET", HEALTH, "other"): (1, 0)},
    ),
    Row("HEAD", routes(Route(POST, ok)), [Call("/api/v1/posts/1", "HEAD")], {("HEAD", POST, "200"): (1, 0)}),
    # Routing
    Row(
        "mount",
        routes(Mount("/api/v1", routes=[Route("/posts/{post_id}", ok)])),
        [Call("/api/v1/posts/1"), Call("/api/v1/posts/2")],
        {("GET", POST, "200"): (2, 0)},
    ),
    Row(
        "mounted application",
        routes(Mount("/api/v1", app=Starlette(routes=[Route("/posts/{post_id}", ok)]))),
        [Call("/api/v1/posts/1")],
        {("GET", POST, "200"): (1, 0)},
    ),
    Row(
        "mount below a mount",
        routes(Mount("/api", routes=[Mount("/v1", routes=[Route("/posts", ok)])])),
        [Call("/api/v1/posts")],
        {("GET", POSTS, "200"): (1, 0)},
    ),
    Row(
        "mount with a parameter that the contract does not have",
        routes(Mount("/t/{tenant}", routes=[Route("/posts/{post_id}", ok)])),
        [Call(f"/t/tenant{number}/posts/1") for number in FIFTY],
        {("GET", "unmatched", "200"): (50, 0)},
    ),
    Row(
        "below a mount a path that looks like another route",
        routes(Mount("/admin", routes=[Route(HEALTH, ok)])),
        [Call("/admin/health")],
        {("GET", "unmatched", "200"): (1, 0)},
    ),
    Row(
        "mounted ASGI application",
        routes(Mount(POSTS, app=raw)),
        [Call("/api/v1/posts/1"), Call("/api/v1/posts/1/2")],
        {("GET", POSTS, "200"): (2, 0)},
    ),
    Row(
        "nothing found within a mount",
        routes(Mount("/api/v1", routes=[Route("/posts", ok)])),
        [Call(f"/api/v1/{number}", status=404) for number in FIFTY],
        {("GET", "unmatched", "404"): (50, 0)},
    ),
    Row(
        "route for one host",
        routes(Host("{name}.example.com", app=Starlette(routes=[Route(HEALTH, ok)]))),
        [Call(headers={"host": f"{name}.example.com"}) for name in ("a", "b")],
        {("GET", HEALTH, "200"): (2, 0)},
    ),
    Row(
        "slash redirects",
        routes(Route(POST, ok)),
        [Call(f"/api/v1/posts/{number}/", status=307) for number in FIFTY],
        {("GET", "unmatched", "307"): (50, 0)},
    ),
    Row(
        "method that a route does not have",
        routes(Route(POST, ok)),
        [Call("/api/v1/posts/1", "DELETE", status=405)],
        {("DELETE", POST, "405"): (1, 0)},
    ),
    Row(
        "preflights",
        routes(Route(POST, ok), cors=True),
        [Call(f"/api/v1/posts/{number}", "OPTIONS", ORIGIN) for number in FIFTY],
        {("OPTIONS", "unmatched", "200"): (50, 0)},
    ),
    # Errors
    Row("error that a handler answers", handler(not_found), [Call(status=404)], {("GET", HEALTH, "404"): (1, 0)}),
    Row(
        "unhandled exception",
        handler(broken),
        [Call(status=500, raises=RuntimeError)],
        {("GET", HEALTH, "500"): (1, 0)},
    ),
    Row(
        "exception that nobody makes a page of",
        raw_failure,
        [Call(status=None, raises=RuntimeError)],
        {("GET", "unmatched", "500"): (1, 0)},
    ),
    Row(
        "exception after the response started",
        stream(breaks),
        [Call(status=200, raises=RuntimeError)],
        {("GET", HEALTH, "500"): (1, 0)},
    ),
    Row(
        "lost connection to the database",
        handler(connection_error),
        [Call(status=500, raises=ConnectionResetError)],
        {("GET", HEALTH, "500"): (1, 0)},
    ),
    Row(
        "lost connection to the database after the response started",
        stream(loses_database),
        [Call(status=200, raises=ConnectionResetError)],
        {("GET", HEALTH, "500"): (1, 0)},
    ),
    Row("application without a response", silent, [Call(status=None)], {("GET", "unmatched", "500"): (1, 0)}),
    # Clients that leave
    Row(
        "client leaves before its body is complete",
        handler(reads_body),
        [Call(method="GET", gone_after=0, status=499)],
        {("GET", HEALTH, "499"): (1, 0)},
    ),
    Row(
        "client leaves during a stream, and the server stops it quietly",
        stream(endless),
        [Call(gone_after=3)],
        {("GET", HEALTH, "499"): (1, 0)},
    ),
    Row(
        "client leaves during a stream, and the server raises",
        lambda bench: Starlette(routes=[Route(HEALTH, lambda _request: StreamingResponse(endless(bench)))]),
        [Call(gone_after=3, send_raises=True, raises=ClientDisconnect)],
        {("GET", HEALTH, "499"): (1, 0)},
    ),
    Row(
        "client leaves during a stream, the server raises, and a handler answers",
        stream(endless),
        [Call(gone_after=3, send_raises=True, raises=RuntimeError)],
        {("GET", HEALTH, "499"): (1, 0)},
    ),
    Row(
        "cancelled before the response",
        handler(waits),
        [Call(cancelled=True, status=None, raises=asyncio.CancelledError)],
        {("GET", HEALTH, "499"): (1, 0)},
        in_flight=[1],
    ),
    Row(
        "cancelled within the response",
        stream(stops_within),
        [Call(cancelled=True, raises=asyncio.CancelledError)],
        {("GET", HEALTH, "499"): (1, 0)},
    ),
    Row("response that is never finished", unfinished, [Call()], {("GET", "unmatched", "499"): (1, 0)}),
    # Time and number in flight
    Row("work before the response", handler(slow), [Call()], {("GET", HEALTH, "200"): (1, 0.3)}),
    Row("stream", stream(four_parts), [Call()], {("GET", HEALTH, "200"): (1, 0.2)}),
    Row(
        "work after the response",
        handler(works_afterwards),
        [Call()],
        {("GET", HEALTH, "200"): (1, 0)},
        in_flight=[0],
    ),
    Row(
        "failure after the response",
        handler(fails_afterwards),
        [Call(raises=RuntimeError)],
        {("GET", HEALTH, "200"): (1, 0)},
    ),
    Row(
        "two requests at once",
        meets,
        [Call(), Call()],
        {("GET", HEALTH, "200"): (2, 0)},
        in_flight=[2, 2],
        together=True,
    ),
    # What is left out
    Row(
        "scrapes",
        handler(looks, METRICS),
        [Call(METRICS), Call(METRICS, "HEAD"), Call(METRICS, "POST", status=405)],
        {},
        in_flight=[0, 0],
    ),
    Row("websocket", websocket, [Call(kind="websocket")], {}, in_flight=[0]),
    Row("start and stop of the application", routes(Route(HEALTH, ok)), [Call(kind="lifespan")], {}),
]
