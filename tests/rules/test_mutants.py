"""The mutation check on rules of a user's own: what it says of good cases and of cases that prove too little."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rules.mutants import main

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
