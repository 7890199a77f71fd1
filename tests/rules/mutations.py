"""Every small way to break a rule: what mutants.py tries.

Comparisons, thresholds, windows, matchers, aggregations and their labels, logical and arithmetic operators of an
expression; the wait, labels and annotations of an alert; and the whole rule. No parser: strings are blanked, then
operators are found by how rules are written, with blanks around them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.rules.rule_files import Rule, rule_name

_FLIPPED = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
_SHIFTED = {">": ">=", ">=": ">", "<": "<=", "<=": "<"}
_INVERTED = {"+": "-", "-": "+", "*": "/", "/": "*"}
_UNMATCHED = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
_EXCHANGED = {
    "max": "min",
    "min": "max",
    "count": "sum",
    "sum": "max",
    "avg": "max",
    "last_over_time": "max_over_time",
    "max_over_time": "min_over_time",
    "min_over_time": "max_over_time",
    "round": "",
}
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_COMPARISON = re.compile(r"(?<= )(>=|<=|==|!=|>|<)(?= )")
_ARITHMETIC = re.compile(r"(?<= )[-+*/](?= )")
_LOGICAL = re.compile(r"(?<![\w:])(and|or|unless)(?![\w:])(\s+on \([^)]*\))?")
_NUMBER = re.compile(r"(?<=[(\s])(\d+(?:\.\d+)?)(?=[\s,)]|$)")
_SELECTOR = re.compile(r"\{([^}]*)\}")
_MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<operator>=~|!~|!=|=)\s*"(?P<value>[^"]*)"(?:, *)?')
_ALTERNATIVE = re.compile(r"[^|]+(?=\|)|(?<=\|)[^|]+")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring) \(([^)]*)\)")
_WINDOW = re.compile(r"(?:(?<=\[)|(?<=offset ))\d+(?:ms|[smhdw])(?=[\]:\s)]|$)")
_CALLED = re.compile(rf"\b({'|'.join(_EXCHANGED)})(?=\(| by \(| without \(| \()")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"')


@dataclass(frozen=True)
class Mutant:
    """One broken rule.

    Attributes:
        rule: name of the record or alert, and what tells it from others of its name.
        what: the mutation, unique within the rule.
        position: group and place in the group.
        replacement: the rule as broken; None if it was deleted.
    """

    rule: str
    what: str
    position: tuple[int, int]
    replacement: Rule | None


def seconds(duration: str) -> int:
    """15s, 2m or 1h30m as seconds."""
    return round(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration)))


def _operand_end(text: str, start: int) -> int:
    """Return where the operand from start on ends: at its level's next logical operator, comma or end."""
    depth = 0
    index = start
    while index < len(text):
        if depth == 0 and (text[index] == "," or (_LOGICAL.match(text, index) and not text[index - 1].isalnum())):
            return index
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth < 0:
            return index
        index += 1
    return index


def _operand_start(text: str, end: int) -> int:
    """Return where the operand up to end begins: after its level's last logical operator or comma, or its start."""
    starts = [0]
    index = 0
    while index < end:
        if text[index] == "(":
            starts.append(index + 1)
        elif text[index] == ")":
            starts.pop()
        elif text[index] == ",":
            starts[-1] = index + 1
        elif (found := _LOGICAL.match(text, index)) and not text[index - 1].isalnum():
            starts[-1] = found.end()
            index = found.end() - 1
        index += 1
    return starts[-1]


def _masked(expression: str) -> str:
    """The expression with its strings blanked, positions kept, so that operators in them are not touched."""
    return _STRING.sub(lambda found: '"' + "_" * (len(found.group()) - 2) + '"', expression)


def _cut(expression: str, start: int, end: int, text: str = "") -> str:
    return expression[:start] + text + expression[end:]


def _operators(expression: str, masked: str) -> Iterator[tuple[str, str]]:
    """Comparisons, arithmetic, and what stands beside and, or, unless."""
    for found in _COMPARISON.finditer(masked):
        at = f"{found.group()} at {found.start()}"
        yield f"flip {at}", _cut(expression, *found.span(), _FLIPPED[found.group()])
        if found.group() in _SHIFTED:
            yield f"boundary {at}", _cut(expression, *found.span(), _SHIFTED[found.group()])
        number = _NUMBER.match(masked, found.end() + 1)
        if number and float(number.group()) == 0 and found.group() == ">":
            yield f"drop {at}", _cut(expression, found.start(), number.end())
    for found in _ARITHMETIC.finditer(masked):
        # Zero times or by anything is zero.
        if not re.search(r"(?<![\d.])0 $", masked[: found.start()]):
            inverted = _INVERTED[found.group()]
            yield f"{found.group()} becomes {inverted} at {found.start()}", _cut(expression, *found.span(), inverted)
    for found in _LOGICAL.finditer(masked):
        at = f"{found.group()} at {found.start()}"
        yield f"drop right of {at}", _cut(expression, found.start(), _operand_end(masked, found.end()))
        yield f"drop left of {at}", _cut(expression, _operand_start(masked, found.start()), found.end())


