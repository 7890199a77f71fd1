"""Mutation check of the rules: break each one in every small way and see whether a case in cases/ notices.

Run ``python tests/rules/mutants.py`` (half an hour); ``--rule HighErrorRate`` takes only rules whose name fits that
regular expression. What may survive stands in ``mutants.accepted`` beside the cases, YAML: the rule's name, below it
each mutation with the reason why no case can or should notice it. Ends with status 1 if another mutant survives, or if
one is listed that is killed or gone.

``--rules FILE... --cases DIRECTORY`` breaks rules of your own instead: files as prometheus_rule_files names them, and
promtool test files. They may use the records of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.rules.mutations import Mutant, mutants, seconds
from tests.rules.rule_files import (
    HERE,
    SUITES,
    RuleFiles,
    case_names,
    needed_names,
    only,
    render,
    rule_name,
    run_promtool,
    write_cases,
)

#: In mutants.accepted, instead of a rule's name: mutations of any rule, by how they begin.
ANY_RULE = "*"

Groups = list[dict[str, Any]]


class UnfitCasesError(Exception):
    """The cases cannot tell a broken rule from the rule as it is."""


@dataclass(frozen=True)
class Case:
    """One group of tests of a promtool test file.

    Attributes:
        file: a file with this group alone, ready to run with ``<name>.rules`` beside it as its only rule file.
        title: the file that it is from, and the group's name.
        needed: names of the records and alerts that it asks for, and of all records that these are made of.
    """

    file: Path
    title: str
    needed: frozenset[str]

    def passes(self, groups: Groups, release: str) -> bool:
        """Whether promtool of a release finds what the case expects of these rules."""
        with tempfile.TemporaryDirectory() as temporary:
            shutil.copy(self.file, temporary)
            (Path(temporary) / f"{self.file.name}.rules").write_text(json.dumps(only(groups, self.needed)))
            return run_promtool(release, "test", "rules", Path(temporary) / self.file.name).returncode == 0


def _read_cases(source: Path, destination: Path, rules: RuleFiles) -> tuple[list[Case], dict[str, int]]:
    """Read the test files and take them apart.

    Returns:
        the cases, and for each alert the seconds between two evaluations in its cases, the smallest.
    """
    write_cases(destination, rules, source=source)
    cases: list[Case] = []
    steps: dict[str, int] = {}
    for name in case_names(destination):
        content = yaml.safe_load((destination / name).read_text())
        step = seconds(content.get("evaluation_interval", "1m"))
        for index, group in enumerate(content["tests"]):
            for test in group.get("alert_rule_test", []):
                alert = test["alertname"]
                steps[alert] = min(step, steps.get(alert, step))
            file = destination / "single" / f"{Path(name).stem}.{index}.yml"
            file.parent.mkdir(exist_ok=True)
            alone = {**content, "rule_files": [f"{file.name}.rules"], "tests": [group]}
            file.write_text(yaml.safe_dump(alone, sort_keys=False, width=1000))
            cases.append(Case(file, f"{name}, {group.get('name', index)!r}", frozenset(needed_names([group], rules))))
    return cases, steps


class Judge:
    """Runs the cases on broken rules.

    Args:
        groups: the rules as they are.
        cases: the cases.
        releases: of promtool. A survivor of the first must get past the others, too.
    """

    def __init__(self, groups: Groups, cases: Iterable[Case], releases: Sequence[str]) -> None:
        self._groups = groups
        self._cases = list(cases)
        self._releases = releases
        self._cost: dict[Case, float] = {}
        self._kills: Counter[tuple[str, Case]] = Counter()

    def _asking(self, name: str) -> list[Case]:
        """The cases that need a record or alert; those that killed most of its mutants first, then the quickest."""
        asking = (case for case in self._cases if name in case.needed)
        return sorted(asking, key=lambda case: (-self._kills[name, case], self._cost[case]))

    def measure(self, case: Case) -> None:
        """Run a case with the rules as they are.

        Raises:
            UnfitCasesError: it fails; every mutant would count as killed.
        """
        started = time.monotonic()
        self._require(case, self._releases[0])
        self._cost[case] = time.monotonic() - started

    def _require(self, case: Case, release: str) -> None:
        if not case.passes(self._groups, release):
            raise UnfitCasesError(f"{case.title} fails with promtool {release} although no rule is broken")

    def survives(self, mutant: Mutant) -> bool:
        """Whether all cases pass, with all releases, although the rule is broken."""
        group_index, rule_index = mutant.position
        group = self._groups[group_index]
        rules = list(group["rules"])
        name = rule_name(rules[rule_index])
        rules[rule_index : rule_index + 1] = [] if mutant.replacement is None else [mutant.replacement]
        broken = [*self._groups]
        broken[group_index] = {**group, "rules": rules}
        for release in self._releases:
            for case in self._asking(name):
                if not case.passes(broken, release):
                    if release != self._releases[0]:
                        self._require(case, release)
                    self._kills[name, case] += 1
                    return False
        return True


def _refused(chosen: Sequence[Mutant], release: str) -> set[int]:
    """Which of the mutants are no PromQL: nothing is learned from a case that fails with them."""
    groups = [
        {"name": str(index), "rules": [mutant.replacement]}
        for index, mutant in enumerate(chosen)
        if mutant.replacement is not None
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": groups}, file)
        file.flush()
        said = run_promtool(release, "check", "rules", file.name)
    return {int(number) for number in re.findall(r'group "(\d+)", rule', said.stdout + said.stderr)}


def _accepted(file: Path) -> dict[tuple[str, str], str]:
    """(rule, mutation) -> why it may survive."""
    if not file.exists():
        return {}
    listed = yaml.safe_load(file.read_text()) or {}
    return {(rule, what): reason for rule, reasons in listed.items() for what, reason in reasons.items()}


def _excuse(mutant: Mutant, accepted: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The entry that lets the mutant survive."""
    for rule, what in accepted:
        if (rule, what) == (mutant.rule, mutant.what) or (rule == ANY_RULE and mutant.what.startswith(what)):
            return rule, what
    return None


