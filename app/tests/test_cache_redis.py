"""The cache on a real Redis server, and on servers that misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from allin_backend.cache import Cache, make_cache
from allin_backend.cache.facade import FAILURES_ALLOWED
from allin_backend.cache.redis import CONNECTIONS, RedisStore
from allin_backend.metrics.work import WorkMetrics
from redis_server import RedisServer
from support import DEADLINE, make_settings

PATIENT: Final = 20.0
HASTY: Final = 0.05
"""For servers that do not answer. No test relies on a server that does being as fast."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Scenario:
    """A started cache within a test's deadline: what has no time limit of its own fails by this one."""

    def __init__(self, url: str, *, password: str | None = None, timeout: float = PATIENT) -> None:
        self.metrics = WorkMetrics()
        store = RedisStore(url, password=password, timeout=timeout)
        self.cache = Cache(store, self.metrics, first_pause=0.01, longest_pause=0.01)
        self._limit = asyncio.timeout(DEADLINE)

    async def __aenter__(self) -> Scenario:
        await self._limit.__aenter__()
        await self.cache.start()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.cache.stop()
        await self._limit.__aexit__(*exception)

    def errors(self, operation: str) -> int:
        samples = self.metrics.cache_errors.family().samples
        [value] = [sample.value for sample in samples if sample.labels == {"operation": operation}]
        return int(value)

    @property
    def available(self) -> bool:
        return self.metrics.cache_available.get() == 1

    async def until_available(self, expected: bool) -> None:
        while self.available != expected:
            await asyncio.sleep(0.001)


async def loaded() -> bytes:
    return b"loaded"


def test_set_get_delete(redis_server: RedisServer) -> None:
    redis_server.start()

    async def scenario() -> None:
        async with Scenario(redis_server.url) as target:
            cache = target.cache
            await cache.set("user", "1", b"\x00\xff", 60)
            await cache.set("posts", "1", b"b", 0.0001)
            assert await cache.get("user", "1") == b"\x00\xff"
            assert 50_000 < redis_server.command("PTTL", "allin:user:1") <= 60_000
            while await cache.get("posts", "1") is not None:
                await asyncio.sleep(0.001)
            await cache.delete("user", "1", "2")
            assert await cache.get_or_load("user", "1", 60, loaded) == b"loaded"
            assert redis_server.command("GET", "allin:user:1") == b"loaded"
            assert [target.errors(operation) for operation in ("get", "set", "delete")] == [0, 0, 0]

    asyncio.run(scenario())


def test_more_callers_than_connections(redis_server: RedisServer) -> None:
    redis_server.start()
    keys = [str(number) for number in range(10 * CONNECTIONS)]

    async def scenario() -> None:
        async with Scenario(redis_server.url) as target:
            await asyncio.gather(*(target.cache.set("user", key, key.encode(), 60) for key in keys))
            values = await asyncio.gather(*(target.cache.get("user", key) for key in keys))
            assert values == [key.encode() for key in keys]
            assert int(redis_server.command("INFO", "clients")["connected_clients"]) <= CONNECTIONS + 1
        assert redis_server.command("INFO", "clients")["connected_clients"] == 1

    asyncio.run(scenario())


def test_settings_name_server_database_and_password(redis_server: RedisServer, tmp_path: Path) -> None:
    redis_server.start()
    redis_server.command("ACL", "SETUSER", "allin", "on", ">pass word", "~allin:*", "+@all")
    secret = tmp_path / "password"
    secret.write_text("pass word\n")
    settings = make_settings(
        tmp_path,
        ALLIN_CACHE_URL=f"redis://allin@127.0.0.1:{redis_server.port}/3",
        ALLIN_CACHE_PASSWORD_FILE=str(secret),
        ALLIN_CACHE_TIMEOUT_SECONDS="10",
    )

    async def scenario() -> None:
        metrics = WorkMetrics()
        cache = make_cache(settings, metrics)
        await cache.start()
        await cache.set("user", "1", b"a", 60)
        assert await cache.get("user", "1") == b"a"
        await cache.stop()
        assert metrics.cache_available.get() == 1
        assert redis_server.command("INFO", "keyspace").keys() == {"db3"}

    asyncio.run(scenario())


@pytest.mark.parametrize("password", [None, "hunter2"])
def test_wrong_password(redis_server: RedisServer, caplog: pytest.LogCaptureFixture, password: str | None) -> None:
    redis_server.start("--requirepass", "correct")

    async def scenario() -> None:
        async with Scenario(redis_server.url, password=password) as target:
            assert not target.available
            assert await target.cache.get_or_load("user", "1", 60, loaded) == b"loaded"

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    [record] = [record for record in caplog.records if record.name.startswith("allin_backend")]
    assert record.levelno == logging.WARNING
    assert "hunter2" not in str(vars(record))
    assert ("invalid username-password" if password else "Authentication required") in str(vars(record))


