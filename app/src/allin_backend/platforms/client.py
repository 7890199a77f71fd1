"""The one way on which every request to a platform goes: measured, limited, held back where it is pointless."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import httpx2
import msgspec

from allin_backend.metrics.contract import ERROR, PLATFORMS, SUCCESS
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.backoff import Backoff
from allin_backend.platforms.base import Answer, Call, Nothing, Platform, Send
from allin_backend.platforms.breaker import CircuitBreaker, CircuitOpenError, Permit
from allin_backend.platforms.clock import Clock
from allin_backend.platforms.errors import (
    LONGEST_WAIT_SECONDS,
    PlatformError,
    RateLimitedError,
    UnavailableError,
    from_failure,
)

T = TypeVar("T")
EXTENSION: Final = "allin"
LARGEST_ANSWER_BYTES: Final = 1024**2
MOST_WINDOWS: Final = 10_000
LONGEST_CONNECT_SECONDS: Final = 5.0
SHORTEST_FAIR_SECONDS: Final = 1.0
HEADERS: Final = {"User-Agent": "allin-backend", "Accept": "application/json", "Accept-Encoding": "identity"}
"""With every request. Answers are small; unpacked, a small one can be very large."""

_OAUTH_ENDPOINTS: Final = ("token", "revoke")
# The connection had not been made: the platform has seen nothing of the request.
_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


@dataclass(slots=True)
class Exchange:
    """Goes with a request to the transport: what it is, and ``secrets`` that the platform's words must not show.

    ``account`` is the account whose allowance it uses, if any; ``timeout`` seconds are left for it. ``value`` is the
    answer's body, once there is one. A time-out that is not ``fair`` was too short to say anything about the platform.
    """

    platform: Platform
    endpoint: str
    answer: type[Any]
    timeout: float
    account: int | None = None
    fair: bool = True
    secrets: tuple[str, ...] = field(default=(), repr=False)
    value: Any = field(default=None, repr=False)

    @property
    def window(self) -> tuple[str, str, int | None]:
        """Whose allowance the request uses."""
        platform = self.platform
        return (
            (platform.name, self.endpoint, self.account) if platform.limited_by_account else (platform.name, "", None)
        )


class PlatformTransport(httpx2.AsyncBaseTransport):
    """Sends a request that carries an ``Exchange``, reads the whole answer, and counts what became of it.

    A transport rather than a client's hooks, which do not see time-outs, lost connections and cancellations. Each
    platform has connections of its own, so that a slow one cannot use up those of the others.
    """

    def __init__(self, metrics: WorkMetrics, clock: Clock, connect: Callable[[], httpx2.AsyncBaseTransport]) -> None:
        self._metrics: Final = metrics
        self._clock: Final = clock
        self._connect: Final = connect
        self._connections: dict[str, httpx2.AsyncBaseTransport] = {}
        self._closed_windows: dict[tuple[str, str, int | None], float] = {}
        self._breakers: Final = {name: self._breaker(name) for name in PLATFORMS}

    def _breaker(self, name: str) -> CircuitBreaker:
        return CircuitBreaker(
            clock=self._clock.monotonic,
            on_change=lambda is_open: self._metrics.social_circuit_open.set(float(is_open), name),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, read to its end.

        Raises:
            PlatformError: there is none that can be used.
        """
        exchange: Exchange = request.extensions[EXTENSION]
        name = exchange.platform.name
        permit = self._admit(exchange)
        started = self._clock.monotonic()
        outcome = "connection"
        try:
            response = await self._answer(request, exchange)
            self._note_allowance(exchange, response)
            exchange.value = self._read(exchange, response)
            outcome = SUCCESS
        except PlatformError as error:
            outcome = error.error
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.social_duration.observe(self._clock.monotonic() - started, name, exchange.endpoint)
            status = SUCCESS if outcome == SUCCESS else ERROR
            self._metrics.social_calls.inc(name, exchange.endpoint, status)
            if outcome != SUCCESS:
                self._metrics.social_errors.inc(name, exchange.endpoint, outcome)
            _settle(permit, outcome if exchange.fair or outcome != "timeout" else "cancelled")
        return response

    def _admit(self, exchange: Exchange) -> Permit:
        name = exchange.platform.name
        now = self._clock.wall()
        if (end := self._closed_windows.get(exchange.window, now)) > now:
            retry_at = datetime.fromtimestamp(end, UTC)
            raise RateLimitedError(name, "the allowance is used up", retry_at=retry_at, held_back=True)
        try:
            return self._breakers[name].admit()
        except CircuitOpenError as error:
            self._metrics.social_errors.inc(name, exchange.endpoint, "circuit_open")
            raise UnavailableError(
                name,
                "circuit_open",
                "held back after many failures",
                retry_at=datetime.fromtimestamp(now + error.wait, UTC),
                held_back=True,
            ) from None

    async def _answer(self, request: httpx2.Request, exchange: Exchange) -> httpx2.Response:
        name = exchange.platform.name
        if name not in self._connections:
            self._connections[name] = self._connect()
        try:
            # httpx2's own time-outs are for each part of the answer; parts may go on coming for ever.
            async with asyncio.timeout(exchange.timeout):
                response = await self._connections[name].handle_async_request(request)
                try:
                    body = await _read_body(response)
                finally:
                    await response.aclose()
            return httpx2.Response(
                response.status_code, headers=response.headers, content=body, extensions=response.extensions
            )
        except (TimeoutError, httpx2.TimeoutException) as error:
            sent = not isinstance(error, _NOT_SENT)
            raise UnavailableError(name, "timeout", "no answer in time", outcome_unknown=sent) from None
        except (_TooLargeError, httpx2.DecodingError):
            raise UnavailableError(name, "invalid_response", "unreadable answer", outcome_unknown=True) from None
        except (httpx2.TransportError, OSError) as error:
            sent = not isinstance(error, _NOT_SENT)
            # The class only: the text may quote the address.
            raise UnavailableError(name, "connection", type(error).__name__, outcome_unknown=sent) from None

    def _read(self, exchange: Exchange, response: httpx2.Response) -> object:
        platform = exchange.platform
        now = self._clock.wall()
        judge = platform.oauth_failure if exchange.endpoint in _OAUTH_ENDPOINTS else platform.api_failure
        failure = judge(response.status_code, response.headers, response.content, now)
        if failure is not None:
            error = from_failure(platform.name, failure, exchange.secrets, now=now)
            if isinstance(error, RateLimitedError):
                self._close_window(exchange, error.retry_at.timestamp())
            raise error
        if exchange.answer is Nothing:
            return Nothing()
        try:
            return msgspec.json.decode(response.content, type=exchange.answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnavailableError(
                platform.name, "invalid_response", "not what is documented", outcome_unknown=True
            ) from None

    def _note_allowance(self, exchange: Exchange, response: httpx2.Response) -> None:
        if exchange.endpoint in _OAUTH_ENDPOINTS:
            return
        name = exchange.platform.name
        allowance = exchange.platform.rate_limit(response.headers, self._clock.wall())
        if allowance is None:
            return
        for gauge, value in (
            (self._metrics.social_rate_limit, allowance.limit),
            (self._metrics.social_rate_remaining, allowance.remaining),
            (self._metrics.social_rate_reset, allowance.reset_at),
            (self._metrics.social_quota_used, allowance.used_ratio),
        ):
            if value is not None:
                gauge.set(value, name)
        if allowance.used_up and allowance.reset_at is not None:
            self._close_window(exchange, allowance.reset_at)

    def _close_window(self, exchange: Exchange, until: float) -> None:
        """No request of this kind before ``until`` (Unix seconds)."""
        now = self._clock.wall()
        windows = self._closed_windows
        if len(windows) >= MOST_WINDOWS:
            for window in [window for window, end in windows.items() if end <= now]:
                del windows[window]
            while len(windows) >= MOST_WINDOWS:
                del windows[next(iter(windows))]
        windows[exchange.window] = min(until, now + LONGEST_WAIT_SECONDS)

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            await connection.aclose()
        self._connections.clear()


class _TooLargeError(Exception):
    pass


async def _read_body(response: httpx2.Response) -> bytes:
    parts: list[bytes] = []
    length = 0
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  # the transport is an asynchronous one
    async for part in response.stream:
        length += len(part)
        if length > LARGEST_ANSWER_BYTES:
            raise _TooLargeError
        parts.append(part)
    return b"".join(parts)


def _settle(permit: Permit, outcome: str) -> None:
    """Tell the breaker. Only what is the platform's fault counts against it: a refusal is an answer."""
    if outcome in ("timeout", "connection", "server_error"):
        permit.failed()
    elif outcome == "cancelled":
        permit.abandoned()
    else:
        permit.answered()


class Labelled(httpx2.AsyncBaseTransport):
    """Gives each request its exchange, for a client that cannot do so itself; leaves ``transport`` open."""

    def __init__(self, transport: PlatformTransport, exchange: Exchange) -> None:
        self._transport: Final = transport
        self._exchange: Final = exchange

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, EXTENSION: self._exchange}
        return await self._transport.handle_async_request(request)