def _try(chosen: Sequence[Mutant], judge: Callable[[Mutant], bool], pool: Executor) -> Iterator[Mutant]:
    """Yield what survives, as soon as it is known."""
    for index, (mutant, survived) in enumerate(zip(chosen, pool.map(judge, chosen), strict=True), start=1):
        if index % 100 == 0 or index == len(chosen):
            print(f"{index} of {len(chosen)}", file=sys.stderr, flush=True)
        if survived:
            yield mutant


def _break_all(options: argparse.Namespace, directory: Path) -> bool:
    """Prepare the rules and cases in a directory, break the rules, report."""
    source = (options.cases or HERE / "cases").resolve()
    # The newest shows nearly all. Ours must pass with each release, so a survivor must get past the others too.
    releases = list(SUITES)[::-1] if not options.rules else list(SUITES)[-1:]
    rules = render(directory / "rendered")
    ours = 0
    if options.rules:
        ours = len(rules.groups())
        rules = replace(rules, more=tuple(path.resolve() for path in options.rules))
    cases, steps = _read_cases(source, directory / "cases", rules)
    groups = rules.groups()
    made = mutants(groups, steps)
    chosen = [mutant for mutant in made if options.rule.search(mutant.rule) and mutant.position[0] >= ours]
    refused = _refused(chosen, releases[0])
    for index in sorted(refused):
        print(f"NO PROMQL, not counted: {chosen[index].rule}: {chosen[index].what}")
    chosen = [mutant for index, mutant in enumerate(chosen) if index not in refused]
    judge = Judge(groups, cases, releases)
    broken = {rule_name(groups[group]["rules"][rule]) for group, rule in {mutant.position for mutant in chosen}}
    entries = {
        (rule, what)
        for rule, what in _accepted(source / "mutants.accepted")
        if options.rule.search(rule) or rule == ANY_RULE
    }
    # An entry for any rule can be judged only where all rules are broken.
    stale = {entry for entry in entries if not options.rule.pattern or entry[0] != ANY_RULE}
    accepted = survived = 0
    with ThreadPoolExecutor(max_workers=options.workers) as pool:
        list(pool.map(judge.measure, [case for case in cases if case.needed & broken]))
        for mutant in _try(chosen, judge.survives, pool):
            excuse = _excuse(mutant, entries)
            if excuse:
                accepted += 1
                stale.discard(excuse)
                continue
            survived += 1
            expression = mutant.replacement["expr"] if mutant.replacement else ""
            print(f"SURVIVED {mutant.rule}: {mutant.what}\n    {' '.join(expression.split())}", flush=True)
    for rule, what in sorted(stale):
        print(f"NO LONGER SURVIVES, strike it from what is accepted: {rule}: {what}")
    killed = len(chosen) - accepted - survived
    print(f"{len(chosen)} mutants: {killed} killed, {accepted} accepted, {survived} survived")
    return bool(chosen) and not survived and not stale


def main(arguments: list[str] | None = None) -> int:
    """Run the check and print a report."""
    parser = argparse.ArgumentParser(description="Break each rule in every small way; report what no test notices.")
    parser.add_argument(
        "--rule", type=re.compile, default="", help="only rules whose name fits this regular expression"
    )
    parser.add_argument("--rules", nargs="+", type=Path, default=[], help="rule files of your own, instead of ours")
    parser.add_argument("--cases", type=Path, help="directory of the promtool test files for --rules")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="how many run at once")
    options = parser.parse_args(arguments)
    if bool(options.rules) != bool(options.cases):
        parser.error("--rules and --cases belong together")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return 0 if _break_all(options, Path(temporary)) else 1
        except UnfitCasesError as unfit:
            print(unfit)
            return 1


if __name__ == "__main__":
    sys.exit(main())
