"""playbooks/verify.yml says why panels are empty: Grafana does not reach a data source, or has nothing from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from apis import Grafana, Prometheus
from estate import Run, run_playbook
from waiting import eventually


def verify(*options: str) -> Run:
    return run_playbook("playbooks/verify.yml", "--tags", "datasources", *options)


def words(run: Run) -> str:
    return " ".join(run.output.split())


@contextmanager
def stopped(host: Any, unit: str) -> Iterator[None]:
    host.check_output(f"systemctl stop {unit}")
    try:
        yield
    finally:
        host.check_output(f"systemctl start {unit}")


def test_grafana_gets_data() -> None:
    """Prevents: a check that finds something in every estate, or that asks nobody."""
    run = verify()
    assert run.code == 0, run.output[-3000:]
    assert "Grafana gets data from its data sources: alertmanager, prometheus." in run.output


@pytest.mark.parametrize(("unit", "source"), [("prometheus", "prometheus"), ("alertmanager", "alertmanager")])
def test_a_data_source_that_fails_is_named(host: Any, prometheus: Prometheus, unit: str, source: str) -> None:
    """The second case of the document's troubleshooting: Grafana asks where nobody answers."""
    with stopped(host, unit):
        run = verify()
    eventually(lambda: prometheus.query("up"), within=30, what="a sample")
    assert run.code != 0
    assert f"Data source fails: {source}: Grafana's test of http://" in words(run)
    assert "nothing listens at http://" in words(run)


def test_a_password_that_somebody_has_changed_is_named(host: Any, admin: Grafana) -> None:
    run = verify("--extra-vars", "grafana_admin_password=molecule-another-password")
    assert run.code != 0
    assert "it refuses the administrator: 401" in words(run)
    assert "molecule-another-password" not in run.output
