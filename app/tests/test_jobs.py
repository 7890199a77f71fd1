"""What the jobs do in one run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from allin_backend.database.accounts import AccountSecrets
from allin_backend.database.survey import Survey
from allin_backend.metrics import contract
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.errors import UnauthorizedError
from allin_backend.publishing import jobs

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def secrets(account_id: int) -> AccountSecrets:
    return AccountSecrets(
        account_id=account_id,
        user_id=1,
        platform="tiktok",
        platform_user_id="t",
        access_token="a",
        refresh_token="r",
        token_expires_at=NOON,
        state="active",
    )


class Accounts:
    def __init__(self, *account_ids: int) -> None:
        self.asked: list[datetime] = []
        self._due = [secrets(account_id) for account_id in account_ids]

    async def expiring(self, before: datetime, limit: int) -> Sequence[AccountSecrets]:
        self.asked.append(before)
        return self._due[:limit]


class OAuth:
    """Refreshes every token but that of account 2."""

    def __init__(self) -> None:
        self.refreshed: list[int] = []

    async def refresh(self, account_id: int) -> None:
        if account_id == 2:
            raise UnauthorizedError("tiktok")
        self.refreshed.append(account_id)


def test_tokens_are_refreshed_well_before_they_end() -> None:
    accounts, oauth = Accounts(1, 3), OAuth()

    asyncio.run(jobs.refresh_tokens(accounts, oauth, now=lambda: NOON).run())

    assert accounts.asked == [NOON + timedelta(minutes=10)]
    assert oauth.refreshed == [1, 3]


def test_a_token_that_cannot_be_refreshed_does_not_keep_the_others() -> None:
    oauth = OAuth()

    with pytest.raises(RuntimeError, match="1 of 3 tokens"):
        asyncio.run(jobs.refresh_tokens(Accounts(1, 2, 3), oauth, now=lambda: NOON).run())

    assert oauth.refreshed == [1, 3]


def value(metrics: WorkMetrics, name: str, **labels: str) -> float | None:
    for family in metrics.collect():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def found(**changes: object) -> Survey:
    nobody = dict.fromkeys(contract.ACTIVITY_WINDOWS, 0)
    nothing: dict[str, object] = {
        "queue": {},
        "oldest_due": {},
        "accounts": {},
        "token_expiry": {},
        "active_users": nobody,
        "registered_users": 0,
    }
    return Survey(**(nothing | changes))  # type: ignore[arg-type]


def test_survey_shows_what_there_is_and_takes_back_what_is_gone() -> None:
    metrics = WorkMetrics()
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    full = found(
        queue={("twitter", "due"): 3, ("twitter", "waiting"): 4},
        oldest_due={"twitter": long_ago},
        accounts={("tiktok", "needs_reconnect"): 2},
        token_expiry={"tiktok": NOON},
        active_users=dict(zip(contract.ACTIVITY_WINDOWS, (1, 2, 3, 4, 5), strict=True)),
        registered_users=9,
    )

    jobs.show(full, metrics)

    assert value(metrics, "allin_publish_queue_posts", platform="twitter", state="due") == 3
    assert value(metrics, "allin_publish_queue_posts", platform="twitter", state="waiting") == 4
    assert value(metrics, "allin_publish_queue_posts", platform="facebook", state="due") == 0
    age = value(metrics, "allin_publish_oldest_due_age_seconds", platform="twitter")
    assert age is not None
    assert 3600 <= age < 3700
    assert value(metrics, "allin_publish_oldest_due_age_seconds", platform="facebook") == 0
    assert value(metrics, "allin_social_accounts", platform="tiktok", state="needs_reconnect") == 2
    assert value(metrics, "allin_oauth_token_expiry_timestamp_seconds", platform="tiktok") == NOON.timestamp()
    assert value(metrics, "allin_oauth_token_expiry_timestamp_seconds", platform="twitter") is None
    assert value(metrics, "allin_active_users", window="24h") == 3
    assert value(metrics, "allin_registered_users") == 9

    jobs.show(found(), metrics)

    assert value(metrics, "allin_publish_queue_posts", platform="twitter", state="due") == 0
    assert value(metrics, "allin_publish_oldest_due_age_seconds", platform="twitter") == 0
    assert value(metrics, "allin_social_accounts", platform="tiktok", state="needs_reconnect") == 0
    assert value(metrics, "allin_oauth_token_expiry_timestamp_seconds", platform="tiktok") is None
    assert value(metrics, "allin_registered_users") == 0


def test_age_of_the_oldest_due_post_grows_without_another_survey() -> None:
    """While the database is gone, the queue's age must not stand still."""
    metrics = WorkMetrics()
    metrics.set_oldest_due("twitter", datetime.now(UTC).timestamp() - 10)

    ages = [value(metrics, "allin_publish_oldest_due_age_seconds", platform="twitter") or 0 for _ in range(2)]

    assert 10 <= ages[0] < ages[1]


def test_unknown_platform_is_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError):
        WorkMetrics().set_oldest_due("myspace", None)


def test_housekeeping_asks_every_store() -> None:
    asked: list[tuple[str, datetime]] = []

    class Store:
        def __init__(self, name: str) -> None:
            self._name = name

        async def delete_expired(self, now: datetime) -> int:
            asked.append((self._name, now))
            return 1

    asyncio.run(jobs.housekeeping([Store("sessions"), Store("states")], now=lambda: NOON).run())

    assert asked == [("sessions", NOON), ("states", NOON)]