def _numbers(expression: str, masked: str) -> Iterator[tuple[str, str]]:
    """Thresholds, factors, quantiles and windows."""
    for found in _NUMBER.finditer(masked):
        value = float(found.group())
        if value == 0:
            if masked[found.end() :].startswith(" *"):
                yield f"0 becomes 1 at {found.start()}", _cut(expression, *found.span(), "1")
        elif masked[: found.start()].endswith("histogram_quantile("):
            yield f"quantile {found.group()} lower", _cut(expression, *found.span(), f"{value * 0.9:.4g}")
            yield f"quantile {found.group()} higher", _cut(expression, *found.span(), f"{(1 + value) / 2:.6g}")
        else:
            # A number of things above 1 is above 1.9, too.
            for factor in (2 if value == 1 else 1.9, 0.45):
                changed = f"{value * factor:.10g}"
                yield f"{found.group()} x{factor} at {found.start()}", _cut(expression, *found.span(), changed)
    for found in _WINDOW.finditer(masked):
        span = seconds(found.group())
        at = f"{found.group()} at {found.start()}"
        yield f"window three times {at}", _cut(expression, *found.span(), f"{span * 3}s")
        yield f"window a third of {at}", _cut(expression, *found.span(), f"{span // 3 or 1}s")


def _labels(expression: str, masked: str) -> Iterator[tuple[str, str]]:
    """Matchers, one by one, and the labels by which the expression aggregates and joins."""
    for braces in _SELECTOR.finditer(expression):
        for found in _MATCHER.finditer(expression, *braces.span(1)):
            matcher = f'{found["label"]}{found["operator"]}"{found["value"]}" at {found.start()}'
            yield f"drop {matcher}", _cut(expression, *found.span())
            yield f"flip {matcher}", _cut(expression, *found.span("operator"), _UNMATCHED[found["operator"]])
            for alternative in _ALTERNATIVE.finditer(found["value"]) if "~" in found["operator"] else ():
                start = found.start("value") + alternative.start()
                what = f"alternative {alternative.group()} at {start}"
                yield what, _cut(expression, start, start + len(alternative.group()), "no-such-value")
    for found in _LABELS.finditer(masked):
        labels = found.group(1).split(", ")
        for label in filter(None, labels):
            rest = ", ".join(other for other in labels if other != label)
            what = f"{found.group()} at {found.start()} without {label}"
            yield what, _cut(expression, *found.span(1), rest)


def _expressions(expression: str) -> Iterator[tuple[str, str]]:
    """Yield (what, broken expression)."""
    masked = _masked(expression)
    yield from _operators(expression, masked)
    yield from _numbers(expression, masked)
    yield from _labels(expression, masked)
    for found in _CALLED.finditer(masked):
        exchanged = _EXCHANGED[found.group()]
        yield (
            f"{found.group()} becomes {exchanged or '()'} at {found.start()}",
            _cut(expression, *found.span(), exchanged),
        )


def _fields(rule: Rule, step: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (what, changed fields) of an alert. ``step``: seconds between two evaluations in its cases."""
    wait = seconds(rule.get("for", "0s"))
    if wait:
        yield "for 0", {"for": "0s"}
    if wait > step:
        yield "for a step shorter", {"for": f"{wait - step}s"}
    yield "for a step longer", {"for": f"{wait + step}s"}
    labels = rule.get("labels", {})
    other = "info" if labels.get("severity") != "info" else "warning"
    yield "other severity", {"labels": {**labels, "severity": other}}
    for key in labels.keys() - {"severity"}:
        yield f"other {key}", {"labels": {**labels, key: "other"}}
    for key, text in rule.get("annotations", {}).items():
        yield f"other {key}", {"annotations": {**rule["annotations"], key: f"{text}!"}}


def _identities(groups: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], str]:
    """A name for each rule in reports, for each its own: an excuse for one must not be one for another as well."""
    identities: dict[tuple[int, int], str] = {}
    times: Counter[str] = Counter()
    for group_index, group in enumerate(groups):
        for rule_index, rule in enumerate(group["rules"]):
            labels = rule.get("labels", {}) if "alert" in rule else {}
            told = (labels[key] for key in ("severity", "slo", "long_window") if key in labels)
            identity = " ".join([rule_name(rule), *told])
            times[identity] += 1
            again = f" #{times[identity]}" if times[identity] > 1 else ""
            identities[group_index, rule_index] = identity + again
    return identities


def mutants(groups: Sequence[Mapping[str, Any]], steps: Mapping[str, int]) -> Iterator[Mutant]:
    """Yield every mutant of every rule.

    Args:
        groups: the rule groups.
        steps: name of an alert -> seconds between two evaluations in its cases; 15 where it has none.
    """
    for position, identity in _identities(groups).items():
        rule = groups[position[0]]["rules"][position[1]]
        yield Mutant(identity, "deleted", position, None)
        seen = {rule["expr"]}
        for what, expression in _expressions(rule["expr"]):
            if expression not in seen:
                seen.add(expression)
                yield Mutant(identity, what, position, {**rule, "expr": expression})
        if "alert" in rule:
            for what, fields in _fields(rule, steps.get(rule["alert"], 15)):
                yield Mutant(identity, what, position, {**rule, **fields})
