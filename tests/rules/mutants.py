"""Mutation check of the rules: break each one in every small way and see whether a case in cases/ notices.

Run ``python tests/rules/mutants.py`` (some minutes); ``--rule HighErrorRate`` takes only rules with that in their name.
Ends with status 1 if a mutant survives that ACCEPTED does not list, or if one is listed that is killed or gone.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.rules.promql import metrics
from tests.rules.rule_files import HERE, Rule, RuleFiles, case_names, render, run_promtool, write_cases

RELEASE = "3.5"

#: (rule, mutation) -> why no test can or should kill it.
_ZERO = "zero times anything is zero"
_NOISE = (
    "round() only takes off float noise; the sums of this alert's cases happen to be exact. It is written once, "
    "as a macro, and the case of exactly 500 queries (SlowDatabaseQueries) fails without it."
)
ACCEPTED: dict[tuple[str, str], str] = {
    ("job_cache_type:allin_cache_hits:rate5m", "sum by becomes max by at 67"): _ZERO,
    ("job_cache_type:allin_cache_misses:rate5m", "sum by becomes max by at 69"): _ZERO,
    ("BackendInstanceDown warning", "1 x1.9 at 66"): "a number of instances above 1 is also above 1.9",
    ("HighErrorRate critical", "round( becomes ( at 64"): _NOISE,
    ("SlowResponseTime warning", "round( becomes ( at 74"): _NOISE,
    ("SlowResponseTime warning", "round( becomes ( at 202"): _NOISE,
    ("SlowResponseTime critical", "round( becomes ( at 74"): _NOISE,
    ("SlowResponseTime critical", "round( becomes ( at 202"): _NOISE,
    ("LowCacheHitRate info", "round( becomes ( at 76"): _NOISE,
    ("SlowDatabaseQueries warning", "round( becomes ( at 296"): _NOISE,
}

_FLIPPED = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
_SHIFTED = {">": ">=", ">=": ">", "<": "<=", "<=": "<"}
_EXCHANGED = {
    "max by": "min by",
    "count by": "sum by",
    "sum by": "max by",
    "round(": "(",
    "last_over_time(": "max_over_time(",
}
_COMPARISON = re.compile(r"(?<= )(>=|<=|==|!=|>|<)(?= )")
_LOGICAL = re.compile(r"(?<![\w:])(and|or|unless)(?![\w:])(\s+on \([^)]*\))?")
_NUMBER = re.compile(r"(?<=[(\s])(\d+(?:\.\d+)?)(?=[\s,)]|$)")


@dataclass(frozen=True)
class Mutant:
    """One broken rule.

    Attributes:
        rule: name of the record or alert, with the severity for alerts.
        what: the mutation, unique within the rule.
        position: group and place in the group.
        replacement: the rule as broken; None if it was deleted.
    """

    rule: str
    what: str
    position: tuple[int, int]
    replacement: Rule | None


def _operand_end(text: str, start: int) -> int:
    """Return where the operand from start on ends: at the next logical operator of its level or the level's end."""
    depth = 0
    index = start
    while index < len(text):
        if depth == 0 and _LOGICAL.match(text, index) and not text[index - 1].isalnum():
            return index
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth < 0:
            return index
        index += 1
    return index


def _operand_start(text: str, end: int) -> int:
    """Return where the operand up to end begins: after the logical operator before it or at the level's start."""
    starts = [0]
    index = 0
    while index < end:
        if text[index] == "(":
            starts.append(index + 1)
        elif text[index] == ")":
            starts.pop()
        elif (found := _LOGICAL.match(text, index)) and not text[index - 1].isalnum():
            starts[-1] = found.end()
            index = found.end() - 1
        index += 1
    return starts[-1]


def _masked(expression: str) -> str:
    """The expression with strings and selectors blanked, positions kept, so that operators in them are not touched."""
    blank = re.compile(r'"(?:\\.|[^"\\])*"')
    return blank.sub(lambda found: '"' + "_" * (len(found.group()) - 2) + '"', expression)


