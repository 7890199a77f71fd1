"""Every query of every panel, variable and annotation: it is PromQL, and asks only for what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import reading
from tests.dashboards.catalog import TARGET_LABELS, Catalog, blind, told, values_for_parsing
from tests.dashboards.parser import Node, Parser, children, labels, selectors
from tests.rules.rule_files import SUITES, run_promtool

BOARDS = reading.dashboards()


def _filled(dashboard: dict[str, Any]) -> list[tuple[reading.Query, str]]:
    values = values_for_parsing(dashboard)
    found = [(query, reading.fill(query.expression, values)) for query in reading.queries(dashboard)]
    for variable in reading.variables(dashboard):
        query = reading.Query(variable.dashboard, f"${variable.name}", "variable", variable.selector)
        found.append((query, reading.fill(variable.selector, values)))
    return found


everyone = pytest.mark.parametrize("dashboard", BOARDS, ids=lambda one: one["uid"])


@pytest.mark.parametrize("release", SUITES)
def test_every_supported_prometheus_can_read_the_queries(release: str, tmp_path: Path) -> None:
    """A function that a release does not know is an error in the panel there."""
    rules = [
        {"record": "a:query", "expr": filled, "labels": {"query": str(query)}}
        for board in BOARDS
        for query, filled in _filled(board)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}, width=1000))
    run = run_promtool(release, "check", "rules", "--lint=none", file)
    assert run.returncode == 0, run.stdout + run.stderr


def test_nothing_is_blind(catalog: Catalog) -> None:
    """A metric that was renamed or removed: the message lists the alerts and panels that see nothing any more."""
    found = blind(catalog.uses(), catalog.names)
    assert not found, f"\n{told(found)}"


def test_a_renamed_metric_lists_who_goes_blind(catalog: Catalog) -> None:
    """The list above would be worth little if it left out who asks through a record."""
    found = blind(catalog.uses(), catalog.names - {"allin_http_requests_total"})
    (names,) = found.values()
    assert {
        "alert HighErrorRate (critical)",
        "alert AvailabilityBudgetBurn (warning)",
        "record job:allin_slo_availability_budget_remaining:ratio30d",
        "panel allin-overview: Success Rate (A)",
        "panel allin-overview: Availability budget left (A)",
    } <= set(names)
    assert "panel allin-overview: CPU Usage (A)" not in names
    assert told(found).startswith("allin_http_requests_total does not exist")


def _complaints(filled: str, parse: Parser, catalog: Catalog) -> list[str]:
    """What is wrong with the names in an expression."""
    found = []
    if "$" in re.sub(r'"[^"]*"', "", filled):
        found.append("a variable that the dashboard has not")
    tree = parse(filled)
    try:
        labels(tree, catalog.of_metric)
    except AssertionError as error:
        found.append(str(error))
    for name, matchers in selectors(tree):
        if name in catalog.names:
            found += [complaint for matcher in matchers if (complaint := catalog.complaint(name, matcher))]
    return found


@everyone
def test_queries_name_only_labels_and_values_that_exist(
    dashboard: dict[str, Any], parse: Parser, catalog: Catalog
) -> None:
    """A misspelt label or value selects nothing, without an error, and the panel looks as if all were well."""
    found = [f"{query}: {one}" for query, filled in _filled(dashboard) for one in _complaints(filled, parse, catalog)]
    assert not found, "\n".join(found)


@everyone
def test_legends_name_labels_that_the_result_has(dashboard: dict[str, Any], catalog: Catalog) -> None:
    """A legend that names another one shows the braces, or nothing."""
    for query, filled in _filled(dashboard):
        named = set(re.findall(r"{{\s*(\w+)\s*}}", query.legend))
        assert named <= catalog.labels(filled), str(query)


#: Of a target as a whole, so told by the target's host or instance: job is the metric's, team the host's.
WHOSE = {"host", "instance"}
#: Query -> labels that its legend leaves out, with the reason.
LEFT_OUT = {
    # Only a file system that cannot be read has it, and that has no space to show.
    "allin-hosts: Space left (A)": {"device_error"},
}
#: Labels of what every host has of its own, so that the same value is there on several.
OF_A_HOST = {"name", "service", "device", "mountpoint", "image", "id"}


def _fixed(tree: Node) -> set[str]:
    """The labels that every selector fixes to one value; of a variable whose choice is one, too."""
    return set.intersection(
        *({one.label for one in matchers if one.operator == "="} for _, matchers in selectors(tree)),
    )


@everyone
def test_legends_tell_lines_apart(dashboard: dict[str, Any], parse: Parser, catalog: Catalog) -> None:
    """Prevents: two lines of one name, as of the same container on two hosts."""
    values = values_for_parsing(dashboard)
    for panel in reading.panels(dashboard):
        if panel["type"] == "table":
            continue  # it shows every label that it has a column for
        for target in panel.get("targets", []):
            filled = reading.fill(target["expr"], values)
            shown = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
            has = catalog.labels(filled)
            if shown & WHOSE:
                has -= TARGET_LABELS
            where = f"{dashboard['uid']}: {panel['title']} ({target['refId']})"
            missing = has - shown - _fixed(parse(filled)) - LEFT_OUT.get(where, set())
            assert not missing, f"{where}: several lines may be called {target['legendFormat']}; {missing} is not told"


def _aggregations(node: Node) -> Iterator[Node]:
    if node["type"] == "aggregation":
        yield node
    for child in children(node):
        yield from _aggregations(child)


@everyone
def test_what_is_of_a_host_is_not_summed_over_hosts(dashboard: dict[str, Any], parse: Parser) -> None:
    """Prevents: the containers of one name on all hosts as one line."""
    for query, filled in _filled(dashboard):
        for node in _aggregations(parse(filled)):
            by = set(node["grouping"])
            if not node["without"] and by & OF_A_HOST:
                assert by & WHOSE, f"{query}: {node['op']} by {sorted(by)} makes one of several hosts' {by & OF_A_HOST}"


@everyone
def test_columns_are_of_labels_or_queries(dashboard: dict[str, Any], catalog: Catalog) -> None:
    """A column of something else is not there."""
    values = values_for_parsing(dashboard)
    for panel in reading.panels(dashboard):
        if panel["type"] != "table":
            continue
        known = {"Time", *(f"Value #{target['refId']}" for target in panel["targets"])}
        if len(panel["targets"]) == 1:
            known.add("Value")
        for target in panel["targets"]:
            known |= catalog.labels(reading.fill(target["expr"], values))
        (kept,) = [one["options"] for one in panel["transformations"] if one["id"] == "filterFieldsByName"]
        assert set(kept["include"]["names"]) <= known, panel["title"]


@pytest.mark.parametrize(
    "wrong",
    [
        'allin_http_requests_total{status="500"}',
        'allin_http_requests_total{status_code=~"6.."}',
        'allin_http_request_duration_seconds_bucket{le="0.4"}',
        'ALERTS{severity="page"}',
        'ALERTS{component=~"http|htpp"}',
        "$instance",
    ],
)
def test_misspelt_labels_and_values_are_seen(wrong: str, parse: Parser, catalog: Catalog) -> None:
    """The check above would be worth nothing if it let these through."""
    if wrong.startswith("$"):
        wrong = "up * $wrong"
        with pytest.raises(ValueError, match="unexpected"):
            parse(wrong)
    else:
        assert _complaints(wrong, parse, catalog)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("sum by (platform) (allin_http_requests_total)", "platform"),
        ("allin_active_connections / on (job, kind) allin_db_pool_connections_limit", "kind"),
        ("histogram_quantile(0.9, sum by (job) (rate(allin_publish_delay_seconds_bucket[5m])))", "without le"),
        ("job:allin_http_requests:rate5m * on (instance) group_left () up", "instance"),
    ],
)
def test_labels_that_are_not_there_are_seen(wrong: str, why: str, parse: Parser, catalog: Catalog) -> None:
    """The check above would be worth nothing if it let these through."""
    with pytest.raises(AssertionError, match=why):
        labels(parse(wrong), catalog.of_metric)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum by (job) (rate(allin_http_requests_total[5m]))", {"job"}),
        ("sum without (route, host) (allin_http_requests_total)", {"job", "instance", "team", "method", "status_code"}),
        ("1 - job_platform:allin_social_api_faults:ratio_rate10m", {"job", "platform"}),
        ('label_replace(vector(1), "a", "b", "", "")', {"a"}),
        ("up and on (job) allin_build_info", {"job", "instance", "host", "team"}),
        ("time()", set()),
    ],
)
def test_labels_of_a_result_are_known(expression: str, expected: set[str], catalog: Catalog) -> None:
    """What the checks above compare with."""
    assert catalog.labels(expression) == expected


def test_what_is_no_promql_is_refused(parse: Parser) -> None:
    """The parser must be a real one."""
    with pytest.raises(ValueError, match="unexpected"):
        parse("sum by (job (up)")
