"""As much of PromQL as the checks need: which metrics an expression names, and which jobs it selects.

No parser: strings are set aside first, then names are told apart from functions, keywords and labels by what stands
around them. promtool has judged the syntax before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Metrics that Prometheus itself makes for each target.
OWN_METRICS = frozenset({"up", "scrape_duration_seconds", "scrape_samples_scraped"})

_STRING = re.compile(r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_SELECTOR = re.compile(r"\{[^}]*\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()(?![\w:])")
# Aggregations are here because "sum by (job) (...)" does not look like a call.
_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset", "sum", "max", "min", "avg", "count", "inf", "nan"})
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
class Metric:
    """One metric of the backend's contract."""

    name: str
    kind: str
    labels: frozenset[str]

    def series_names(self) -> Iterator[str]:
        """Names under which Prometheus stores the metric."""
        if self.kind == "histogram":
            yield from (f"{self.name}{suffix}" for suffix in ("_bucket", "_count", "_sum"))
        else:
            yield self.name


def read_contract(path: Path) -> list[Metric]:
    """Read metrics.txt: name, type and labels on each line."""
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [Metric(line[0], line[1], frozenset(line[2].split(",") if len(line) > 2 else ())) for line in lines]
