"""`check_routes`: routes that no alert reaches, receivers that nobody is told by, and what it says of them."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.action.check_routes import Checker, Matcher, parse


def problems(routes: list[dict[str, Any]], **more: Any) -> list[str]:
    """Check extra routes before the role's own for a severity, with receivers a, b and warning."""
    own = {"matchers": ['severity = "critical"'], "receiver": "warning"}
    config = {
        "route": {"receiver": "warning", "routes": [*routes, own]},
        "receivers": [{"name": "warning"}, *({"name": name} for name in more.get("receivers", ["a", "b"]))],
        "time_intervals": more.get("time_intervals", []),
    }
    origins = [f"alertmanager_extra_routes[{number}]" for number in range(len(routes))]
    return Checker(config, [*origins, "the role's route of severity critical"], more.get("silent", ["*"])).check()


A = {"matchers": ["team = payments"], "receiver": "a"}


def test_good_routes_are_accepted() -> None:
    """Prevents: a check that refuses everything."""
    assert problems([A, {"matchers": ["team = web"], "receiver": "b"}]) == []
    assert problems([A, {"matchers": ['team =~ "x.*"'], "receiver": "b"}]) == []
    assert problems([{**A, "continue": True}, {**A, "receiver": "b"}]) == []
    # The narrower first.
    narrow = {"matchers": ["team = payments", "severity = critical"], "receiver": "b"}
    assert problems([narrow, A]) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["team = payments"], ["team = payments"]),
        (["team = payments"], ['team="payments"', "severity = critical"]),
        (['{team="payments"}'], ['severity="critical",team="payments"']),
        (['team =~ "payments|web"'], ["team = web"]),
        (['team =~ "payments|web|db"'], ['team =~ "web|db"']),
        (["team != web"], ["team = payments"]),
        (['team !~ "w.*"'], ["team = payments"]),
        (['team =~ ".+"'], ["team = payments"]),
        ([], ["team = payments"]),
    ],
)
def test_a_route_that_another_takes_everything_from_is_named(first: list[str], second: list[str]) -> None:
    found = problems([{"matchers": first, "receiver": "a"}, {"matchers": second, "receiver": "b"}])
    assert found[0].startswith("alertmanager_extra_routes[1] (")
    assert "because alertmanager_extra_routes[0]" in found[0]
    assert "continue: true" in found[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["team = payments", "severity = critical"], ["team = payments"]),
        (['team =~ "payments|web"'], ['team =~ "web|db"']),
        (['team =~ "w.*"'], ['team =~ "we.*"']),
        (["team != web"], ['team =~ ".+"']),
    ],
)
def test_a_route_that_something_is_left_for_is_not(first: list[str], second: list[str]) -> None:
    assert problems([{"matchers": first, "receiver": "a"}, {"matchers": second, "receiver": "b"}]) == []


def test_a_catch_all_before_the_role_s_routes_is_named() -> None:
    """Prevents: a user's receiver that takes the pages away."""
    found = problems([{"receiver": "a"}], receivers=["a"])
    assert len(found) == 1
    assert found[0].startswith("the role's route of severity critical")
    assert "alertmanager_extra_routes[0] (no matchers)" in found[0]
    assert "matchers: ['team = payments']" in found[0]


def test_matchers_that_contradict_each_other_are_named() -> None:
    inner = {"matchers": ["team = web"], "receiver": "b"}
    found = problems([{**A, "routes": [inner]}])
    assert found == [
        "alertmanager_extra_routes[0].routes[0]: no alert reaches it, because none is both team = payments and "
        "team = web. Remove one of the two, or the route"
    ]
    assert problems([{**A, "routes": [{"matchers": ['team =~ "p.*"'], "receiver": "b"}]}]) == []


def test_a_route_in_another_is_compared_with_what_is_beside_it() -> None:
    inner = [
        {"matchers": ["severity = critical"], "receiver": "b"},
        {"matchers": ["severity = critical", "host = db1"], "receiver": "a"},
    ]
    assert problems([{**A, "routes": inner}])[0].startswith("alertmanager_extra_routes[0].routes[1] (")


def test_a_missing_receiver_is_named_with_what_was_meant() -> None:
    found = problems([{**A, "receiver": "warnin"}], receivers=[])
    assert "the receiver warnin, which does not exist (did you mean warning?)" in found[0]
    assert "alertmanager_extra_receivers: [{name: warnin" in found[0]


def test_a_receiver_without_a_route_is_named() -> None:
    found = problems([A])
    assert len(found) == 1
    assert "no route names the receiver b" in found[0]
    assert "receiver: b}]" in found[0]


def test_two_receivers_of_one_name_are_named() -> None:
    assert "two receivers of the name a" in problems([A], receivers=["a", "a"])[0]


def test_a_receiver_that_tells_nobody_is_named_unless_it_is_meant_to() -> None:
    found = problems([A], receivers=["a"], silent=["warning"])
    assert "alertmanager_extra_routes: the receiver a tells nobody" in found[0]
    assert problems([A], receivers=["a"], silent=["a", "warning"]) == []


def test_time_intervals_are_there_and_used() -> None:
    nights = {"name": "nights"}
    muted = {**A, "mute_time_intervals": ["nights"]}
    assert problems([muted], receivers=["a"], time_intervals=[nights]) == []
    assert "nothing uses nights" in problems([A], receivers=["a"], time_intervals=[nights])[0]
    found = problems([{**A, "mute_time_intervals": ["night"]}], receivers=["a"], time_intervals=[nights])
    assert "names night, which does not exist (did you mean nights?)" in found[0]


def test_matchers_are_read_as_alertmanager_reads_them() -> None:
    assert list(parse('{a="b,c", d=~"e|f",g != h}')) == [
        Matcher("a", "=", "b,c"),
        Matcher("d", "=~", "e|f"),
        Matcher("g", "!=", "h"),
    ]
    # What is not understood is compared as it is written.
    assert list(parse("a b")) == [Matcher("", "", "a b")]
