"""Rate limits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allin_backend.web.limits import RateLimiter


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600])
def test_a_minute_s_requests_at_once_and_then_one_at_a_time(per_minute: int) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute, clock)

    assert [limiter.allow("a") for _ in range(per_minute)] == [0.0] * per_minute
    wait = limiter.allow("a")
    assert wait == pytest.approx(60 / per_minute)
    clock.now += wait / 2
    assert limiter.allow("a") == pytest.approx(wait / 2)
    clock.now += wait / 2
    assert limiter.allow("a") == 0
    assert limiter.allow("a") > 0


def test_keys_do_not_share() -> None:
    limiter = RateLimiter(1, Clock())

    assert [limiter.allow(key) > 0 for key in ("a", "b", "a")] == [False, False, True]


def test_no_limit() -> None:
    limiter = RateLimiter(0, Clock())

    assert {limiter.allow("a") for _ in range(10_000)} == {0.0}
    assert len(limiter) == 0


def test_memory_is_bounded_and_the_key_used_last_is_remembered() -> None:
    limiter = RateLimiter(2, Clock(), keys=3)
    for key in ("a", "b", "c", "a", "d", "e"):
        limiter.allow(key)

    assert len(limiter) == 3
    assert limiter.allow("a") > 0
    assert limiter.allow("b") == 0


@given(
    per_minute=st.integers(1, 20),
    steps=st.lists(st.floats(0, 5) | st.floats(0, 70), min_size=30, max_size=100),
)
def test_like_a_bucket_that_is_filled_evenly(per_minute: int, steps: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute, clock)
    tokens = float(per_minute)
    for step in steps:
        clock.now += step
        tokens = min(per_minute, tokens + step * per_minute / 60)
        wait = limiter.allow("a")
        if abs(tokens - 1) > 1e-6:  # otherwise rounding decides
            assert (wait == 0) == (tokens > 1)
        if wait == 0:
            tokens -= 1
        else:
            assert wait == pytest.approx((1 - tokens) * 60 / per_minute, abs=1e-6)
