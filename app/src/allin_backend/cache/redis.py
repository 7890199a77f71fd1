"""A store on a Redis server, shared by all processes of the deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from allin_backend.cache.store import StoreError

CONNECTIONS: Final = 16
"""Most connections that a process opens; a look-up that finds all of them busy waits, within its time limit."""


class RedisStore:
    """Every call ends within ``timeout`` seconds, whatever it waits for: a free connection, the server, the answer.

    Nothing is tried twice: without the cache a request takes the time of a query, and a second try may take more.
    """

    def __init__(self, url: str, *, password: str | None, timeout: float) -> None:
        self._timeout: Final = timeout
        options: dict[str, Any] = {**parse_url(url)}
        if password is not None:
            options["password"] = password
        self._client: Final = Redis.from_pool(
            BlockingConnectionPool(
                max_connections=CONNECTIONS,
                # Each step's own limit is off: ``_within_limit`` ends their sum.
                timeout=None,
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
                # Version 2 is enough for three commands, and spares a new connection one exchange; so does no name.
                protocol=2,
                driver_info=None,
                **options,
            )
        )

    async def get(self, name: str) -> bytes | None:
        return cast("bytes | None", await self._within_limit(self._client.get(name)))

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        await self._within_limit(self._client.set(name, value, px=max(1, int(ttl_seconds * 1000))))

    async def delete(self, names: Sequence[str]) -> None:
        await self._within_limit(self._client.unlink(*names))

    async def close(self) -> None:
        await self._within_limit(self._client.aclose())

    async def _within_limit(self, command: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await command
        except TimeoutError:
            raise StoreError(f"no answer within {self._timeout:g} s") from None
        except (RedisConnectionError, OSError) as error:
            raise StoreError(str(error)) from error
        except Exception as error:
            # Everything, as a fault of the client must not fail a request either. The text may repeat the command.
            raise StoreError(type(error).__name__) from error
