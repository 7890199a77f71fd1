"""Mutation check of the rules: break each one in every small way and see whether a case in cases/ notices.

Run ``python tests/rules/mutants.py`` (some minutes); ``--rule HighErrorRate`` takes only rules with that in their name.
Ends with status 1 if a mutant survives that ACCEPTED does not list, or if one is listed that is killed or gone.

``--rules FILE... --cases DIRECTORY`` breaks rules of your own instead: files as prometheus_rule_files names them, and
promtool test files. They may use the records of ours. What may survive stands in ``DIRECTORY/mutants.accepted``, YAML:
the rule's name, below it each mutation with the reason.
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.rules.promql import metrics
from tests.rules.rule_files import HERE, Rule, RuleFiles, case_names, render, run_promtool, write_cases

RELEASE = "3.5"

#: Mutations that may survive anywhere, by how they begin.
ACCEPTED_EVERYWHERE: dict[str, str] = {
    "round( becomes (": (
        "round() only takes off float noise; the sums of most cases happen to be exact. It is written once, as a "
        "macro, and the case of exactly 500 queries (SlowDatabaseQueries) fails without it."
    ),
}
#: (rule, mutation) -> why no test can or should kill it.
_ZERO = "zero times anything is zero"
_SLOPE = "a slope that gives exactly 24 hours is not exact in binary, and differs between releases"
_SHARE = "a share of rates that is exactly the limit comes out a hair above or below, by release"
_ALWAYS = "any value makes an alert fire, and this one shows none"
_HOSTLESS = "each of the other two keeps targets without a host out as well"
ACCEPTED: dict[tuple[str, str], str] = {
    ("job_cache_type:allin_cache_hits:rate5m", "sum by becomes max by at 67"): _ZERO,
    ("job_cache_type:allin_cache_misses:rate5m", "sum by becomes max by at 69"): _ZERO,
    (
        "job_platform:allin_social_api_faults:rate5m",
        "sum by becomes max by at 0",
    ): "it is asked only whether it is above zero",
    ("SloBucketMissing warning", "count by becomes sum by at 0"): "only which jobs there are matters, not the value",
    ("OAuthFailures warning", "boundary > at 67"): "a ratio of exactly 0.1 comes out a hair below it",
    ("HighCpuUsage warning", "boundary > at 65"): "a rate of exactly 0.85 comes out a hair above or below, by release",
    ("BackendInstanceDown warning", "1 x1.9 at 66"): "a number of instances above 1 is also above 1.9",
    ("HostDown critical", "1 x1.9 at 130"): "a number of jobs above 1 is also above 1.9",
    ("HostDown critical", 'drop {host!=""} at 19'): _HOSTLESS,
    ("HostDown critical", 'drop {host!=""} at 58'): _HOSTLESS,
    ("HostDown critical", 'drop {host!=""} at 115'): _HOSTLESS,
    (
        "HostDown critical",
        "count by becomes sum by at 91",
    ): "only how many jobs there are is counted, not what each says",
    ("HostDiskFillingUp warning", "boundary < at 126"): _SLOPE,
    (
        "HostCpuSaturated warning",
        "boundary > at 40",
    ): "a rate of exactly 0.9 comes out a hair above or below, by release",
    ("AlertmanagerNotificationsFailing critical", "boundary > at 173"): _SHARE,
    ("GrafanaErrors warning", "boundary > at 204"): _SHARE,
    ("Watchdog none", "1 x1.9 at 7"): _ALWAYS,
    ("Watchdog none", "1 x0.45 at 7"): _ALWAYS,
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
    for found in re.finditer(r"\[(\d+)[mhd]\]", masked):
        yield f"window {found.group()} x3 at {found.start()}", cut(*found.span(1), str(int(found.group(1)) * 3))
        yield f"window {found.group()} shorter at {found.start()}", cut(*found.span(), "[45s]")
    for old, new in _EXCHANGED.items():
        for found in re.finditer(rf"\b{re.escape(old)}", masked):
            yield f"{old} becomes {new} at {found.start()}", cut(*found.span(), new)


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _seconds(duration: str) -> int:
    """15s, 2m or 1h30m as seconds."""
    return round(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration)))


def _mutant(name: str, position: tuple[int, int], rule: Rule, what: str, **changes: object) -> Mutant:
    """The rule with some of its fields changed."""
    return Mutant(name, what, position, {**rule, **changes})


def _identity(rule: Rule) -> str:
    """The rule's name in reports: alerts of one name differ by severity, and by long_window where they have one."""
    if "record" in rule:
        return str(rule["record"])
    labels = rule.get("labels", {})
    return " ".join([rule["alert"], *(labels[key] for key in ("severity", "slo", "long_window") if key in labels)])


