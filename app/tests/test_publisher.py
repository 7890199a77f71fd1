"""Publishing: once, never twice, and not given up before its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from allin_backend.database.accounts import AccountSecrets
from allin_backend.database.publications import Claim
from allin_backend.metrics.work import WorkMetrics
from allin_backend.platforms.base import Published
from allin_backend.platforms.errors import (
    PlatformError,
    RateLimitedError,
    RejectedError,
    UnauthorizedError,
    UnavailableError,
)
from allin_backend.publishing.publisher import Publisher

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def claim(number: int = 1, *, late: float = 0.0, attempts: int = 1) -> Claim:
    """A publication that was due ``late`` seconds before noon."""
    return Claim(
        id=number,
        post_id=number,
        account_id=number,
        platform="twitter",
        text="hello",
        idempotency_key=f"key-{number}",
        due_at=NOON - timedelta(seconds=late),
        attempts=attempts,
        user_id=1,
        owner="me",
        leased_until=NOON + timedelta(seconds=120),
    )


@dataclass
class Queue:
    """Hands out ``due`` and writes down what becomes of it. ``lost``: the lease has ended meanwhile."""

    due: list[Claim]
    lost: bool = False
    broken: bool = False
    outcomes: list[tuple[object, ...]] = field(default_factory=list)

    async def claim(self, owner: str, now: datetime, lease_seconds: float, limit: int) -> Sequence[Claim]:
        assert (owner, now) == ("me", NOON)
        taken, self.due = self.due[:limit], self.due[limit:]
        return taken

    def _write(self, *outcome: object) -> bool:
        if self.broken:
            raise ConnectionError("no database")
        self.outcomes.append(outcome)
        return not self.lost

    async def published(self, claim: Claim, platform_post_id: str, url: str | None, now: datetime) -> bool:
        return self._write("published", claim.id, platform_post_id, url, now)

    async def postpone(self, claim: Claim, next_attempt_at: datetime, error: str) -> bool:
        return self._write("postponed", claim.id, (next_attempt_at - NOON).total_seconds(), error)

    async def failed(self, claim: Claim, reason: str, error: str) -> bool:
        return self._write("failed", claim.id, reason, error)


class Accounts:
    """Knows every account but number 99."""

    async def secrets(self, account_id: int) -> AccountSecrets | None:
        if account_id == 99:
            return None
        return AccountSecrets(
            account_id=account_id,
            user_id=1,
            platform="twitter",
            platform_user_id="t1",
            access_token="encrypted",
            refresh_token=None,
            token_expires_at=None,
            state="active",
        )


@dataclass
class Sender:
    """Answers with ``error``, or accepts."""

    error: Exception | None = None
    once: bool = True
    sent: list[tuple[int, str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def publishes_once(self, platform: str) -> bool:
        assert platform == "twitter"
        return self.once

    async def publish(
        self, account: AccountSecrets, text: str, idempotency_key: str, *, budget: float | None = None
    ) -> Published:
        assert budget == 20.0
        self.sent.append((account.account_id, text, idempotency_key))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return Published(platform_post_id=f"p{account.account_id}", url=None)


def publish(queue: Queue, sender: Sender, *, chance: float = 1.0) -> tuple[bool, WorkMetrics]:
    metrics = WorkMetrics()
    told: list[int] = []
    before = len(queue.outcomes)

    async def changed(user_id: int) -> None:
        told.append(user_id)

    publisher = Publisher(
        queue,
        Accounts(),
        sender,
        metrics,
        owner="me",
        deadline=3600.0,
        budget=20.0,
        changed=changed,
        now=lambda: NOON,
        chance=lambda: chance,
    )
    more = asyncio.run(publisher.run())
    # Whoever looks at the posts must see their new state.
    ended = [outcome for outcome in queue.outcomes[before:] if outcome[0] != "postponed"]
    assert len(told) == (0 if queue.lost else len(ended))
    return more, metrics


def count(metrics: WorkMetrics, family: str, **labels: str) -> float:
    samples = getattr(metrics, family).family().samples
    return float(sum(s.value for s in samples if labels.items() <= s.labels.items() and not s.name.endswith("_bucket")))


def test_what_is_due_is_sent_with_its_own_key_and_counted() -> None:
    queue = Queue([claim(1, late=2.0), claim(2)])
    sender = Sender()

    more, metrics = publish(queue, sender)

    assert not more
    assert sorted(sender.sent) == [(1, "hello", "key-1"), (2, "hello", "key-2")]
    assert sorted(queue.outcomes) == [("published", 1, "p1", None, NOON), ("published", 2, "p2", None, NOON)]
    assert count(metrics, "posts_published", platform="twitter") == 2
    (total,) = [
        s.value
        for s in metrics.publish_delay.family().samples
        if s.name.endswith("_sum") and s.labels == {"platform": "twitter"}
    ]
    assert total == 2.0


def test_nothing_is_counted_when_another_process_has_the_lease() -> None:
    _, metrics = publish(Queue([claim(), claim(2)], lost=True), Sender())
    assert count(metrics, "posts_published") == 0

    _, metrics = publish(Queue([claim()], lost=True), Sender(RejectedError("twitter", "no")))
    assert count(metrics, "posts_failed") == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RejectedError("twitter", "too rude"), "rejected"), (UnauthorizedError("twitter"), "unauthorized")],
)
def test_what_will_never_work_is_given_up_with_its_reason(error: Exception, reason: str) -> None:
    queue = Queue([claim()])

    _, metrics = publish(queue, Sender(error))

    assert queue.outcomes == [("failed", 1, reason, str(error))]
    assert count(metrics, "posts_failed", platform="twitter", reason=reason) == 1
    assert count(metrics, "posts_published") == 0


@pytest.mark.parametrize(
    ("attempts", "chance", "pause"),
    [
        (1, 1.0, 2.0),
        (1, 0.0, 1.0),
        (4, 1.0, 16.0),
        (4, 0.5, 12.0),
        (8, 1.0, 256.0),
        (9, 1.0, 300.0),
        (5000, 1.0, 300.0),
    ],
)
def test_what_may_work_later_waits_longer_each_time(attempts: int, chance: float, pause: float) -> None:
    queue = Queue([claim(attempts=attempts)])

    publish(queue, Sender(UnavailableError("twitter", "timeout")), chance=chance)

    assert queue.outcomes == [("postponed", 1, pause, "twitter: timeout")]


@pytest.mark.parametrize(("named", "pause"), [(90.0, 90.0), (0.1, 2.0)])
def test_a_time_that_the_platform_named_is_waited_for(named: float, pause: float) -> None:
    later = NOON + timedelta(seconds=named)
    errors: list[PlatformError] = [
        RateLimitedError("twitter", retry_at=later),
        UnavailableError("twitter", "server_error", retry_at=later),
    ]
    for error in errors:
        queue = Queue([claim()])
        publish(queue, Sender(error))
        assert [outcome[:3] for outcome in queue.outcomes] == [("postponed", 1, pause)]


def test_unknown_outcome_is_not_sent_again_where_that_would_make_a_second_post() -> None:
    unknown = UnavailableError("twitter", "timeout", outcome_unknown=True)
    not_sent = UnavailableError("twitter", "connection")
    expected = {
        (unknown, True): ("postponed", 1, 2.0, "twitter: timeout"),
        (unknown, False): ("failed", 1, "unknown_outcome", "twitter: timeout"),
        (not_sent, False): ("postponed", 1, 2.0, "twitter: connection"),
    }
    for (error, once), outcome in expected.items():
        queue = Queue([claim()])
        publish(queue, Sender(error, once=once))
        assert queue.outcomes == [outcome]


def test_what_can_be_put_right_waits(caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue([claim()])

    publish(queue, Sender(LookupError("this platform is not set up")))

    assert queue.outcomes == [("postponed", 1, 2.0, "this platform is not set up")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_account_that_is_gone_is_nobodys_failure() -> None:
    queue = Queue([claim(99)])
    sender = Sender()

    _, metrics = publish(queue, sender)

    assert (sender.sent, queue.outcomes) == ([], [])
    assert count(metrics, "posts_failed") == 0


def test_too_late_is_given_up_without_sending() -> None:
    queue = Queue([claim(1, late=3600.0), claim(2, late=3601.0)])
    sender = Sender()

    _, metrics = publish(queue, sender)

    assert [sent[0] for sent in sender.sent] == [1]
    assert ("failed", 2, "too_late", "It could not be published in time.") in queue.outcomes
    assert count(metrics, "posts_failed", reason="too_late") == 1


def test_a_full_batch_says_that_there_may_be_more_and_goes_out_in_parts() -> None:
    queue = Queue([claim(number) for number in range(1, 46)])
    sender = Sender()

    assert [publish(queue, sender)[0] for _ in range(3)] == [True, True, False]
    assert len({key for _, _, key in sender.sent}) == len(sender.sent) == 45
    assert sender.most_at_once == 10


def test_an_outcome_that_cannot_be_written_down_is_an_error_of_the_run() -> None:
    """The lease then ends by itself, and the same key is sent again."""
    queue = Queue([claim(1), claim(2)], broken=True)
    sender = Sender()

    with pytest.raises(ConnectionError):
        publish(queue, sender)

    assert len(sender.sent) == 2  # the first one's trouble did not stop the second half-way


def test_a_platform_that_never_answers_is_left_before_the_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Sender):
        async def publish(self, *_: object, **__: object) -> Published:
            await asyncio.Event().wait()
            raise AssertionError("never reached")

    monkeypatch.setattr("allin_backend.publishing.publisher._LEASE_SECONDS", 30.01)
    for once, outcome in (
        (True, ("postponed", 1, 2.0, "TimeoutError")),
        (False, ("failed", 1, "unknown_outcome", "There was no answer in time.")),
    ):
        queue = Queue([claim()])
        publish(queue, Silent(once=once))
        assert queue.outcomes == [outcome]
