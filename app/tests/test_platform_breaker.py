"""The circuit breaker and the backoff, whatever happens in whatever order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from allin_backend.platforms.backoff import Backoff
from allin_backend.platforms.breaker import CircuitBreaker, CircuitOpenError, Permit

THRESHOLD = 3
OPEN_SECONDS = 30.0


class Breaker:
    """A breaker with its clock, and what its gauge was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[bool] = []
        self.breaker = CircuitBreaker(
            clock=lambda: self.now, on_change=self.told.append, threshold=THRESHOLD, open_seconds=OPEN_SECONDS
        )

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.admit().failed()


def test_opens_after_failures_in_a_row_only() -> None:
    bench = Breaker()
    bench.fail(THRESHOLD - 1)
    bench.breaker.admit().answered()
    bench.fail(THRESHOLD - 1)
    bench.breaker.admit().abandoned()
    assert not bench.breaker.is_open

    bench.fail(1)

    assert bench.breaker.is_open
    assert bench.told == [True]
    with pytest.raises(CircuitOpenError) as caught:
        bench.breaker.admit()
    assert caught.value.wait == OPEN_SECONDS


def test_one_probe_closes_it() -> None:
    bench = Breaker()
    bench.fail(THRESHOLD)
    bench.now += OPEN_SECONDS
    probe = bench.breaker.admit()
    with pytest.raises(CircuitOpenError):
        bench.breaker.admit()

    probe.answered()

    assert not bench.breaker.is_open
    assert bench.told == [True, False]
    bench.fail(THRESHOLD - 1)
    assert not bench.breaker.is_open, "failures before it opened still count"


def test_a_failed_probe_opens_it_for_as_long_again() -> None:
    bench = Breaker()
    bench.fail(THRESHOLD)
    bench.now += OPEN_SECONDS + 5
    bench.breaker.admit().failed()

    with pytest.raises(CircuitOpenError) as caught:
        bench.breaker.admit()

    assert caught.value.wait == OPEN_SECONDS
    assert bench.told == [True]


def test_an_abandoned_probe_leaves_room_for_the_next() -> None:
    bench = Breaker()
    bench.fail(THRESHOLD)
    bench.now += OPEN_SECONDS
    bench.breaker.admit().abandoned()

    bench.breaker.admit().answered()

    assert not bench.breaker.is_open


@pytest.mark.parametrize("outcome", [Permit.answered, Permit.failed, Permit.abandoned])
def test_what_was_sent_before_says_nothing_about_the_probe(outcome: Callable[[Permit], None]) -> None:
    bench = Breaker()
    late = bench.breaker.admit()
    bench.fail(THRESHOLD)
    outcome(late)
    assert bench.breaker.is_open
    bench.now += OPEN_SECONDS
    later = bench.breaker.admit()
    outcome(late)
    with pytest.raises(CircuitOpenError):
        bench.breaker.admit()

    later.answered()

    assert not bench.breaker.is_open


class BreakerMachine(RuleBasedStateMachine):
    """Any order of requests, outcomes and waits against a plain model of the rules."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Breaker()
        self.open_until: float | None = None
        self.row = 0
        self.epoch = 0
        self.probe: int | None = None
        self.issued: dict[int, tuple[Permit, int]] = {}

    @rule(target=permits)
    def send(self) -> int:
        try:
            permit = self.bench.breaker.admit()
        except CircuitOpenError:
            assert self.open_until is not None
            assert self.bench.now < self.open_until or self.probe is not None, "held back without a reason"
            return -1
        number = len(self.issued)
        if self.open_until is not None:
            assert self.bench.now >= self.open_until, "let through while open"
            assert self.probe is None, "a second probe"
            self.probe = number
            self.epoch += 1
        self.issued[number] = (permit, self.epoch)
        return number

    @rule(number=consumes(permits), outcome=st.sampled_from(["answered", "failed", "abandoned"]))
    def end(self, number: int, outcome: str) -> None:
        if number < 0:
            return
        permit, epoch = self.issued[number]
        getattr(permit, outcome)()
        if epoch != self.epoch:
            return
        if number == self.probe:
            self.probe = None
            if outcome == "answered":
                self.open_until, self.row = None, 0
                self.epoch += 1
            elif outcome == "failed":
                self.open_until = self.bench.now + OPEN_SECONDS
                self.epoch += 1
        elif outcome == "answered":
            self.row = 0
        elif outcome == "failed":
            self.row += 1
            if self.row == THRESHOLD:
                self.open_until, self.row = self.bench.now + OPEN_SECONDS, 0
                self.epoch += 1

    @rule(seconds=st.sampled_from([1.0, OPEN_SECONDS / 2, OPEN_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.bench.now += seconds

    @invariant()
    def the_gauge_says_what_is(self) -> None:
        assert self.bench.breaker.is_open == (self.open_until is not None)
        assert (self.bench.told[-1] if self.bench.told else False) == self.bench.breaker.is_open
        assert all(first != second for first, second in zip(self.bench.told, self.bench.told[1:], strict=False))


TestBreakerMachine = BreakerMachine.TestCase


seconds = st.floats(0, 1e6)


@given(
    backoff=st.builds(Backoff, base=st.floats(0, 1e3), cap=st.floats(0, 1e3), attempts=st.integers(1, 10)),
    chances=st.lists(st.floats(0, 1), min_size=10, max_size=10),
    asked=st.lists(st.floats(0, 2e3), min_size=10, max_size=10),
    deadline=seconds,
)
def test_backoff_stays_within_its_bounds(
    backoff: Backoff, chances: list[float], asked: list[float], deadline: float
) -> None:
    waited = 0.0
    for attempt, (chance, at_least) in enumerate(zip(chances, asked, strict=True), 1):
        random = itertools.repeat(chance).__next__
        delay = backoff.delay(attempt, random, remaining=deadline - waited, at_least=at_least)
        if delay is None:
            break
        assert attempt < backoff.attempts
        assert 0 <= at_least <= delay <= backoff.cap
        waited += delay
    assert waited <= deadline or isclose(waited, deadline)


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_backoff_grows_up_to_its_cap(attempt: int, chance: float) -> None:
    backoff = Backoff(base=0.5, cap=5.0, attempts=10_001)

    delay = backoff.delay(attempt, lambda: chance, remaining=1e9)

    assert delay == chance * min(5.0, 0.5 * 2.0 ** min(attempt - 1, 64))
