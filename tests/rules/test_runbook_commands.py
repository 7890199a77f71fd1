"""How molecule/shared/runbooks.py picks the runbooks' commands, and what it takes for trouble."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.rules.rule_files import ROOT, RUNBOOKS


@pytest.fixture(scope="module")
def runbooks() -> ModuleType:
    """The module; its folder is no package, because `molecule` is also the name of a tool."""
    spec = importlib.util.spec_from_file_location("allin_runbooks", ROOT / "molecule/shared/runbooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["allin_runbooks"] = module
    spec.loader.exec_module(module)
    return module


def test_every_command_is_run_or_left_out_for_a_reason(runbooks: ModuleType) -> None:
    """Prevents: a reason that no longer fits anything, or one that fits all."""
    text = "\n".join(page.read_text() for page in RUNBOOKS.glob("*.md"))
    assert all(re.search(pattern, text) for pattern in runbooks.LEFT_OUT)
    found = runbooks.commands(RUNBOOKS)
    assert {page for page, _ in found} == {page.stem for page in RUNBOOKS.glob("*.md")}


def test_only_lines_of_the_first_look_are_commands(runbooks: ModuleType, tmp_path: Path) -> None:
    page = "# A\n\n## First look\nText.\n```sh\none | tail\ndocker ps\n```\n\n## Silence\n```sh\nnot this\n```\n"
    (tmp_path / "A.md").write_text(page)
    assert runbooks.commands(tmp_path) == [("A", "one | tail")]


@pytest.mark.parametrize(
    ("command", "status", "output", "errors", "trouble"),
    [
        ("journalctl -u x | grep -i error", 1, "", "", False),
        ("cat /etc/x; grep y z", 1, "", "", False),
        ("grep y z; cat /etc/x", 1, "", "cat: /etc/x: Permission denied", True),
        ("journalctl | grep -i error | tail", 0, "", "", False),
        ("nc -z host 1; journalctl | tail", 0, "", "bash: line 1: nc: command not found", True),
        ("systemctl status old.service; true", 0, "", "Unit old.service could not be found.", True),
        ("curl -s x", 0, '{"status":"error","errorType":"bad_data"}', "", True),
        ("curl -s x", 0, '{"status":"success","data":{"result":[{"metric":{"status":"error"}}]}}', "", False),
        ("curl -sS x", 7, "", "curl: (7) Failed to connect to 127.0.0.1 port 3000", True),
    ],
)
def test_trouble_is_told_from_an_answer(
    runbooks: ModuleType, command: str, status: int, output: str, errors: str, trouble: bool
) -> None:
    assert bool(runbooks.Ran("Page", command, status, output, errors).trouble) == trouble
