"""What keeps the simulator's memory bounded, and ids unique."""

from __future__ import annotations

from itertools import pairwise

from allin_simulator.posts import PostIds, figures
from allin_simulator.recent import Recent
from simulator_support import NOW


def test_recent_forgets_the_oldest() -> None:
    recent: Recent[str, int] = Recent(2)
    for number, key in enumerate("abbc"):
        recent.put(key, number)
        assert len(recent) <= 2

    assert [recent.get(key) for key in "abc"] == [None, 2, 3]
    assert list(recent.newest_first()) == [3, 2]


def test_ids_are_unique_at_one_moment_and_when_the_clock_goes_back() -> None:
    ids = PostIds("secret")
    # A millisecond whose number is odd: what overflows into it would be lost.
    made = [ids.new("twitter", NOW + 0.0015) for _ in range(5000)] + [ids.new("twitter", NOW - 10) for _ in range(100)]

    assert sorted(set(made)) == made
    assert max(made) < 2**63


def test_id_tells_when_and_where_it_was_made() -> None:
    ids = PostIds("secret")
    number = ids.new("twitter", NOW + 0.25)

    assert PostIds("secret").made_at("twitter", number) == NOW + 0.25
    assert ids.made_at("facebook", number) is None
    assert PostIds("another").made_at("twitter", number) is None
    assert [ids.made_at("twitter", invented) for invented in (0, -number, number + 1, number << 10, 2**63)] == [
        None
    ] * 5


def test_figures_only_grow() -> None:
    seen = [figures(number, age) for number in (1, 2**60) for age in range(-60, 200_000, 600)]
    half = len(seen) // 2

    assert seen[0] == (0, 0, 0, 0)
    for course in (seen[:half], seen[half:]):
        for earlier, later in pairwise(course):
            assert all(one <= two for one, two in zip(earlier, later, strict=True))
        assert course[-1].impressions > course[-1].likes > course[-1].comments > 0
    assert seen[half - 1] != seen[-1]
