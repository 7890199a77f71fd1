"""Platforms under a test's control: virtual time, scripted answers, what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Platform
from allin_backend.platforms.client import PlatformClient
from allin_backend.platforms.clock import Clock
from allin_backend.platforms.registry import ADAPTERS

START: Final = 1_800_000_000.0
"""Unix time at which the tests' clock starts."""
GATEWAY: Final = "https://gateway.example.com"
TOKEN: Final = "access-token-of-a-person"

Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response | Awaitable[httpx2.Response]]


class VirtualTime:
    """A clock that only ``sleep`` and ``advance`` move."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.slept: list[float] = []

    def advance(self, seconds: float) -> None:
        self.passed += seconds

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.passed, wall=lambda: START + self.passed, sleep=self._sleep)


@dataclass
class FakePlatforms:
    """Answers requests with ``replies`` one after the other, the last one for ever, and keeps what was asked."""

    replies: list[Reply] = field(default_factory=list)
    requests: list[httpx2.Request] = field(default_factory=list)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, httpx2.Response):
            return httpx2.Response(reply.status_code, headers=reply.headers, content=reply.content)
        result = reply(request)
        return result if isinstance(result, httpx2.Response) else await result

    def connect(self) -> httpx2.AsyncBaseTransport:
        return httpx2.MockTransport(self._answer)

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]


class Bench:
    """A client with fake platforms, virtual time, and random numbers that are always ``chance``."""

    def __init__(self, *replies: Reply, timeout: float = 10.0, chance: float = 1.0) -> None:
        self.time = VirtualTime()
        self.metrics = WorkMetrics()
        self.remote = FakePlatforms(list(replies))
        self.client = PlatformClient(
            self.metrics,
            timeout=timeout,
            clock=self.time.clock,
            random=lambda: chance,
            connect=self.remote.connect,
        )

    def calls(self, platform: str, endpoint: str) -> tuple[int, int]:
        """How many requests to an endpoint succeeded, and how many failed."""
        return tuple(  # type: ignore[return-value]
            int(sample(self.metrics, contract.SOCIAL_CALLS, platform=platform, endpoint=endpoint, status=status) or 0)
            for status in (contract.SUCCESS, contract.ERROR)
        )

    def errors(self, platform: str, endpoint: str) -> dict[str, int]:
        """How many failures of each class an endpoint has, without those that have none."""
        counts = {
            error: sample(self.metrics, contract.SOCIAL_ERRORS_TOTAL, platform=platform, endpoint=endpoint, error=error)
            for error in contract.SOCIAL_ERRORS
        }
        return {error: int(count) for error, count in counts.items() if count}

    def retries(self, platform: str, endpoint: str) -> int:
        return int(sample(self.metrics, contract.SOCIAL_RETRIES, platform=platform, endpoint=endpoint) or 0)

    def durations(self, platform: str, endpoint: str) -> tuple[int, float]:
        """How many durations an endpoint has, and their sum in seconds."""
        labels = {"platform": platform, "endpoint": endpoint}
        count, total = (
            sample(self.metrics, contract.SOCIAL_DURATION, suffix, **labels) or 0.0 for suffix in ("_count", "_sum")
        )
        return int(count), total


def sample(metrics: WorkMetrics, metric: contract.Metric, suffix: str = "", /, **labels: str) -> float | None:
    """The value of one sample."""
    for family in metrics.collect():
        for found in family.samples:
            if found.name == metric.name + suffix and found.labels == labels:
                return float(found.value)
    return None


def adapter(name: str, gateway: str = GATEWAY) -> Platform:
    return ADAPTERS[name]("client-id", "client-secret", gateway)


def reply(status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    content = b"" if body is None else json.dumps(body).encode()
    return httpx2.Response(status, headers=headers, content=content)
