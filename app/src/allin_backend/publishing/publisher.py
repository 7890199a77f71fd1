"""Publishes what is due: once, and not twice.

A publication is one post on one account. A process takes it with a lease, sends it with the publication's own
idempotency key, and writes the outcome down. If the process dies or the database is gone in between, the lease ends,
another process sends it again with the same key, and a platform that keeps such keys answers with the post that it
already has. On one that does not, a post whose outcome is not known is given up, for a person to look; only a process
that dies while it sends can still make two there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from allin_backend.database.accounts import AccountSecrets
from allin_backend.database.publications import Claim
from allin_backend.database.tables import now as utc_now
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Published
from allin_backend.platforms.errors import LONGEST_DETAIL, PlatformError, RejectedError, UnauthorizedError

_log: Final = logging.getLogger(__name__)
_BATCH: Final = 20
_AT_ONCE: Final = 10
_LEASE_SECONDS: Final = 120.0
# What is left of a lease when sending must end: time to write the outcome down.
_MARGIN_SECONDS: Final = 30.0
_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 300.0


class Queue(Protocol):
    """What the publisher needs of the publications' store."""

    async def claim(self, owner: str, now: datetime, lease_seconds: float, limit: int) -> Sequence[Claim]: ...

    async def published(self, claim: Claim, platform_post_id: str, url: str | None, now: datetime) -> bool: ...

    async def postpone(self, claim: Claim, next_attempt_at: datetime, error: str) -> bool: ...

    async def failed(self, claim: Claim, reason: str, error: str) -> bool: ...


class Accounts(Protocol):
    """What the publisher needs of the accounts' store."""

    async def secrets(self, account_id: int) -> AccountSecrets | None: ...


class Sender(Protocol):
    """What the publisher needs of the platforms."""

    def publishes_once(self, platform: str) -> bool: ...

    async def publish(
        self, account: AccountSecrets, text: str, idempotency_key: str, *, budget: float | None = None
    ) -> Published: ...


class Publisher:
    """Takes due publications and sends them.

    ``deadline`` is how late, in seconds, one may still be published, ``budget`` how long, in seconds, the requests for
    one may take in a run. ``changed`` is told whose publication has a new state.
    """

    def __init__(
        self,
        queue: Queue,
        accounts: Accounts,
        sender: Sender,
        metrics: WorkMetrics,
        *,
        owner: str,
        deadline: float,
        budget: float,
        changed: Callable[[int], Awaitable[None]],
        now: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.Random().random,  # noqa: S311, B008  # spreads load, guards nothing
    ) -> None:
        self._queue = queue
        self._accounts = accounts
        self._sender = sender
        self._metrics = metrics
        self._owner = owner
        self._deadline = timedelta(seconds=deadline)
        self._budget = budget
        self._changed = changed
        self._now = now
        self._chance = chance

    async def run(self) -> bool:
        """Publish a batch of what is due. True where more may be due.

        Raises:
            Exception: what the database raised; what had been taken is taken again when its lease has ended.
        """
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(claim: Claim) -> None:
            async with gate:
                await self._publish(claim)

        claims = await self._queue.claim(self._owner, self._now(), _LEASE_SECONDS, _BATCH)
        # All of them, also when one fails: each has sent something and must write its own outcome down.
        outcomes = await asyncio.gather(*(one(claim) for claim in claims), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(claims) == _BATCH

    async def _publish(self, claim: Claim) -> None:
        if self._now() - claim.due_at > self._deadline:
            await self._give_up(claim, "too_late", "It could not be published in time.")
            return
        account = await self._accounts.secrets(claim.account_id)
        if account is None:
            return  # disconnected since; its publications went with it
        try:
            async with asyncio.timeout(_LEASE_SECONDS - _MARGIN_SECONDS):
                published = await self._sender.publish(account, claim.text, claim.idempotency_key, budget=self._budget)
        except UnauthorizedError as error:
            await self._give_up(claim, "unauthorized", _text(error))
        except RejectedError as error:
            await self._give_up(claim, "rejected", _text(error))
        except PlatformError as error:
            if error.outcome_unknown and not self._sender.publishes_once(claim.platform):
                await self._give_up(claim, "unknown_outcome", _text(error))
            else:
                await self._postpone(claim, error, error.retry_at)
        except TimeoutError as error:
            if self._sender.publishes_once(claim.platform):
                await self._postpone(claim, error, None)
            else:
                await self._give_up(claim, "unknown_outcome", "There was no answer in time.")
        except Exception as error:
            # A platform that is not set up any more, a key that is gone: put right, it lets the post go out.
            _log.error("cannot publish", extra={"fields": self._fields(claim)}, exc_info=error)
            await self._postpone(claim, error, None)
        else:
            await self._published(claim, published)

    async def _published(self, claim: Claim, published: Published) -> None:
        now = self._now()
        # False: the lease ended before and another process has it; that one counts it.
        if await self._queue.published(claim, published.platform_post_id, published.url, now):
            self._metrics.posts_published.inc(claim.platform)
            self._metrics.publish_delay.observe(max(0.0, (now - claim.due_at).total_seconds()), claim.platform)
            _log.info("published", extra={"fields": self._fields(claim)})
            await self._changed(claim.user_id)

    async def _give_up(self, claim: Claim, reason: str, error: str) -> None:
        if await self._queue.failed(claim, reason, error):
            self._metrics.posts_failed.inc(claim.platform, reason)
            _log.warning("given up", extra={"fields": {**self._fields(claim), "reason": reason, "error": error}})
            await self._changed(claim.user_id)

    async def _postpone(self, claim: Claim, error: Exception, not_before: datetime | None) -> None:
        longest = min(_FIRST_PAUSE * 2 ** min(claim.attempts - 1, 20), _LONGEST_PAUSE)
        # Half of it by chance: what failed together must not come back together.
        again = self._now() + timedelta(seconds=longest * (0.5 + 0.5 * self._chance()))
        if not_before is not None:
            again = max(again, not_before)
        await self._queue.postpone(claim, again, _text(error))
        _log.info("postponed", extra={"fields": {**self._fields(claim), "again": again, "error": _text(error)}})

    @staticmethod
    def _fields(claim: Claim) -> dict[str, object]:
        return {"publication": claim.id, "platform": claim.platform, "attempts": claim.attempts}


def _text(error: Exception) -> str:
    return f"{error}"[:LONGEST_DETAIL] or type(error).__name__
