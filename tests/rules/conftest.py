"""Fixtures of the rule tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.rules.rule_files import RuleFiles, render, write_cases


@pytest.fixture(scope="session")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleFiles:
    """The rules as the role writes them with its defaults."""
    return render(tmp_path_factory.mktemp("rules") / "rendered")


@pytest.fixture(scope="session")
def cases(rules: RuleFiles) -> Path:
    """Directory of the promtool test files, ready to run."""
    directory = rules.directory.with_name("cases")
    write_cases(directory, rules)
    return directory