def mutants(rules: RuleFiles, steps: dict[str, int]) -> Iterator[Mutant]:
    """Yield every mutant of every rule. ``steps``: seconds between two evaluations in the cases of an alert."""
    for group_index, group in enumerate(rules.groups()):
        for rule_index, rule in enumerate(group["rules"]):
            name = _identity(rule)
            mutant = partial(_mutant, name, (group_index, rule_index), rule)
            yield Mutant(name, "deleted", (group_index, rule_index), None)
            seen = {rule["expr"]}
            for what, expression in _expressions(rule["expr"]):
                if expression not in seen:
                    seen.add(expression)
                    yield mutant(what, expr=expression)
            if "alert" not in rule:
                continue
            wait = _seconds(rule.get("for", "0s"))
            step = steps.get(rule["alert"], 15)
            if wait:
                yield mutant("for 0", **{"for": "0s"})
            if wait > step:
                yield mutant("for a step shorter", **{"for": f"{wait - step}s"})
            yield mutant("for a step longer", **{"for": f"{wait + step}s"})
            labels = rule.get("labels", {})
            other = "info" if labels.get("severity") != "info" else "warning"
            yield mutant("other severity", labels={**labels, "severity": other})
            for key in labels.keys() - {"severity"}:
                yield mutant(f"other {key}", labels={**labels, key: "other"})
            for key, text in rule.get("annotations", {}).items():
                yield mutant(f"other {key}", annotations={**rule["annotations"], key: f"{text}!"})


@dataclass
class Cases:
    """The promtool test files, and which rules each of them needs.

    Attributes:
        directory: where they are, ready to run with ``<name>.rules`` as their only rule file.
        asked: name of a record or alert -> the files that ask for it.
        steps: name of an alert -> seconds between two evaluations in the files that ask for it, the smallest.
        needed: file -> names of the records and alerts that it asks for, and of all records that these are made of.
    """

    directory: Path
    asked: dict[str, set[str]]
    steps: dict[str, int]
    needed: dict[str, set[str]]


def _read_cases(directory: Path, rules: RuleFiles) -> Cases:
    """Look through the files, as write_cases wrote them."""
    cases = Cases(directory, {}, {}, {})
    made_of: dict[str, set[str]] = {}
    for rule in rules.rules():
        made_of.setdefault(_name(rule), set()).update(metrics(rule["expr"]))
    for name in case_names(directory):
        content = yaml.safe_load((directory / name).read_text())
        step = _seconds(content.get("evaluation_interval", "1m"))
        alerts: set[str] = set()
        records: set[str] = set()
        for group in content["tests"]:
            alerts |= {test["alertname"] for test in group.get("alert_rule_test", [])}
            records |= set[str]().union(*(metrics(test["expr"]) for test in group.get("promql_expr_test", [])))
        for alert in alerts:
            cases.steps[alert] = min(step, cases.steps.get(alert, step))
        needed = cases.needed[name] = set()
        unseen = [*alerts, *records]
        while unseen:
            found = unseen.pop()
            if found in made_of and found not in needed:
                needed.add(found)
                unseen.extend(made_of[found])
        for found in needed:
            cases.asked.setdefault(found, set()).add(name)
    return cases


