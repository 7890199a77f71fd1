"""Renders the rule templates with ansible-playbook and runs promtool on the result.

Shared by the tests and by mutants.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.rules.promql import metrics, selectors

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROLE = ROOT / "roles" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"

#: What the cases in cases/ are written for; everything else has the role's own defaults.
SETTINGS: Mapping[str, Any] = {
    "prometheus_backend_job": "backend-api-dev",
    "prometheus_runbook_url_base": "https://runbooks.example.com",
    "prometheus_dashboard_url_base": "",
    "prometheus_inventory_targets": [
        {
            "job": "backend-api-dev",
            "targets": ["192.0.2.1:7001", "192.0.2.1:7002"],
            "target_labels": {"192.0.2.1:7001": {"host": "app1"}},
        },
        {"job": "node", "targets": ["192.0.2.1:9100"]},
    ],
    "prometheus_expected_containers": ["allin-backend", "allin-grafana"],
}

#: Release of Prometheus -> Debian suite whose promtool speaks it.
SUITES: Mapping[str, str] = {"2.42": "bookworm", "2.53": "trixie", "3.5": "sid"}

Rule = dict[str, Any]


def rule_name(rule: Rule) -> str:
    """The name of the record or alert."""
    return str(rule.get("record") or rule["alert"])


@dataclass(frozen=True)
class RuleFiles:
    """Rendered rule files.

    Attributes:
        directory: where the ``*.rules.yml`` are.
        more: further rule files, whose rules may use those of the directory.
    """

    directory: Path
    more: tuple[Path, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of their names; then the further ones."""
        return [*sorted(self.directory.glob("*.rules.yml")), *self.more]

    def groups(self) -> list[dict[str, Any]]:
        """All rule groups, in the order in which records come before their users. Not to be changed: they are kept."""
        return _groups(tuple(self.paths))

    def rules(self) -> Iterator[Rule]:
        """All rules of all groups."""
        for group in self.groups():
            yield from group["rules"]

    def alerts(self) -> list[Rule]:
        """The alerting rules."""
        return [rule for rule in self.rules() if "alert" in rule]


@cache
def _groups(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Read rule files, which takes seconds, once."""
    return [group for path in paths for group in yaml.safe_load(path.read_text())["groups"]]


def promtool(release: str) -> Path:
    """Return the path of promtool of a Prometheus release, e.g. ``2.42``.

    Raises:
        FileNotFoundError: it has not been fetched.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "allin-artifacts" / "debian" / SUITES[release] / "usr" / "bin" / "promtool"
    if not path.exists():
        raise FileNotFoundError(f"promtool {release} is not at {path}. Run: tools/debian_packages.py --test-tools")
    return path


def render(destination: Path, **settings: Any) -> RuleFiles:
    """Render the role's rule templates into a directory.

    Args:
        destination: directory to make.
        settings: role variables that differ from the defaults and from SETTINGS.

    Raises:
        RuntimeError: ansible-playbook failed; its output is the message.
    """
    destination.mkdir(parents=True)
    variables = {**SETTINGS, **settings, "rules_role": str(ROLE), "rules_destination": str(destination)}
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--inventory=localhost,",
            f"--extra-vars={json.dumps(variables)}",
            str(HERE / "render.yml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"The rule templates could not be rendered:\n{run.stdout}\n{run.stderr}")
    return RuleFiles(destination)


def case_names(directory: Path = HERE / "cases") -> list[str]:
    """Names of the promtool test files in a directory."""
    return sorted(path.name for path in directory.glob("*.yml"))


def needed_names(tests: Iterable[Mapping[str, Any]], rules: RuleFiles) -> set[str]:
    """Names of the records and alerts that a test file's groups ask for, and of all records that these are made of."""
    made_of: dict[str, set[str]] = {}
    for rule in rules.rules():
        made_of.setdefault(rule_name(rule), set()).update(metrics(rule["expr"]))
    unseen: list[str] = []
    for group in tests:
        unseen.extend(test["alertname"] for test in group.get("alert_rule_test", []))
        for test in group.get("promql_expr_test", []):
            unseen.extend(metrics(test["expr"]))
            for _, matchers in selectors(test["expr"]):
                unseen.extend(matcher.value for matcher in matchers if matcher.label == "alertname")
    needed: set[str] = set()
    while unseen:
        found = unseen.pop()
        if found in made_of and found not in needed:
            needed.add(found)
            unseen.extend(made_of[found])
    return needed


def only(groups: Iterable[Mapping[str, Any]], names: Collection[str]) -> dict[str, Any]:
    """Return a rule file of the rules of these names: to evaluate all rules for each case would take hours."""
    few = [
        {**group, "rules": rules}
        for group in groups
        if (rules := [rule for rule in group["rules"] if rule_name(rule) in names])
    ]
    return {"groups": few}


def write_cases(destination: Path, rules: RuleFiles, source: Path = HERE / "cases") -> None:
    """Write the cases to a directory, with the rules that each needs and the order of the groups filled in.

    Args:
        destination: directory to write to.
        rules: the rules that the cases are about.
        source: directory of the cases.

    promtool evaluates groups in random order unless it is told one; an alert would then see a record of one step ago,
    or not, by turns. Filled in here, no case can forget it.
    """
    destination.mkdir(parents=True, exist_ok=True)
    order = [group["name"] for group in rules.groups()]
    for name in case_names(source):
        case = yaml.safe_load((source / name).read_text())
        needed = only(rules.groups(), needed_names(case["tests"], rules))
        (destination / f"{name}.rules").write_text(json.dumps(needed))
        case["rule_files"] = [f"{name}.rules"]
        case["group_eval_order"] = order
        (destination / name).write_text(yaml.safe_dump(case, sort_keys=False, width=1000))


def run_promtool(release: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool of a release; the caller judges the exit status."""
    return subprocess.run(
        [str(promtool(release)), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
