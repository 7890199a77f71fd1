"""What measuring an HTTP request costs: the application is called in a loop, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from time import thread_time_ns
from typing import Final

from starlette.types import Message, Scope

from benchmarks import variants
from benchmarks.measuring import Batch, Rounds, WrongCountError, pinned, run_rounds, settled
from benchmarks.report import Row, at_most, compared, not_measured
from benchmarks.variants import BARE, HAND_WRITTEN, INSTRUMENTATOR, OURS, Framework, Target, Variant

OF_HAND_WRITTEN: Final = 0.6
"""Our middleware may add this share of what the hand-written one adds."""
OF_INSTRUMENTATOR: Final = 1 / 8
"""And this share of what prometheus-fastapi-instrumentator adds for the same metrics."""
_PATH: Final = variants.filled_in(variants.TEMPLATE, "17")
_WARM_UP: Final = 300
_REQUESTS: Final = 50


@dataclass(frozen=True, slots=True)
class Result:
    """The times of the variants that could be measured, and why the others could not."""

    rounds: Rounds
    failures: dict[str, Exception]

    def ratio(self, reference: str) -> float:
        """What our middleware adds, as a multiple of what the reference adds."""
        return self.rounds.ratio(OURS, reference, BARE)


def scope(path: str = _PATH, method: str = "GET", host: str = "app.example.com") -> Scope:
    """A new scope, as a server makes one for each request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", host.encode()),
            (b"user-agent", b"benchmark/1"),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"gzip"),
            (b"x-request-id", b"0123456789abcdef"),
            (b"connection", b"keep-alive"),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 7000),
        "state": {},
    }


async def receive() -> Message:
    """The end of an empty request body."""
    return {"type": "http.request", "body": b"", "more_body": False}


class _Loop:
    """Sends requests to one target and checks that all of them were answered."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop
        self._answers = 0
        self._sent = 0
        self._counted_before = 0.0 if target.counted is None else target.counted()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._answers += 1

    async def _requests(self, number: int) -> int:
        app, send = self._target.app, self._send
        started = thread_time_ns()
        for _ in range(number):
            await app(scope(), receive, send)
        return thread_time_ns() - started

    def run(self, number: int = _REQUESTS) -> int:
        self._sent += number
        return self._loop.run_until_complete(self._requests(number))

    def check(self) -> None:
        """Raises WrongCountError unless every request was answered, and counted where the target counts."""
        if self._answers != self._sent:
            raise WrongCountError(f"{self._sent} requests, {self._answers} answers")
        if self._target.counted is not None:
            counted = self._target.counted() - self._counted_before
            if counted != self._sent:
                raise WrongCountError(f"{self._sent} requests, {counted:g} counted")


def measure(framework: Framework, routes: int, *, rounds: int, only: Iterable[Variant] = variants.ALL) -> Result:
    """Compare the variants below an application of this framework with so many routes."""
    loop = asyncio.new_event_loop()
    failures: dict[str, Exception] = {}
    ready: dict[str, _Loop] = {}
    try:
        for variant in only:
            if framework not in variant.frameworks:
                continue
            try:
                target = variant.build(lambda **options: variants.application(framework, routes, **options))
                caller = _Loop(target, loop)
                caller.run(_WARM_UP)
                caller.check()
            except Exception as error:  # a peer's failure, whatever it is, belongs in the table
                failures[variant.name] = error
            else:
                ready[variant.name] = caller
        batches: dict[str, Batch] = {name: caller.run for name, caller in ready.items()}
        with settled(), pinned():
            times = run_rounds(batches, rounds=rounds, operations=_REQUESTS)
        for caller in ready.values():
            caller.check()
    finally:
        loop.close()
    return Result(times, failures)


def rows(*, quick: bool) -> list[Row]:
    """The table's part for HTTP, for few and for many routes."""
    found: list[Row] = []
    for framework in Framework:
        for routes in (5, 41):
            subject = f"HTTP request, {framework}, {routes} routes"
            result = measure(framework, routes, rounds=60 if quick else 600)
            found += _bars(subject, result)
            found += _peers(subject, framework, result)
    return found


def _bars(subject: str, result: Result) -> list[Row]:
    found = []
    for reference, limit in ((HAND_WRITTEN, OF_HAND_WRITTEN), (INSTRUMENTATOR, OF_INSTRUMENTATOR)):
        what = f"ours / {reference}"
        missing = result.failures.get(reference) or result.failures.get(OURS)
        if missing is not None:
            found.append(not_measured(subject, what, missing, f"at most {limit:.3g} x"))
            continue
        found.append(at_most(subject, what, result.ratio(reference), limit, "x"))
    return found


def _peers(subject: str, framework: Framework, result: Result) -> list[Row]:
    found = []
    for variant in variants.ALL:
        if framework not in variant.frameworks:
            continue
        if variant.name in result.failures:
            found.append(not_measured(subject, variant.name, result.failures[variant.name]))
        elif variant.name == BARE:
            found.append(compared(subject, "bare, in all", result.rounds.total(BARE), "us"))
        else:
            note = ""
            if HAND_WRITTEN not in result.failures:
                note = f", {result.rounds.ratio(variant.name, HAND_WRITTEN, BARE):.2f}x hand-written"
            found.append(
                compared(subject, f"{variant.name}, adds", result.rounds.added(variant.name, BARE), "us", note)
            )
    return found
