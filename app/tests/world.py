"""Processes of a backend with a real database and simulated platforms, on one virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from allin_backend.database.accounts import Account, AccountSecrets, AccountStore
from allin_backend.database.engine import Database
from allin_backend.database.oauth_states import OAuthStateStore
from allin_backend.database.users import UserStore
from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.client import EXTENSION, Exchange, PlatformClient
from allin_backend.platforms.oauth import OAuthService
from allin_backend.platforms.registry import ADAPTERS, Platforms
from allin_backend.platforms.service import PlatformService
from allin_backend.security.encryption import TokenCipher, make_key
from allin_simulator.app import create_simulator
from allin_simulator.settings import Settings as SimulatorSettings
from platform_support import VirtualTime, sample
from support import make_settings

REDIRECT = "https://app.example.com/oauth/callback"
GATEWAY = "http://simulator.example.com"


class Remote(httpx2.AsyncBaseTransport):
    """The simulator in this process. ``before`` is called first for each request, and may answer it instead.

    A request that is never answered costs its time-out on the virtual clock, and none of the machine's time.
    """

    def __init__(self, time: VirtualTime, token_seconds: float) -> None:
        self._time = time
        settings = SimulatorSettings(token_seconds=token_seconds, hang_seconds=0)
        application = create_simulator(settings, clock=time.clock.wall, sleep=time.clock.sleep)
        self._inner = httpx2.ASGITransport(application)
        self.requests: list[httpx2.Request] = []
        self.before: Callable[[httpx2.Request], Awaitable[httpx2.Response | None]] | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if self.before is not None and (answer := await self.before(request)) is not None:
            return answer
        begun = self._time.passed
        try:
            return await self._inner.handle_async_request(request)
        except httpx2.ReadTimeout:
            exchange: Exchange = request.extensions[EXTENSION]
            # Requests wait side by side: what others have waited since counts for this one too.
            self._time.advance(max(0.0, begun + exchange.timeout - self._time.passed))
            raise

    def count(self, path: str) -> int:
        return sum(request.url.path.endswith(path) for request in self.requests)


@dataclass
class Process:
    """What one process of the backend has of its own."""

    metrics: WorkMetrics
    client: PlatformClient
    oauth: OAuthService
    service: PlatformService

    def outcomes(self, operation: str, platform: str = "twitter") -> dict[str, int]:
        counts = {
            status: sample(
                self.metrics,
                contract.OAUTH_OPERATIONS_TOTAL,
                platform=platform,
                operation=operation,
                status=status,
            )
            for status in contract.OAUTH_STATUSES
        }
        return {status: int(count) for status, count in counts.items() if count}


class World:
    """The simulator, a database with two users, and processes of the backend."""

    def __init__(self, database: Database, token_seconds: float) -> None:
        self.database = database
        self.time = VirtualTime()
        self.remote = Remote(self.time, token_seconds)
        self.cipher = TokenCipher([make_key()])
        self.accounts = AccountStore(database)
        self.states = OAuthStateStore(database)
        self.user = 0
        self.other_user = 0
        self.first = self.process()

    def process(self, gateway: str = GATEWAY, accounts: AccountStore | None = None) -> Process:
        metrics = WorkMetrics()
        client = PlatformClient(metrics, timeout=10, clock=self.time.clock, connect=lambda: self.remote)
        platforms = Platforms({name: kind("the-client", "the-secret", gateway) for name, kind in ADAPTERS.items()})
        oauth = OAuthService(
            platforms, client, self.states, accounts or self.accounts, self.cipher, metrics, redirect_url=REDIRECT
        )
        return Process(metrics, client, oauth, PlatformService(platforms, client, oauth, self.cipher))

    async def knobs(self, platform: str, **knobs: object) -> None:
        async with self._http() as http:
            response = await http.put(f"/control/platforms/{platform}", json=knobs)
            assert response.status_code == 200, response.text

    async def posts(self) -> list[dict[str, Any]]:
        async with self._http() as http:
            posts: list[dict[str, Any]] = (await http.get("/control/posts")).json()["posts"]
            return posts

    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=self.remote._inner, base_url=GATEWAY)

    async def visit(self, url: str, **query: str) -> dict[str, str]:
        """What a person comes back with from the platform's page."""
        async with self._http() as http:
            response = await http.get(str(httpx2.URL(url).copy_merge_params(query)))
        assert response.status_code == 302, response.text
        assert response.headers["location"].startswith(REDIRECT)
        return {name: values[0] for name, values in parse_qs(urlsplit(response.headers["location"]).query).items()}

    async def connect(self, platform: str = "twitter") -> Account:
        begun = await self.first.oauth.authorize(self.user, platform)
        back = await self.visit(begun.url)
        return await self.first.oauth.callback(self.user, platform, back["state"], code=back["code"])

    async def secrets(self, account: Account) -> AccountSecrets:
        found = await self.accounts.secrets(account.id)
        assert found is not None
        return found


@asynccontextmanager
async def world(directory: Path, token_seconds: float = 3600) -> AsyncIterator[World]:
    settings = await asyncio.to_thread(make_settings, directory)
    database = Database(settings.database_url, pool_size=3, timeout=5, instrument=lambda _engine: None)
    await database.start()
    try:
        here = World(database, token_seconds)
        users = UserStore(database)
        here.user = (await users.create("ann@example.com", "Ann", None)).id
        here.other_user = (await users.create("ben@example.com", "Ben", None)).id
        yield here
    finally:
        await database.stop()