def survives(mutant: Mutant, rules: RuleFiles, cases: Cases) -> bool:
    """Whether all cases pass although the rule is broken. A rule that no longer parses counts as killed."""
    groups = rules.groups()
    rule = groups[mutant.position[0]]["rules"][mutant.position[1]]
    replacement = [] if mutant.replacement is None else [mutant.replacement]
    groups[mutant.position[0]]["rules"][mutant.position[1] : mutant.position[1] + 1] = replacement
    for case in sorted(cases.asked.get(_name(rule), ())):
        with tempfile.TemporaryDirectory() as temporary:
            shutil.copy(cases.directory / case, temporary)
            # Only what the case needs: evaluating all rules for each mutant would take hours.
            few = [
                {**group, "rules": [rule for rule in group["rules"] if _name(rule) in cases.needed[case]]}
                for group in groups
            ]
            (Path(temporary) / f"{case}.rules").write_text(json.dumps({"groups": few}))
            if run_promtool(RELEASE, "test", "rules", Path(temporary) / case).returncode != 0:
                return False
    return True


def _name(rule: Rule) -> str:
    return str(rule.get("record") or rule["alert"])


def _accepted(file: Path) -> dict[tuple[str, str], str]:
    """What may survive of rules of one's own."""
    if not file.exists():
        return {}
    listed = yaml.safe_load(file.read_text()) or {}
    return {(rule, what): reason for rule, reasons in listed.items() for what, reason in reasons.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the check and print a report."""
    parser = argparse.ArgumentParser(description="Break each rule in every small way; report what no test notices.")
    parser.add_argument("--rule", default="", help="only rules whose name contains this")
    parser.add_argument("--rules", nargs="+", type=Path, default=[], help="rule files of your own, instead of ours")
    parser.add_argument("--cases", type=Path, help="directory of the promtool test files for --rules")
    parser.add_argument("--workers", type=int, default=2, help="how many run at once")
    options = parser.parse_args(arguments)
    if bool(options.rules) != bool(options.cases):
        parser.error("--rules and --cases belong together")
    source = (options.cases or HERE / "cases").resolve()
    accepted = _accepted(source / "mutants.accepted") if options.rules else ACCEPTED
    with tempfile.TemporaryDirectory() as temporary:
        rules = render(Path(temporary) / "rendered")
        ours = 0
        if options.rules:
            ours = len(rules.groups())
            rules = replace(rules, more=tuple(path.resolve() for path in options.rules))
        prepared = Path(temporary) / "cases"
        write_cases(prepared, rules, rule_file=lambda case: f"{case}.rules", source=source)
        cases = _read_cases(prepared, rules)
        chosen = [
            mutant
            for mutant in mutants(rules, cases.steps)
            if options.rule in mutant.rule and mutant.position[0] >= ours
        ]
        verdicts = []
        with ThreadPoolExecutor(max_workers=options.workers) as pool:
            for verdict in pool.map(partial(survives, rules=rules, cases=cases), chosen):
                verdicts.append(verdict)
                print(f"\r{len(verdicts)} of {len(chosen)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    survivors = {(mutant.rule, mutant.what) for mutant, survived in zip(chosen, verdicts, strict=True) if survived}
    expected = {key for key in accepted if options.rule in key[0]}
    expected |= {key for key in survivors if key[1].startswith(tuple(ACCEPTED_EVERYWHERE))}
    for mutant in chosen:
        if (mutant.rule, mutant.what) in survivors - expected:
            broken = mutant.replacement["expr"] if mutant.replacement else ""
            print(f"SURVIVED {mutant.rule}: {mutant.what}\n    {' '.join(broken.split())}")
    for rule, what in sorted(expected - survivors):
        print(f"NO LONGER SURVIVES, strike it from what is accepted: {rule}: {what}")
    killed = len(chosen) - len(survivors)
    listed = len(survivors & expected)
    print(f"{len(chosen)} mutants: {killed} killed, {listed} accepted, {len(survivors) - listed} survived")
    return 0 if chosen and survivors == expected else 1


if __name__ == "__main__":
    sys.exit(main())
