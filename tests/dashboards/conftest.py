"""Fixtures of the dashboards' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.dashboards.catalog import Catalog
from tests.dashboards.parser import Parser
from tests.rules.rule_files import RuleFiles, render

GRAFANA = "https://grafana.example.com/monitoring"


@pytest.fixture(scope="session")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    """A real parser of PromQL."""
    parser = Parser(tmp_path_factory.mktemp("parser"))
    yield parser
    parser.stop()


@pytest.fixture(scope="session")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleFiles:
    """The rules as the role writes them, with a Grafana to link to."""
    return render(tmp_path_factory.mktemp("rules") / "rendered", prometheus_dashboard_url_base=f"{GRAFANA}/")


@pytest.fixture(scope="session")
def catalog(rules: RuleFiles, parse: Parser) -> Catalog:
    """What there is to ask for."""
    return Catalog(rules, parse)
