"""One platform as it stands: its way of speaking, its knobs, and what has happened to it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from allin_simulator.faults import ConnectionDroppedError, Dice, Fate, NeverAnsweredError
from allin_simulator.limits import Limits, Usage
from allin_simulator.platforms.base import Call, Operation, Platform, Reason, Refusal
from allin_simulator.requests import read_body
from allin_simulator.settings import Knobs, Settings
from allin_simulator.tokens import Token

Sleep = Callable[[float], Awaitable[object]]
Refuse = Callable[[Refusal], Response]


class Site:
    def __init__(self, platform: Platform, settings: Settings, clock: Callable[[], float], sleep: Sleep) -> None:
        self.platform = platform
        self.clock = clock
        self.limits = Limits(settings.remembered)
        self.requests: Counter[str] = Counter()
        """By operation."""
        self.faults: Counter[str] = Counter()
        """What was done to requests, by kind."""
        self._settings = settings
        self._sleep = sleep
        self.initial_knobs = settings.knobs.get(platform.name, Knobs())
        self.knobs = self.initial_knobs
        self._dice = Dice(platform.name, settings.seed)

    def reset(self) -> None:
        """Everything as at the start."""
        self.knobs = self.initial_knobs
        self._dice = Dice(self.platform.name, self._settings.seed)
        self.limits.clear()
        self.requests.clear()
        self.faults.clear()
        self.platform.forget()

    async def suffer(self, operation: str, request: Request) -> Fate:
        """What the knobs say happens before a request is worked on.

        Raises:
            ConnectionDroppedError, NeverAnsweredError: there is no answer.
            Refusal: an error is the answer.
        """
        self.requests[operation] += 1
        if self.knobs.down:
            self.faults["down"] += 1
            raise ConnectionDroppedError
        turn = self._dice.turn(self.knobs)
        if turn.latency:
            await self._sleep(turn.latency)
        if turn.fate is Fate.TIMEOUT:
            self.faults["timeout"] += 1
            await self._hang(request)
        if turn.fate is Fate.ERROR:
            self.faults["error"] += 1
            raise self._injected(self.knobs.error_status)
        return turn.fate

    def token_refusal(self) -> Refusal | None:
        if not self.knobs.deny_tokens:
            return None
        self.faults["denied_token"] += 1
        return Refusal(Reason.UNAUTHORIZED, HTTPStatus.UNAUTHORIZED, "The token was taken back.")

    def _injected(self, status: int) -> Refusal:
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            seconds = int(self.knobs.rate_window_seconds)
            return Refusal(Reason.RATE_LIMITED, status, "The simulator was told to refuse this.", seconds)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            reason = Reason.BROKEN
        else:
            reason = Reason.UNAUTHORIZED if status == HTTPStatus.UNAUTHORIZED else Reason.REJECTED
        return Refusal(reason, status, "The simulator was told to fail.")

    async def _hang(self, request: Request) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.hang_seconds):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        raise NeverAnsweredError


class Api:
    """Answers one operation of a platform's API."""

    def __init__(self, site: Site, operation: Operation, access: Callable[[str, str], Token | None]) -> None:
        self._site = site
        self._operation = operation
        self._access = access

    async def answer(self, request: Request) -> Response:
        try:
            fate = await self._site.suffer(self._operation.name, request)
            body = await read_body(request)
            return self._work(request, body, fate)
        except Refusal as refusal:
            return self._site.platform.refuse(refusal)

    def _work(self, request: Request, body: bytes, fate: Fate) -> Response:
        platform, site = self._site.platform, self._site
        now = site.clock()
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        token = self._access(platform.name, text) if scheme.lower() == "bearer" else None
        if token is None:
            raise Refusal(Reason.UNAUTHORIZED, HTTPStatus.UNAUTHORIZED, "The access token is not good, or has ended.")
        if denied := site.token_refusal():
            raise denied
        usage = site.limits.use(platform.allowance(token, self._operation.name), site.knobs, now)
        call = Call(token, now, request.path_params, request.query_params, request.headers, body)
        try:
            response = self._answer_within(usage, call, fate)
        except Refusal as refusal:
            response = platform.refuse(refusal)
        if usage is not None:
            response.headers.update(platform.usage_headers(usage, token, now))
        return response

    def _answer_within(self, usage: Usage | None, call: Call, fate: Fate) -> Response:
        faults = self._site.faults
        if usage is not None and usage.exceeded:
            faults["rate_limited"] += 1
            seconds = max(math.ceil(usage.reset_at - call.now), 1)
            raise Refusal(Reason.RATE_LIMITED, HTTPStatus.TOO_MANY_REQUESTS, "Too many requests.", seconds)
        response = self._operation.answer(call)
        if self._operation.publishes and fate is Fate.ACCEPT_THEN_FAIL:
            faults["accept_then_fail"] += 1
            raise Refusal(Reason.BROKEN, HTTPStatus.INTERNAL_SERVER_ERROR, "The simulator was told to fail.")
        return response