def test_killed_server_is_survived_and_used_again(redis_server: RedisServer) -> None:
    redis_server.start()

    async def scenario() -> None:
        async with Scenario(redis_server.url) as target:
            cache = target.cache
            await asyncio.gather(*(cache.set("user", str(number), b"a", 60) for number in range(CONNECTIONS)))
            assert await cache.get("user", "1") == b"a"
            redis_server.kill()
            for _ in range(2 * FAILURES_ALLOWED):
                assert await cache.get_or_load("user", "1", 60, loaded) == b"loaded"
            assert not target.available
            assert target.errors("get") + target.errors("set") == FAILURES_ALLOWED

            redis_server.start()
            await target.until_available(True)
            # Connections from before the restart are still in the pool; none of them may cost an error.
            await asyncio.gather(*(cache.set("user", str(number), b"b", 60) for number in range(CONNECTIONS)))
            assert await cache.get("user", "1") == b"b"
            assert target.errors("get") + target.errors("set") == FAILURES_ALLOWED

    asyncio.run(scenario())


def test_hanging_server_is_survived_and_lost_deletions_are_made_good(redis_server: RedisServer) -> None:
    redis_server.start()

    async def scenario() -> None:
        async with Scenario(redis_server.url, timeout=HASTY) as target:
            cache = target.cache
            for key in ("1", "2"):
                redis_server.command("SET", f"allin:session:{key}", "a")
            await target.until_available(True)
            redis_server.hang()
            while target.available:
                assert await cache.get_or_load("user", "1", 0, loaded) == b"loaded"
            assert target.errors("get") >= FAILURES_ALLOWED
            await cache.delete("session", "1")
            redis_server.go_on()
            await target.until_available(True)
            assert [redis_server.command("GET", f"allin:session:{key}") for key in ("1", "2")] == [None, b"a"]

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["time limit", "cancellation"])
def test_late_answer_is_nobody_else_s(redis_server: RedisServer, by: str) -> None:
    redis_server.start()

    async def scenario() -> None:
        async with Scenario(redis_server.url, timeout=PATIENT if by == "cancellation" else HASTY) as target:
            cache = target.cache
            for key in ("1", "2"):
                redis_server.command("SET", f"allin:session:{key}", key)
            # On a busy machine the short limit may also be too short for a server that works.
            while await cache.get("session", "1") is None:
                await asyncio.sleep(0)
            redis_server.hang()
            late = asyncio.create_task(cache.get("session", "1"))
            if by == "cancellation":
                # Until the command is on its way.
                await asyncio.wait((late,), timeout=HASTY)
                late.cancel()
            await asyncio.wait((late,))
            redis_server.go_on()
            redis_server.command("PING")
            while (value := await cache.get("session", "2")) is None:
                await asyncio.sleep(0)
            assert value == b"2"

    asyncio.run(scenario())


async def _never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _answers_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"$")
    while not reader.at_eof():
        writer.write(b"1")
        await asyncio.wait((asyncio.ensure_future(reader.read(1000)),), timeout=HASTY / 10)


async def _answers_something_else(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


@pytest.mark.parametrize("serve", [_never_answers, _answers_without_end, _answers_something_else, _hangs_up])
def test_server_that_is_none(serve: Serve) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server, Scenario(f"redis://{host}:{port}", timeout=HASTY) as target:
            assert not target.available
            assert await target.cache.get_or_load("user", "1", 60, loaded) == b"loaded"
            await target.cache.set("user", "1", b"a", 60)
            await target.cache.delete("user", "1")
            assert await target.cache.get("user", "1") is None

    asyncio.run(scenario())


def test_server_without_room_still_answers(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    redis_server.start()

    async def scenario() -> None:
        async with Scenario(redis_server.url) as target:
            await target.cache.set("user", "1", b"a", 60)
            redis_server.command("CONFIG", "SET", "maxmemory", 1)
            for _ in range(FAILURES_ALLOWED):
                await target.cache.set("user", "2", b"hunter2", 60)
                assert await target.cache.get("user", "1") == b"a"
            assert target.available
            assert target.errors("set") == FAILURES_ALLOWED

    asyncio.run(scenario())
    assert "hunter2" not in caplog.text


def test_password_is_not_shown() -> None:
    store = RedisStore("redis://allin:hunter2@127.0.0.1:1", password="hunter2", timeout=1)

    assert "hunter2" not in repr(store) + repr(vars(store))