def _expressions(expression: str) -> Iterator[tuple[str, str]]:
    """Yield (what, broken expression)."""
    masked = _masked(expression)

    def cut(start: int, end: int, text: str = "") -> str:
        return expression[:start] + text + expression[end:]

    for found in _COMPARISON.finditer(masked):
        at = f"{found.group()} at {found.start()}"
        yield f"flip {at}", cut(*found.span(), _FLIPPED[found.group()])
        if found.group() in _SHIFTED:
            yield f"boundary {at}", cut(*found.span(), _SHIFTED[found.group()])
        number = _NUMBER.match(masked, found.end() + 1)
        if number and float(number.group()) == 0 and found.group() == ">":
            yield f"drop {at}", cut(found.start(), number.end())
    for found in _NUMBER.finditer(masked):
        value = float(found.group())
        if value == 0:
            if masked[found.end() :].startswith(" *"):
                yield f"0 becomes 1 at {found.start()}", cut(*found.span(), "1")
        elif masked[: found.start()].endswith("histogram_quantile("):
            yield f"quantile {found.group()} lower", cut(*found.span(), f"{value * 0.9:.4g}")
            yield f"quantile {found.group()} higher", cut(*found.span(), f"{(1 + value) / 2:.6g}")
        else:
            yield f"{found.group()} x1.9 at {found.start()}", cut(*found.span(), f"{value * 1.9:.10g}")
            yield f"{found.group()} x0.45 at {found.start()}", cut(*found.span(), f"{value * 0.45:.10g}")
    for found in _LOGICAL.finditer(masked):
        at = f"{found.group()} at {found.start()}"
        yield f"drop right of {at}", cut(found.start(), _operand_end(masked, found.end()))
        yield f"drop left of {at}", cut(_operand_start(masked, found.start()), found.end())
    for found in re.finditer(r"\{([^}]*)\}", expression):
        yield f"drop {found.group()} at {found.start()}", cut(*found.span())
        for alternative in re.finditer(r'(?<=")[^"|]+(?=\|)|(?<=\|)[^"|]+(?=["|])', found.group(1)):
            start = found.start(1) + alternative.start()
            what = f"alternative {alternative.group()} at {start}"
            yield what, cut(start, start + len(alternative.group()), "no-such-value")
    for found in re.finditer(r"\b(?:by|on) \(([^)]*)\)", masked):
        labels = found.group(1).split(", ")
        for label in labels:
            rest = ", ".join(other for other in labels if other != label)
            yield f"{found.group()} at {found.start()} without {label}", cut(*found.span(1), rest)
    for found in re.finditer(r"\[(\d+)m\]", masked):
        yield f"window {found.group()} x3 at {found.start()}", cut(*found.span(1), str(int(found.group(1)) * 3))
        yield f"window {found.group()} shorter at {found.start()}", cut(*found.span(), "[45s]")
    for old, new in _EXCHANGED.items():
        for found in re.finditer(rf"\b{re.escape(old)}", masked):
            yield f"{old} becomes {new} at {found.start()}", cut(*found.span(), new)


