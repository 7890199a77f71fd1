"""As much of PromQL as the checks need: which metrics and labels an expression names, and which jobs it selects.

No parser: strings are set aside first, then names are told apart from functions, keywords and labels by what stands
around them. promtool has judged the syntax before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Metrics that Prometheus itself makes for each target.
OWN_METRICS = frozenset(
    {"up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling"}
)

_STRING = re.compile(r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_SELECTOR = re.compile(r"\{[^}]*\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()(?![\w:])")
# Aggregations are here because "sum by (job) (...)" does not look like a call.
_KEYWORDS = frozenset(
    {"and", "or", "unless", "bool", "offset", "sum", "max", "min", "avg", "count", "group", "inf", "nan"}
)
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
# A brace inside a quoted value does not end the selector.
_SELECTED = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[^}"]|"(?:\\.|[^"\\])*")*)\}')
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*("(?:\\.|[^"\\])*")')
_JOB = re.compile(r'[{,]\s*job\s*(=~|!~|!=|=)\s*("(?:\\.|[^"\\])*")')


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics and recording rules that an expression selects."""
    bare = _STRING.sub('""', expression)
    for pattern in (_SELECTOR, _RANGE, _GROUPING):
        bare = pattern.sub(" ", bare)
    return {name for name in _NAME.findall(bare) if name not in _KEYWORDS}


def job_matchers(expression: str) -> list[tuple[str, str]]:
    """Return the matchers on the label ``job`` as (operator, quoted value)."""
    return _JOB.findall(expression)


@dataclass(frozen=True)
class Matcher:
    """One condition of a selector, such as ``status_code=~"5.."``."""

    label: str
    operator: str
    value: str

    def selects_any_of(self, values: Iterable[str]) -> bool:
        """Whether the value, or the regular expression, fits one of these label values."""
        pattern = self.value if "~" in self.operator else re.escape(self.value)
        return any(re.fullmatch(pattern, value) for value in values)

    def alternatives(self) -> list[Matcher]:
        """A matcher for each side of the regular expression's top-level ``|``; each must fit something."""
        sides = self.value.split("|") if "~" in self.operator and "(" not in self.value else [self.value]
        return [Matcher(self.label, self.operator, side) for side in sides]


def selectors(expression: str) -> Iterator[tuple[str, list[Matcher]]]:
    """Yield each metric that an expression selects with the matchers in braces behind it."""
    for name, braces in _SELECTED.findall(expression):
        yield name, [Matcher(label, operator, json.loads(text)) for label, operator, text in _MATCHER.findall(braces)]


def grouping_labels(expression: str) -> set[str]:
    """Return the labels by which an expression aggregates or joins."""
    bare = _SELECTOR.sub(" ", _STRING.sub('""', expression))
    return {label for labels in _GROUPED.findall(bare) for label in re.findall(r"\w+", labels)}
