"""The jobs of every process: publishing, refreshing tokens before they end, figures for the metrics, tidying up."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from allin_backend.background import Job
from allin_backend.database.accounts import AccountSecrets
from allin_backend.database.survey import Survey
from allin_backend.database.tables import now as utc_now
from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.errors import PlatformError

_log: Final = logging.getLogger(__name__)
_REFRESH_INTERVAL: Final = 60.0
# Early enough for several attempts before the token ends.
_REFRESH_AHEAD: Final = timedelta(minutes=10)
_REFRESH_BATCH: Final = 50
_SURVEY_INTERVAL: Final = 15.0
_HOUSEKEEPING_INTERVAL: Final = 600.0

Reader = Callable[[datetime], Awaitable[Survey]]


class Expiring(Protocol):
    """A store whose records end by themselves."""

    async def delete_expired(self, now: datetime) -> int: ...


class ExpiringAccounts(Protocol):
    """What refreshing needs of the accounts' store."""

    async def expiring(self, before: datetime, limit: int) -> Sequence[AccountSecrets]: ...


class Refresher(Protocol):
    """What refreshing needs of the OAuth service."""

    async def refresh(self, account_id: int, /) -> object: ...


def refresh_tokens(accounts: ExpiringAccounts, oauth: Refresher, now: Callable[[], datetime] = utc_now) -> Job:
    """Refreshes access tokens that end soon, one after the other: nobody waits for them yet."""

    async def run() -> None:
        failures = 0
        due = await accounts.expiring(now() + _REFRESH_AHEAD, _REFRESH_BATCH)
        for account in due:
            try:
                await oauth.refresh(account.account_id)
            except PlatformError as error:
                # The others may be on platforms that answer.
                failures += 1
                _log.warning(
                    "token not refreshed", extra={"fields": {"account": account.account_id, "error": error.error}}
                )
        if failures:
            raise RuntimeError(f"{failures} of {len(due)} tokens could not be refreshed")

    return Job("refresh_tokens", _REFRESH_INTERVAL, run)


def survey(read: Reader, metrics: WorkMetrics, now: Callable[[], datetime] = utc_now) -> Job:
    """Reads from the database what the gauges of queue, accounts and people show."""

    async def run() -> None:
        show(await read(now()), metrics)

    return Job("survey", _SURVEY_INTERVAL, run)


def show(found: Survey, metrics: WorkMetrics) -> None:
    """Set the gauges."""
    for platform in contract.PLATFORMS:
        for state in contract.QUEUE_STATES:
            metrics.queue_posts.set(found.queue.get((platform, state), 0), platform, state)
        for state in contract.ACCOUNT_STATES:
            metrics.social_accounts.set(found.accounts.get((platform, state), 0), platform, state)
        oldest = found.oldest_due.get(platform)
        metrics.set_oldest_due(platform, None if oldest is None else oldest.timestamp())
        expiry = found.token_expiry.get(platform)
        if expiry is None:
            metrics.oauth_token_expiry.clear(platform)
        else:
            metrics.oauth_token_expiry.set(expiry.timestamp(), platform)
    for window in contract.ACTIVITY_WINDOWS:
        metrics.active_users.set(found.active_users[window], window)
    metrics.registered_users.set(found.registered_users)


def housekeeping(stores: Sequence[Expiring], now: Callable[[], datetime] = utc_now) -> Job:
    """Deletes what has ended: sessions, begun authorizations."""

    async def run() -> None:
        for store in stores:
            await store.delete_expired(now())

    return Job("housekeeping", _HOUSEKEEPING_INTERVAL, run)
