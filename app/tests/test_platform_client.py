"""Requests to platforms: what is counted, what is sent again, what is held back."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx2
import msgspec
import pytest

from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Answer, Call
from allin_backend.platforms.client import LARGEST_ANSWER_BYTES, PlatformClient
from allin_backend.platforms.errors import (
    LONGEST_DETAIL,
    LONGEST_WAIT_SECONDS,
    UNTOLD_WAIT_SECONDS,
    PlatformError,
    RateLimitedError,
    RejectedError,
    UnauthorizedError,
    UnavailableError,
)
from platform_support import START, TOKEN, Bench, Reply, adapter, reply, sample
from support import DEADLINE


class Thing(msgspec.Struct):
    id: str


READ = Call("figures", "GET", "/thing", Thing, idempotent=True)
WRITE = Call("publish", "POST", "/thing", Thing, json={}, idempotent=False)
GOOD = reply(body={"id": "1"})


def send(
    bench: Bench,
    call: Call[Thing] = READ,
    *,
    platform: str = "linkedin",
    account: int | None = None,
    budget: float | None = None,
) -> Answer[Thing]:
    return asyncio.run(bench.client.send(adapter(platform), call, access_token=TOKEN, account=account, budget=budget))


def fail(
    bench: Bench,
    call: Call[Thing] = WRITE,
    *,
    platform: str = "linkedin",
    account: int | None = None,
    budget: float | None = None,
) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        send(bench, call, platform=platform, account=account, budget=budget)
    return caught.value


def test_a_successful_request_is_measured() -> None:
    def slow(_request: httpx2.Request) -> httpx2.Response:
        bench.time.advance(1.5)
        return GOOD

    bench = Bench(slow)

    assert send(bench).value == Thing("1")

    assert bench.calls("linkedin", "figures") == (1, 0)
    assert bench.durations("linkedin", "figures") == (1, 1.5)
    assert bench.errors("linkedin", "figures") == {}
    request = bench.remote.requests[0]
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert str(request.url) == "https://gateway.example.com/linkedin/thing"


class SlowBody(httpx2.AsyncByteStream):
    def __init__(self, bench: Bench, ends_with: Exception | None = None) -> None:
        self.bench = bench
        self.ends_with = ends_with
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"id":'
        self.bench.time.advance(2.0)
        if self.ends_with is not None:
            raise self.ends_with
        yield b'"1"}'

    async def aclose(self) -> None:
        self.closed = True


def test_the_body_belongs_to_the_duration() -> None:
    bench = Bench(lambda _request: httpx2.Response(200, stream=SlowBody(bench)))

    send(bench)

    assert bench.durations("linkedin", "figures") == (1, 2.0)


def test_a_body_that_breaks_off_is_an_error() -> None:
    bench = Bench(lambda _request: httpx2.Response(200, stream=body))
    body = SlowBody(bench, httpx2.ReadError("reset"))

    error = fail(bench)

    assert (error.error, error.outcome_unknown) == ("connection", True)
    assert bench.calls("linkedin", "publish") == (0, 1)
    assert bench.durations("linkedin", "publish") == (1, 2.0)
    assert body.closed


@pytest.mark.parametrize(
    ("answer", "expected", "kind", "outcome_unknown"),
    [
        (httpx2.ReadTimeout(""), "timeout", UnavailableError, True),
        (httpx2.ConnectTimeout(""), "timeout", UnavailableError, False),
        (httpx2.ConnectError(""), "connection", UnavailableError, False),
        (httpx2.RemoteProtocolError(""), "connection", UnavailableError, True),
        (OSError("no route"), "connection", UnavailableError, True),
        (reply(500), "server_error", UnavailableError, True),
        (reply(503), "server_error", UnavailableError, True),
        (reply(429), "rate_limited", RateLimitedError, False),
        (reply(401), "unauthorized", UnauthorizedError, False),
        (reply(400), "rejected", RejectedError, False),
        (reply(404), "rejected", RejectedError, False),
        (reply(302, headers={"location": "https://elsewhere.example.com"}), "invalid_response", UnavailableError, True),
        (reply(200), "invalid_response", UnavailableError, True),
        (reply(200, {"id": 1}), "invalid_response", UnavailableError, True),
        (httpx2.Response(200, content=b"\xff\xfe"), "invalid_response", UnavailableError, True),
        (httpx2.Response(200, content=b"{" * 100_000), "invalid_response", UnavailableError, True),
        (httpx2.Response(200, content=b" " * (LARGEST_ANSWER_BYTES + 1)), "invalid_response", UnavailableError, True),
    ],
)
def test_every_failure_is_counted_once_by_its_class(
    answer: Reply, expected: str, kind: type[PlatformError], outcome_unknown: bool
) -> None:
    bench = Bench(answer)

    error = fail(bench, Call("publish", "POST", "/thing", Thing))

    assert isinstance(error, kind)
    assert (error.error, error.outcome_unknown, error.held_back) == (expected, outcome_unknown, False)
    attempts = len(bench.remote.requests)
    assert bench.calls("linkedin", "publish") == (0, attempts)
    assert bench.errors("linkedin", "publish") == {expected: attempts}
    assert bench.durations("linkedin", "publish")[0] == attempts


def test_an_answer_that_claims_to_be_compressed_and_is_not() -> None:
    def broken(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"not compressed"))

    bench = Bench(broken)

    assert fail(bench).error == "invalid_response"


def test_a_compressed_answer_is_read_although_none_was_asked_for() -> None:
    content = gzip.compress(b'{"id":"1"}')
    bench = Bench(
        lambda _request: httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(content))
    )

    assert send(bench).value == Thing("1")
    assert bench.remote.requests[0].headers["accept-encoding"] == "identity"


def test_a_platform_that_never_answers_is_given_up() -> None:
    async def never(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    bench = Bench(never, timeout=0.01)

    error = fail(bench)

    assert (error.error, error.outcome_unknown) == ("timeout", True)
    assert bench.errors("linkedin", "publish") == {"timeout": 1}


def test_a_cancelled_request_is_counted_and_says_nothing_about_the_platform() -> None:
    async def cancel_while_waiting() -> None:
        started = asyncio.Event()

        async def never(_request: httpx2.Request) -> httpx2.Response:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        bench.remote.replies = [never]
        for _ in range(6):
            started.clear()
            task = asyncio.create_task(bench.client.send(adapter("linkedin"), READ, access_token=TOKEN))
            async with asyncio.timeout(DEADLINE):
                await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    bench = Bench(GOOD)
    asyncio.run(cancel_while_waiting())

    assert bench.calls("linkedin", "figures") == (0, 6)
    assert bench.errors("linkedin", "figures") == {"cancelled": 6}
    assert bench.durations("linkedin", "figures")[0] == 6
    assert sample(bench.metrics, contract.SOCIAL_CIRCUIT_OPEN, platform="linkedin") == 0


def test_a_mistake_of_ours_is_not_swallowed() -> None:
    bench = Bench(ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        send(bench)


@pytest.mark.parametrize("trouble", [httpx2.ReadTimeout(""), httpx2.ReadError(""), reply(500), reply(503)])
def test_what_may_be_repeated_is_repeated(trouble: Reply) -> None:
    bench = Bench(trouble, trouble, GOOD)

    assert send(bench).value == Thing("1")

    assert bench.time.slept == [0.5, 1.0]
    assert bench.calls("linkedin", "figures") == (1, 2)
    assert bench.retries("linkedin", "figures") == 2


@pytest.mark.parametrize("trouble", [httpx2.ReadTimeout(""), httpx2.ReadError(""), reply(500), reply(429)])
def test_what_makes_something_is_sent_once(trouble: Reply) -> None:
    bench = Bench(trouble, GOOD)

    fail(bench, WRITE)

    assert len(bench.remote.requests) == 1
    assert bench.retries("linkedin", "publish") == 0


@pytest.mark.parametrize("trouble", [httpx2.ConnectError(""), httpx2.ConnectTimeout(""), httpx2.PoolTimeout("")])
def test_what_was_never_sent_is_sent_again(trouble: Reply) -> None:
    bench = Bench(trouble, GOOD)

    assert send(bench, WRITE).value == Thing("1")
    assert bench.retries("linkedin", "publish") == 1


@pytest.mark.parametrize("answer", [reply(400), reply(401), reply(302), reply(200)])
def test_what_will_not_change_is_not_repeated(answer: Reply) -> None:
    bench = Bench(answer)

    fail(bench, READ)

    assert len(bench.remote.requests) == 1


def test_three_attempts_at_most() -> None:
    bench = Bench(reply(500))

    assert fail(bench, READ).error == "server_error"

    assert len(bench.remote.requests) == 3
    assert bench.retries("linkedin", "figures") == 2


def test_attempts_and_waits_stay_within_the_budget() -> None:
    timeouts: list[float] = []

    def slow(request: httpx2.Request) -> httpx2.Response:
        timeouts.append(request.extensions["allin"].timeout)
        bench.time.advance(4.0)
        return reply(500)

    bench = Bench(slow, timeout=10.0)

    fail(bench, READ, budget=9.0)

    # 4 s, then 0.5 s of waiting, then what is left; a second wait of 1 s would pass the end.
    assert timeouts == [9.0, 4.5]
    assert bench.time.slept == [0.5]
    assert bench.time.passed <= 9.0


def test_retry_after_is_kept_when_it_is_short() -> None:
    bench = Bench(reply(429, headers={"retry-after": "4"}), GOOD)

    send(bench)

    assert bench.time.slept == [4.0]


@pytest.mark.parametrize(("headers", "seconds"), [({"retry-after": "90"}, 90.0), ({}, UNTOLD_WAIT_SECONDS)])
def test_an_allowance_that_is_used_up_is_not_asked_for_again(headers: dict[str, str], seconds: float) -> None:
    bench = Bench(reply(429, {"message": "slow down"}, headers), GOOD)

    first = fail(bench, READ, account=1)
    second = fail(bench, READ, account=1)

    assert isinstance(first, RateLimitedError)
    assert isinstance(second, RateLimitedError)
    assert first.retry_at == second.retry_at == datetime.fromtimestamp(START + seconds, UTC)
    assert (first.held_back, second.held_back) == (False, True)
    assert len(bench.remote.requests) == 1
    # Counted once: what is not sent is no failed request.
    assert bench.calls("linkedin", "figures") == (0, 1)
    assert bench.errors("linkedin", "figures") == {"rate_limited": 1}
    assert bench.durations("linkedin", "figures")[0] == 1
    # Other accounts and other endpoints have allowances of their own.
    send(bench, READ, account=2)
    send(bench, WRITE, account=1)
    bench.time.advance(seconds)
    send(bench, READ, account=1)


def test_the_end_of_a_window_that_is_near_is_waited_for() -> None:
    bench = Bench(reply(429, headers={"retry-after": "90"}), GOOD)
    fail(bench, READ)
    bench.time.advance(87)

    send(bench, READ)

    assert bench.time.slept == [3.0]
    # The first attempt was held back, so that nothing was sent again.
    assert bench.retries("linkedin", "figures") == 0


def test_a_wait_that_no_platform_has_is_not_believed() -> None:
    bench = Bench(reply(429, headers={"retry-after": "999999999999"}), GOOD)

    error = fail(bench)

    assert error.retry_at == datetime.fromtimestamp(START + LONGEST_WAIT_SECONDS, UTC)


def test_the_last_of_an_allowance_stops_before_the_platform_refuses() -> None:
    reset = int(START) + 300
    headers = {"x-rate-limit-limit": "40", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(reset)}
    bench = Bench(reply(body={"id": "1"}, headers=headers))
    send(bench, platform="twitter", account=1)

    error = fail(bench, READ, platform="twitter", account=1)

    assert error.retry_at == datetime.fromtimestamp(reset, UTC)
    assert bench.calls("twitter", "figures") == (1, 0)
    values = [
        sample(bench.metrics, metric, platform="twitter")
        for metric in (
            contract.SOCIAL_RATE_LIMIT,
            contract.SOCIAL_RATE_REMAINING,
            contract.SOCIAL_RATE_RESET,
            contract.SOCIAL_QUOTA_USED,
        )
    ]
    assert values == [40, 0, reset, 1.0]


def test_only_what_a_platform_says_is_shown() -> None:
    bench = Bench(reply(body={"id": "1"}, headers={"x-app-usage": '{"call_count":28,"total_time":31}'}))

    send(bench, platform="facebook")

    assert sample(bench.metrics, contract.SOCIAL_QUOTA_USED, platform="facebook") == 0.31
    for metric in (contract.SOCIAL_RATE_LIMIT, contract.SOCIAL_RATE_REMAINING, contract.SOCIAL_RATE_RESET):
        assert sample(bench.metrics, metric, platform="facebook") is None
    assert sample(bench.metrics, contract.SOCIAL_QUOTA_USED, platform="twitter") is None


def test_the_circuit_opens_holds_back_and_closes_again() -> None:
    def gauge() -> float | None:
        return sample(bench.metrics, contract.SOCIAL_CIRCUIT_OPEN, platform="linkedin")

    bench = Bench(reply(500))
    for _ in range(5):
        assert gauge() == 0
        fail(bench)

    held = fail(bench, READ)

    assert gauge() == 1
    assert (held.error, held.held_back) == ("circuit_open", True)
    assert held.retry_at == datetime.fromtimestamp(START + 30, UTC)
    assert len(bench.remote.requests) == 5
    assert bench.calls("linkedin", "figures") == (0, 0)
    assert bench.errors("linkedin", "figures") == {"circuit_open": 1}
    assert bench.retries("linkedin", "figures") == 0
    # Another platform's requests pass.
    bench.remote.replies = [GOOD]
    send(bench, platform="twitter")
    bench.time.advance(30)
    send(bench)
    assert gauge() == 0


@pytest.mark.parametrize("answer", [reply(400), reply(401), reply(404), reply(200, {"id": 1})])
def test_refusals_do_not_open_the_circuit(answer: Reply) -> None:
    bench = Bench(answer)

    for _ in range(10):
        fail(bench)

    assert sample(bench.metrics, contract.SOCIAL_CIRCUIT_OPEN, platform="linkedin") == 0


def test_time_outs_of_a_hurried_caller_do_not_open_the_circuit() -> None:
    bench = Bench(httpx2.ReadTimeout(""))

    for _ in range(10):
        fail(bench, budget=0.5)
    assert sample(bench.metrics, contract.SOCIAL_CIRCUIT_OPEN, platform="linkedin") == 0
    assert bench.errors("linkedin", "publish") == {"timeout": 10}

    for _ in range(5):
        fail(bench, budget=1.0)
    assert sample(bench.metrics, contract.SOCIAL_CIRCUIT_OPEN, platform="linkedin") == 1


def test_nothing_is_sent_when_no_time_is_left() -> None:
    bench = Bench(GOOD)

    error = fail(bench, budget=0.0)

    assert (error.error, error.held_back, error.outcome_unknown) == ("timeout", True, False)
    assert bench.remote.requests == []
    assert bench.calls("linkedin", "publish") == (0, 0)


def test_each_platform_has_connections_of_its_own() -> None:
    made: list[str] = []
    bench = Bench(GOOD)
    connect = bench.remote.connect
    bench.client.transport._connect = lambda: made.append("") or connect()  # type: ignore[misc, func-returns-value]

    for platform in ("linkedin", "linkedin", "twitter"):
        send(bench, platform=platform)

    assert len(made) == 2


def test_real_connections() -> None:
    """The transport that is used outside tests: a refused connection has sent nothing, a broken one may have."""

    async def test() -> None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        metrics = WorkMetrics()
        client = PlatformClient(metrics, timeout=DEADLINE, random=lambda: 0.0)
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        platform = adapter("linkedin", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            with pytest.raises(UnavailableError) as broken:
                await client.send(platform, WRITE, access_token=TOKEN)
            server.close()
            await server.wait_closed()
            with pytest.raises(UnavailableError) as refused:
                await client.send(platform, WRITE, access_token=TOKEN)
        finally:
            await client.close()
        assert (broken.value.error, broken.value.outcome_unknown) == ("connection", True)
        assert (refused.value.error, refused.value.outcome_unknown) == ("connection", False)
        assert sample(metrics, contract.SOCIAL_RETRIES, platform="linkedin", endpoint="publish") == 2

    asyncio.run(test())


def test_details_are_short_and_without_the_token() -> None:
    long = "x\n" * 1000
    bench = Bench(reply(400, {"message": f"Malformed token {TOKEN}!\x1b[31m {long}"}))

    error = fail(bench)

    assert error.detail.startswith("Malformed token [secret]! [31m x x")
    assert len(error.detail) == LONGEST_DETAIL
    assert TOKEN not in f"{error!r} {error}"


def test_the_memory_of_closed_windows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allin_backend.platforms.client.MOST_WINDOWS", 3)
    bench = Bench(reply(429, headers={"retry-after": "90"}))

    for account in range(10):
        fail(bench, account=account)

    assert len(bench.client.transport._closed_windows) == 3