def _seconds(duration: str) -> int:
    """15s, 2m or 1h as seconds."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def _mutant(name: str, position: tuple[int, int], rule: Rule, what: str, **changes: object) -> Mutant:
    """The rule with some of its fields changed."""
    return Mutant(name, what, position, {**rule, **changes})


def mutants(rules: RuleFiles) -> Iterator[Mutant]:
    """Yield every mutant of every rule."""
    for group_index, group in enumerate(rules.groups()):
        for rule_index, rule in enumerate(group["rules"]):
            name = rule["record"] if "record" in rule else f"{rule['alert']} {rule['labels']['severity']}"
            mutant = partial(_mutant, name, (group_index, rule_index), rule)
            yield Mutant(name, "deleted", (group_index, rule_index), None)
            seen = {rule["expr"]}
            for what, expression in _expressions(rule["expr"]):
                if expression not in seen:
                    seen.add(expression)
                    yield mutant(what, expr=expression)
            if "alert" in rule:
                wait = _seconds(rule["for"])
                yield mutant("for 0", **{"for": "0s"})
                yield mutant("for a step shorter", **{"for": f"{wait - 15}s"})
                yield mutant("for a step longer", **{"for": f"{wait + 15}s"})
                other = "info" if rule["labels"]["severity"] != "info" else "warning"
                yield mutant("other severity", labels={**rule["labels"], "severity": other})
                yield mutant("other component", labels={**rule["labels"], "component": "other"})
                for key, text in rule["annotations"].items():
                    yield mutant(f"other {key}", annotations={**rule["annotations"], key: f"{text}!"})


def _cases_of(rules: RuleFiles) -> dict[tuple[int, int], set[str]]:
    """Which case files can notice a change of a rule: those that ask for an alert or a record made from it."""
    asked: dict[str, set[str]] = {}
    for name in case_names():
        for group in yaml.safe_load((HERE / "cases" / name).read_text())["tests"]:
            for test in group.get("alert_rule_test", []):
                asked.setdefault(test["alertname"], set()).add(name)
            for test in group.get("promql_expr_test", []):
                for metric in metrics(test["expr"]):
                    asked.setdefault(metric, set()).add(name)
    result: dict[tuple[int, int], set[str]] = {}
    users: dict[str, set[str]] = {}
    for group_index, group in reversed(list(enumerate(rules.groups()))):
        for rule_index, rule in reversed(list(enumerate(group["rules"]))):
            name = rule.get("record") or rule["alert"]
            files = asked.get(name, set()) | users.get(name, set())
            result[group_index, rule_index] = files
            for metric in metrics(rule["expr"]):
                users.setdefault(metric, set()).update(files)
    return result


def survives(mutant: Mutant, rules: RuleFiles, prepared: Path, cases: set[str]) -> bool:
    """Whether all cases pass although the rule is broken. A rule that no longer parses counts as killed."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for case in cases:
            shutil.copy(prepared / case, directory)
        groups = rules.groups()
        group = groups[mutant.position[0]]
        if mutant.replacement is None:
            del group["rules"][mutant.position[1]]
        else:
            group["rules"][mutant.position[1]] = mutant.replacement
        (directory / "mutant.rules.yml").write_text(json.dumps({"groups": groups}))
        run = run_promtool(RELEASE, "test", "rules", *sorted(directory / case for case in cases))
        return run.returncode == 0


def main() -> int:
    """Run the check and print a report."""
    parser = argparse.ArgumentParser(description="Break each rule in every small way; report what no test notices.")
    parser.add_argument("--rule", default="", help="only rules whose name contains this")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rules = render(Path(temporary) / "rendered")
        prepared = Path(temporary) / "cases"
        write_cases(prepared, rules, rule_files=["mutant.rules.yml"])
        cases_of = _cases_of(rules)
        chosen = [mutant for mutant in mutants(rules) if arguments.rule in mutant.rule]

        def judge(mutant: Mutant) -> bool:
            return survives(mutant, rules, prepared, cases_of[mutant.position])

        verdicts = []
        with ThreadPoolExecutor(max_workers=2) as pool:
            for verdict in pool.map(judge, chosen):
                verdicts.append(verdict)
                print(f"\r{len(verdicts)} of {len(chosen)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    survivors = {(mutant.rule, mutant.what) for mutant, survived in zip(chosen, verdicts, strict=True) if survived}
    expected = {key for key in ACCEPTED if arguments.rule in key[0]}
    for mutant in chosen:
        if (mutant.rule, mutant.what) in survivors - expected:
            broken = mutant.replacement["expr"] if mutant.replacement else ""
            print(f"SURVIVED {mutant.rule}: {mutant.what}\n    {' '.join(broken.split())}")
    for rule, what in sorted(expected - survivors):
        print(f"NO LONGER SURVIVES, strike it from ACCEPTED: {rule}: {what}")
    accepted = len(survivors & expected)
    killed = len(chosen) - len(survivors)
    print(f"{len(chosen)} mutants: {killed} killed, {accepted} accepted, {len(survivors) - accepted} survived")
    return 0 if survivors == expected else 1


if __name__ == "__main__":
    sys.exit(main())
