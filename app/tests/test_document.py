"""docs/metrics.md says what the contract says, and its queries work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec

from allin_backend.metrics.contract import BY_NAME, CONTRACT
from allin_backend.metrics.document import QUERIES, render
from support import SOURCE

DOCUMENT = SOURCE.parents[1] / "docs" / "metrics.md"
EXPRESSIONS = [query.expression for queries in QUERIES.values() for query in queries]


def test_document_is_up_to_date() -> None:
    # By the command itself and without site-packages: `make metrics-doc` runs it with any Python.
    command = [sys.executable, "-S", "-m", "allin_backend.metrics.document"]
    printed = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True)

    assert printed.stdout == render()
    assert DOCUMENT.read_text() == printed.stdout, "the contract has changed: run make metrics-doc"


def test_every_metric_has_its_section() -> None:
    headings = re.findall(r"^### `(.+)`$", render(), re.MULTILINE)

    assert headings == [metric.name for metric in CONTRACT]


def test_links_lead_to_headings() -> None:
    text = render()
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_queries_name_only_metrics_labels_and_values_of_the_contract() -> None:
    stored = {name: metric for metric in CONTRACT for name in metric.sample_names}
    assert QUERIES.keys() <= BY_NAME.keys()
    for expression in EXPRESSIONS:
        named = re.findall(r"allin_\w+", expression)
        assert named
        labels = {label for name in named for label in stored[name].label_names} | {"le", "job", "instance"}
        for grouping in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
            assert set(grouping.split(", ")) <= labels, expression
        for name, selector in re.findall(r"(allin_\w+)\{([^}]*)\}", expression):
            closed = {label.name: label.values or () for label in stored[name].labels}
            closed["le"] = tuple(str(float(bound)) for bound in stored[name].buckets)
            for label, operator, text in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
                pattern = text if "~" in operator else re.escape(text)
                assert any(re.fullmatch(pattern, value) for value in closed[label]), expression


def test_promtool_accepts_the_queries(promtool: Path, tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(EXPRESSIONS)]
    file = tmp_path / "queries.rules.yml"
    file.write_bytes(msgspec.json.encode({"groups": [{"name": "queries", "rules": rules}]}))  # JSON is YAML, too

    result = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(EXPRESSIONS)} rules found" in result.stdout