class PlatformClient:
    """Sends calls to platforms, again where that is safe. ``timeout``: seconds for one answer at most.

    ``connect`` makes the connections to one platform; tests replace it, ``clock`` and ``random``.
    """

    def __init__(
        self,
        metrics: WorkMetrics,
        *,
        timeout: float,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        random: Callable[[], float] = random.random,
        connect: Callable[[], httpx2.AsyncBaseTransport] | None = None,
    ) -> None:
        self.clock: Final = clock or Clock()
        self.timeout: Final = timeout
        self.transport: Final = PlatformTransport(metrics, self.clock, connect or _connect)
        self._metrics: Final = metrics
        self._backoff: Final = backoff or Backoff()
        self._random: Final = random
        self.http_timeout: Final = httpx2.Timeout(timeout, connect=min(timeout, LONGEST_CONNECT_SECONDS))
        self._http: Final = httpx2.AsyncClient(
            transport=self.transport,
            timeout=self.http_timeout,
            headers=HEADERS,
        )

    def exchange(
        self,
        platform: Platform,
        endpoint: str,
        answer: type[Any],
        timeout: float,
        account: int | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Exchange:
        """What goes with a request that may take ``timeout`` seconds."""
        fair = timeout >= min(self.timeout, SHORTEST_FAIR_SECONDS)
        return Exchange(platform, endpoint, answer, timeout, account, fair, secrets)

    async def send(
        self,
        platform: Platform,
        call: Call[T],
        *,
        access_token: str,
        account: int | None = None,
        budget: float | None = None,
    ) -> Answer[T]:
        """The answer to a call with an access token.

        ``budget``: seconds that all attempts and the waits between them may take together, three time-outs by default.

        Raises:
            PlatformError: there is none.
        """

        async def attempt(timeout: float) -> Answer[T]:
            exchange = self.exchange(platform, call.endpoint, call.answer, timeout, account, (access_token,))
            request = self._http.build_request(
                call.method,
                platform.addresses.api + call.path,
                params=dict(call.params) or None,
                data=None if call.form is None else dict(call.form),
                json=call.json,
                headers={**call.headers, "Authorization": f"Bearer {access_token}"},
                extensions={EXTENSION: exchange},
            )
            response = await self._http.send(request)
            return Answer(exchange.value, response.headers)

        return await self.persist(attempt, platform.name, call.endpoint, idempotent=call.idempotent, budget=budget)

    def sender(
        self, platform: Platform, access_token: str, *, account: int | None = None, budget: float | None = None
    ) -> Send:
        """Sends calls with this token, which together may take ``budget`` seconds."""
        deadline = None if budget is None else self.clock.monotonic() + budget

        async def send(call: Call[T], /) -> Answer[T]:
            left = None if deadline is None else deadline - self.clock.monotonic()
            return await self.send(platform, call, access_token=access_token, account=account, budget=left)

        return send

    async def persist(
        self,
        attempt: Callable[[float], Awaitable[T]],
        platform: str,
        endpoint: str,
        *,
        idempotent: bool,
        budget: float | None = None,
    ) -> T:
        """The result of ``attempt``, which is given the seconds it may take, and made again where that is safe.

        Raises:
            PlatformError: of the last attempt.
        """
        deadline = self.clock.monotonic() + (3 * self.timeout if budget is None else budget)
        number = 1
        while True:
            remaining = deadline - self.clock.monotonic()
            if remaining <= 0:
                raise UnavailableError(platform, "timeout", "no time was left", held_back=True)
            try:
                return await attempt(min(self.timeout, remaining))
            except PlatformError as error:
                delay = self._delay(error, number, idempotent, deadline)
                if delay is None:
                    raise
                sent = not error.held_back
            await self.clock.sleep(delay)
            number += 1
            if sent:
                self._metrics.social_retries.inc(platform, endpoint)

    def _delay(self, error: PlatformError, attempt: int, idempotent: bool, deadline: float) -> float | None:
        """The wait before another attempt; ``None`` if there must not be one."""
        if not _worth_repeating(error, idempotent):
            return None
        asked = 0.0 if error.retry_at is None else error.retry_at.timestamp() - self.clock.wall()
        remaining = deadline - self.clock.monotonic()
        return self._backoff.delay(attempt, self._random, remaining=remaining, at_least=asked)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


def _worth_repeating(error: PlatformError, idempotent: bool) -> bool:
    match error.error:
        case "timeout" | "connection":
            return idempotent or not error.outcome_unknown
        case "server_error" | "rate_limited":
            return idempotent
        case _:
            return False


def _connect() -> httpx2.AsyncBaseTransport:
    return httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=20, max_keepalive_connections=5))
