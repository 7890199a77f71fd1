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


def exported() -> dict[str, set[str]]:
    """The variables that login shells have, and the roles whose hosts have them."""
    found: dict[str, set[str]] = {}
    for profile in ROOT.glob("roles/*/tasks/profile.yml"):
        for name in re.findall(r"^ +export (\w+)=", profile.read_text(), re.MULTILINE):
            found.setdefault(name, set()).add(profile.parts[-3])
    return found


def blocks(page: Path) -> str:
    """The commands of a page, without awk's programs, which have variables of their own."""
    found = "".join(re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
    return re.sub(r"\bawk '[^']*'", "awk", found)


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_s_addresses_and_jobs_are_those_of_the_reader_s_hosts(page: Path) -> None:
    """Prevents: a healthy service that refuses the connection, and a query that finds nothing and means nothing."""
    text = page.read_text()
    assert not re.findall(r"127\.0\.0\.1|localhost|\[::1\]", text)
    assert not re.findall(r"backend-api-\w+", text)
    # A variable that is not there ends the command, which says so; an empty one would make another command of it.
    own = set(re.findall(r"(?:^|[;(] *|for )(\w+)(?:=| in )", blocks(page), re.MULTILINE))
    bare = re.sub(r"\$\{[A-Z_]+:\?\}|\$\{BACKEND##\*:\}", "", blocks(page))
    assert set(re.findall(r"\$\{?([A-Za-z_]\w*)", bare)) <= own
    assert "curl -s " not in text, "curl keeps quiet about a connection that is refused"
    assert "curl -sG" not in text, "curl keeps quiet about a connection that is refused"


def test_every_variable_of_a_page_is_exported_and_documented() -> None:
    """Prevents: a command that works for nobody, and a reader who does not know what a variable stands for."""
    used = set(re.findall(r"\$\{?([A-Z_]+)", "".join(blocks(page) for page in RUNBOOKS.glob("*.md"))))
    assert used == exported().keys()
    rows = re.findall(r"^ *\| `\$([A-Z_]+)` \| ([^|]+?) \|", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    documented = {name: set(re.split(" and |, ", hosts.lower().removeprefix("the "))) for name, hosts in rows}
    assert documented == exported()


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_says_what_is_for_the_backend_s_host(page: Path) -> None:
    """Prevents: the journal of a host that has no backend, where nothing is found, which reads as no errors."""
    first = page.read_text().split("## First look\n")[1].splitlines()[0]
    commands = blocks(page)
    for pattern, name in (
        (r"'allin-backend|bin/allin-backend", "`allin-backend`"),
        (r"\$\{BACKEND[:#]", "`$BACKEND`"),
        (r"\$\{BACKEND_METRICS:", "`$BACKEND_METRICS`"),
    ):
        assert bool(re.search(pattern, commands)) == (name in first)
    assert "`" not in first or first.endswith(", on a host of the backend.")


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
        ("curl -sS ${BACKEND:?} | grep y", 1, "", "bash: line 1: BACKEND: parameter null or not set", True),
        ("curl -sS x", 7, "", "curl: (7) Failed to connect to 127.0.0.1 port 3000", True),
    ],
)
def test_trouble_is_told_from_an_answer(
    runbooks: ModuleType, command: str, status: int, output: str, errors: str, trouble: bool
) -> None:
    assert bool(runbooks.Ran("Page", command, status, output, errors).trouble) == trouble
