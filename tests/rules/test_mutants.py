"""The mutation check: how it breaks a rule, and what it says of a user's rules with good cases and with poor ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rules.mutants import main
from tests.rules.mutations import mutants

RULES = """
groups:
  - name: shop
    rules:
      - record: shop:orders:rate5m
        expr: sum(rate(shop_orders_total[5m]))
      - alert: NoOrders
        expr: shop:orders:rate5m < 2
        for: 10m
        labels: {severity: warning}
"""
CASES = """
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series: [{series: 'shop_orders_total{shop="a"}', values: "0+ORDERSx30"}]
    alert_rule_test:
      - alertname: NoOrders
        eval_time: 25m
        exp_alerts: [EXPECTED]
"""


def _broken(expression: str) -> dict[str, str]:
    """What is done to the expression of an alert -> what comes of it."""
    rules = [{"alert": "A", "expr": expression, "labels": {"severity": "info"}}]
    made = mutants([{"name": "a", "rules": rules}], {})
    return {
        one.what: one.replacement["expr"] for one in made if one.replacement and one.replacement["expr"] != expression
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a > 5", {"a <= 5", "a >= 5", "a > 9.5", "a > 2.25"}),
        ("count(a) > 1", {"count(a) <= 1", "count(a) >= 1", "count(a) > 2", "count(a) > 0.45", "sum(a) > 1"}),
        (
            'a{b="x", c!~"y|z"}',
            {
                'a{c!~"y|z"}',
                'a{b!="x", c!~"y|z"}',
                'a{b="x", }',
                'a{b="x", c=~"y|z"}',
                'a{b="x", c!~"no-such-value|z"}',
                'a{b="x", c!~"y|no-such-value"}',
            },
        ),
        ("avg without (b, c) (a)", {"max without (b, c) (a)", "avg without (c) (a)", "avg without (b) (a)"}),
        ("a offset 1h", {"a offset 10800s", "a offset 1200s"}),
        ("rate(a[5m]) + b", {"rate(a[900s]) + b", "rate(a[100s]) + b", "rate(a[5m]) - b"}),
        ("f(a unless on (b) c, d)", {"f(a , d)", "f( c, d)", "f(a unless on () c, d)"}),
    ],
)
def test_each_part_of_an_expression_is_broken(expression: str, expected: set[str]) -> None:
    """What is never broken is never shown to be tested."""
    assert set(_broken(expression).values()) == expected


def test_strings_are_no_operators() -> None:
    """A text with "and 5 > 3" in it says nothing about the condition."""
    assert _broken('label_replace(a, "b", "and 5 > 3 or [5m]", "", "")') == {}


def test_no_two_mutants_have_one_name() -> None:
    """An excuse for one rule must not be one for another that has the same name and severity."""
    rules = [{"alert": "A", "expr": expression, "labels": {"severity": "info"}} for expression in ("a > 5", "b > 5")]
    names = [(one.rule, one.what) for one in mutants([{"name": "a", "rules": rules}], {})]
    assert len(names) == len(set(names))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A rule file and a directory for its cases."""
    (tmp_path / "shop.yml").write_text(RULES)
    (tmp_path / "cases").mkdir()
    return tmp_path


def _case(orders: int, fires: bool) -> str:
    expected = "{exp_labels: {severity: warning}}" if fires else ""
    return CASES.replace("ORDERS", str(orders)).replace("EXPECTED", expected)


def _run(own: Path, *more: str) -> int:
    return main(["--rules", str(own / "shop.yml"), "--cases", str(own / "cases"), *more])


def test_a_case_that_proves_little_leaves_survivors(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only users' rules are broken, and what no case notices is named."""
    (own / "cases" / "quiet.yml").write_text(_case(240, fires=False))
    assert _run(own) == 1
    said = capsys.readouterr().out
    assert "SURVIVED NoOrders warning: deleted" in said
    assert "HighErrorRate" not in said


def test_what_is_accepted_may_survive_and_must(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list of excuses that grows stale hides what a later change breaks."""
    (own / "cases" / "quiet.yml").write_text(_case(240, fires=False))
    (own / "cases" / "firing.yml").write_text(_case(60, fires=True))
    assert _run(own, "--rule", "shop:orders") == 1
    said = capsys.readouterr().out
    survived = [line.split(": ", 1)[1] for line in said.splitlines() if line.startswith("SURVIVED shop:orders")]
    assert survived
    assert "deleted" not in survived
    reasons = "".join(f'  "{what}": one shop is all there is\n' for what in survived)
    accepted = own / "cases" / "mutants.accepted"
    accepted.write_text(f"shop:orders:rate5m:\n{reasons}")
    assert _run(own, "--rule", "shop:orders") == 0
    accepted.write_text(f"shop:orders:rate5m:\n{reasons}  deleted: it is not needed\n")
    capsys.readouterr()
    assert _run(own, "--rule", "shop:orders") == 1
    assert "strike it from what is accepted: shop:orders:rate5m: deleted" in capsys.readouterr().out


def test_cases_that_fail_anyway_prove_nothing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a case that never passes every mutant would count as killed."""
    (own / "cases" / "wrong.yml").write_text(_case(240, fires=True))
    assert _run(own) == 1
    said = capsys.readouterr().out
    assert "wrong.yml" in said
    assert "although no rule is broken" in said
    assert "mutants:" not in said


def test_an_excuse_for_a_rule_that_is_gone_is_an_error(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else it would excuse the next rule of that name. So would one for any rule that no rule needs."""
    (own / "cases" / "firing.yml").write_text(_case(60, fires=True))
    (own / "cases" / "mutants.accepted").write_text('Gone warning: {deleted: was}\n"*": {"nothing like it": was}\n')
    assert _run(own) == 1
    said = capsys.readouterr().out
    assert "strike it from what is accepted: Gone warning: deleted" in said
    assert "strike it from what is accepted: *: nothing like it" in said
