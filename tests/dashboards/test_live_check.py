"""The check that Molecule runs against a live Prometheus, here against one that is made up."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dashboards import reading

MODULE = Path(__file__).parents[2] / "molecule/shared/dashboard_queries.py"


class Answering:
    """A Prometheus that has everything, except for expressions that contain one of some words."""

    def __init__(self, *without: str, broken: str = "\0", jobs: Sequence[str] = ("cadvisor", "grafana")) -> None:
        self.without = without
        self.jobs = list(jobs)
        self.broken = broken
        self.asked: list[str] = []

    def api(self, path: str, **parameters: str) -> Any:
        """The values of a label."""
        if parameters["match[]"] == "up" and path == "label/job/values":
            return self.jobs
        return [] if any(word in parameters["match[]"] for word in self.without) else [f"{path.split('/')[1]}-value"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant vector."""
        self.asked.append(expression)
        if self.broken in expression:
            raise ValueError("parse error")
        return [] if any(word in expression for word in self.without) else [{"metric": {}, "value": [0, "1"]}]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard_queries", MODULE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_query_is_asked_with_its_variables_filled_in(check: ModuleType) -> None:
    """A variable left in would be a parse error at best, and match nothing at worst."""
    prometheus = Answering()
    assert check.complaints(prometheus) == []
    assert len(prometheus.asked) == sum(len(list(reading.queries(board))) for board in reading.dashboards())
    assert not [one for one in prometheus.asked if re.search(r"\$(?!\{?1)", one)]
    assert any('job="job-value", instance=~".*"' in one for one in prometheus.asked)


def test_a_panel_without_data_and_one_with_an_error_are_named(check: ModuleType) -> None:
    """The message must say where to look."""
    found = check.complaints(Answering("allin_active_connections", broken="allin_process_heap_bytes"))
    assert found == [
        "allin-overview: Active Connections (A): no data",
        "allin-overview: Heap Usage (A): parse error",
    ]


def test_an_error_is_never_excused(check: ModuleType) -> None:
    """What may be empty may not be broken."""
    found = check.complaints(Answering(broken="allin_social_api_errors_total"))
    assert "allin-third-party: Failures by kind (A): parse error" in found


def test_what_an_estate_has_not_is_excused_only_there(check: ModuleType) -> None:
    """Where a cAdvisor is scraped, its dashboard must show something."""
    found = check.complaints(Answering("container_memory_working_set_bytes", jobs=["node"]))
    assert found == []
    found = check.complaints(Answering("container_memory_working_set_bytes", jobs=["cadvisor"]))
    assert found == [
        "allin-containers: Services at a glance (B): no data",
        "allin-containers: Memory of services (A): no data",
    ]


def test_every_excuse_is_of_a_query_that_there_is(check: ModuleType) -> None:
    """An excuse for a panel that is gone hides nothing today, and something tomorrow."""
    everything = [query for board in reading.dashboards() for query in reading.queries(board)]
    for excuse in check.EXCUSES:
        assert excuse.why
        assert [query for query in everything if excuse.covers(query, ["another"])], excuse
    jobs = ["cadvisor", "grafana"]
    panels = [query for query in everything if query.ref != "annotation" and query.dashboard != "allin-containers"]
    excused = [query for query in panels if check.reason(query, jobs)]
    assert len(excused) < len(panels) / 3
