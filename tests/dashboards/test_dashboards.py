"""The dashboards as files: what Grafana gets is what the code says, and what people need is on every panel."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from dashboards import reading, targets
from dashboards.__main__ import main
from dashboards.board import JSON
from dashboards.boards import BOARDS
from dashboards.names import DATASOURCE, TAG, Folder, Uid
from tests.rules.rule_files import HERE as RULE_TESTS
from tests.rules.rule_files import RUNBOOKS

BUILT = reading.dashboards()
WIDTH = 24
#: Narrower has no room for its title at 1280 pixels, of which Grafana's menu takes a quarter.
NARROWEST = 6
#: What a dashboard has of those 1280, and what a panel needs for its edges.
PIXELS = 950
PADDING = 20
#: Columns of labels that few alerts have.
RARE = {"Platform", "Unit or container", "Device"}
#: The source document's rows and panels, by their titles, in its order.
DOCUMENTED = {
    "Request Metrics": ["Requests/sec", "Success Rate", "P95 Response Time", "Active Connections"],
    "System Health": ["CPU Usage", "Memory Usage", "Event Loop Lag", "Heap Usage"],
    "Application Metrics": ["Cache Hit Rate", "DB Query P99", "OAuth Success Rate"],
}
#: Line of the documented table of targets -> panel that draws it in.
PANELS_OF_TARGETS = {
    "P95 Response Time": "P95 Response Time",
    "Success Rate": "Success Rate",
    "Cache Hit Rate": "Cache Hit Rate",
    "CPU Usage": "CPU Usage",
    "Memory Usage": "Memory Usage",
    "Event Loop Lag": "Event Loop Lag",
}
FACTORS = {"ms": 1e-3, "%": 1e-2, "GB": 2.0**30}

everyone = pytest.mark.parametrize("dashboard", BUILT, ids=lambda one: one["uid"])


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels but the rows."""
    return [panel for panel in reading.panels(dashboard) if panel["type"] != "row"]


def _overview() -> dict[str, Any]:
    (found,) = [one for one in BUILT if one["uid"] == Uid.OVERVIEW]
    return found


def _links(dashboard: dict[str, Any]) -> list[str]:
    """Every address on a dashboard, those of table columns included."""
    found = [link["url"] for link in dashboard["links"] if link["type"] == "link"]
    for panel in _panels(dashboard):
        found += [link["url"] for link in panel.get("links", [])]
        for override in panel["fieldConfig"]["overrides"]:
            for one in override["properties"]:
                if one["id"] == "links":
                    found += [link["url"] for link in one["value"]]
    return found


# --- code and JSON ----------------------------------------------------------------------------------------------------


def test_the_json_is_what_the_code_builds() -> None:
    """A dashboard changed on one side only. Run: make dashboards."""
    files = {path: path.read_text() for path in JSON.glob("*/*.json")}
    assert files == {board.path: board.json() for board in BOARDS}


def test_building_writes_what_changed_and_removes_what_is_gone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of a dashboard that is no longer in the code would stay in Grafana."""
    monkeypatch.setattr("dashboards.board.JSON", tmp_path)
    monkeypatch.setattr("dashboards.__main__.JSON", tmp_path)
    gone = tmp_path / Folder.PLATFORM / "gone.json"
    gone.parent.mkdir()
    gone.write_text("{}")
    main()
    assert not gone.exists()
    assert {path.stem for path in tmp_path.glob("*/*.json")} == set(Uid)
    capsys.readouterr()
    main()
    assert capsys.readouterr().out == ""


def test_there_is_one_dashboard_for_each_uid() -> None:
    """Addresses and alerts refer to them."""
    assert sorted(one["uid"] for one in BUILT) == sorted(Uid)
    assert len({one["title"] for one in BUILT}) == len(BUILT)


# --- every dashboard --------------------------------------------------------------------------------------------------


@everyone
def test_panels_neither_overlap_nor_stick_out(dashboard: dict[str, Any]) -> None:
    """Grafana would push them apart, each time in another way."""
    taken: dict[tuple[int, int], str] = {}
    for panel in reading.panels(dashboard):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH, panel["title"]
        assert place["w"] >= NARROWEST, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@everyone
def test_lines_of_panels_are_full(dashboard: dict[str, Any]) -> None:
    """A hole in the wall looks like a panel that failed."""
    widths: dict[int, int] = {}
    for panel in reading.panels(dashboard):
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"]):
            widths[y] = widths.get(y, 0) + panel["gridPos"]["w"]
    assert set(widths.values()) == {WIDTH}


@everyone
def test_ids_and_titles_are_unique(dashboard: dict[str, Any]) -> None:
    """Links to a panel are by id, people name it by its title."""
    ids = [panel["id"] for panel in reading.panels(dashboard)]
    titles = [panel["title"] for panel in reading.panels(dashboard)]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


@everyone
def test_panels_say_what_people_need(dashboard: dict[str, Any]) -> None:
    """What it shows, in which unit, and what an empty panel means."""
    for panel in _panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"]) > 60, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert panel["targets"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), panel["title"]


@everyone
def test_a_number_that_is_missing_is_neither_good_nor_bad(dashboard: dict[str, Any]) -> None:
    """It would have the colour of the lowest value: red, where less is worse, because nobody had to be told."""
    for panel in _panels(dashboard):
        if panel["type"] == "stat":
            defaults = panel["fieldConfig"]["defaults"]
            (missing,) = [one["options"] for one in defaults["mappings"] if one["type"] == "special"]
            assert missing["match"] == "null+nan", panel["title"]
            assert missing["result"]["text"] == defaults["noValue"], panel["title"]
            assert missing["result"]["color"] == "text", panel["title"]
            # As large as a number, and in its place.
            assert len(defaults["noValue"]) <= 12 or "valueSize" not in panel["options"].get("text", {}), panel["title"]


@everyone
def test_the_columns_of_a_table_have_room(dashboard: dict[str, Any]) -> None:
    """On a screen of 1280 pixels: what is beyond the edge, nobody knows of."""
    for panel in _panels(dashboard):
        if panel["type"] != "table":
            continue
        needs = 0
        for override in panel["fieldConfig"]["overrides"]:
            properties = {one["id"]: one["value"] for one in override["properties"]}
            if override["matcher"]["options"] not in RARE and not properties.get("custom.hideFrom.viz"):
                needs += properties.get("custom.width") or properties["custom.minWidth"]
        assert needs <= PIXELS * panel["gridPos"]["w"] / WIDTH - PADDING, panel["title"]


@everyone
def test_lines_are_told_apart_and_shares_end_at_one(dashboard: dict[str, Any]) -> None:
    """An axis that follows the values makes a ripple look like an outage."""
    for panel in _panels(dashboard):
        if panel["type"] != "timeseries":
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert defaults["custom"]["spanNulls"] == 60_000, panel["title"]
        assert panel["options"]["legend"]["showLegend"], panel["title"]
        if defaults["custom"].get("thresholdsStyle", {}).get("mode", "off") != "off":
            assert len(defaults["thresholds"]["steps"]) > 1, panel["title"]


@everyone
def test_everything_asks_the_one_data_source(dashboard: dict[str, Any]) -> None:
    """A data source by name, or by the id of somebody's Grafana, is not found elsewhere."""
    source = {"type": "prometheus", "uid": DATASOURCE}
    for panel in _panels(dashboard):
        assert panel["datasource"] == source, panel["title"]
        assert all(target["datasource"] == source for target in panel["targets"]), panel["title"]
    for variable in dashboard["templating"]["list"]:
        assert variable["type"] != "query" or variable["datasource"] == source, variable["name"]
    assert all(one["datasource"] == source for one in dashboard["annotations"]["list"])


@everyone
def test_dashboards_keep_themselves_up_to_date(dashboard: dict[str, Any]) -> None:
    """On a wall nobody presses a button; and a provisioned dashboard cannot be saved, so it need not offer to."""
    assert re.fullmatch(r"30s|1m", dashboard["refresh"])
    assert dashboard["editable"] is False
    assert dashboard["graphTooltip"] == 1
    assert TAG in dashboard["tags"]
    assert "id" not in dashboard
    assert dashboard["description"].endswith((".", "?"))


@everyone
def test_links_lead_to_what_exists(dashboard: dict[str, Any]) -> None:
    """A link that leads nowhere is found at the worst moment."""
    runbooks = {page.stem for page in RUNBOOKS.glob("*.md")}
    names = {one["name"] for one in dashboard["templating"]["list"]}
    for url in _links(dashboard):
        if found := re.match(r"/d/([\w-]+)", url):
            assert found[1] in set(Uid), url
            (target,) = [one for one in BUILT if one["uid"] == found[1]]
            chosen = set(re.findall(r"[?&]var-(\w+)=", url))
            assert chosen <= {one["name"] for one in target["templating"]["list"]}, url
        elif found := re.fullmatch(r"\$\{runbooks:raw\}/(\w+)\.md", url):
            assert found[1] in runbooks, url
        else:
            assert url in ("${prometheus:raw}/alerts", "${__data.fields.Runbook}.md"), url
        used = set(re.findall(r"\$\{(\w+)", url))
        assert used <= names | {"__data", "__value", "__url_time_range", "__all_variables"}, url


@everyone
def test_the_header_leads_to_the_others(dashboard: dict[str, Any]) -> None:
    """From every dashboard to every other, with the time range and what was chosen."""
    (others,) = [link for link in dashboard["links"] if link["type"] == "dashboards"]
    assert others["tags"] == [TAG]
    assert others["includeVars"]
    assert others["keepTime"]


def test_every_alert_is_behind_a_panel() -> None:
    """Who reads of an alert looks for its panel; the panel leads back to the runbook."""
    linked = {found for board in BUILT for url in _links(board) for found in re.findall(r"/(\w+)\.md$", url)}
    # What is said of a label without an end, or of two Alertmanagers that differ, needs no graph.
    elsewhere = {"AlertmanagerConfigInconsistent", "SloBucketMissing"}
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - linked == elsewhere


# --- what was documented ----------------------------------------------------------------------------------------------


def test_the_overview_begins_with_the_documented_rows_and_panels() -> None:
    """People know them by these titles."""
    rows: dict[str, list[str]] = {}
    for panel in reading.panels(_overview()):
        if panel["type"] == "row":
            rows[panel["title"]] = []
        else:
            rows[list(rows)[-1]].append(panel["title"])
    assert dict(list(rows.items())[: len(DOCUMENTED)]) == DOCUMENTED
    assert _overview()["title"] == "AllIN Platform Overview"


def test_the_targets_are_drawn_in() -> None:
    """The documented table of targets: the target and the alert are lines in the panel of that name."""
    table = {line["metric"]: line for line in yaml.safe_load((RULE_TESTS / "targets.yml").read_text())}
    panels = {panel["title"]: panel for panel in _panels(_overview())}
    for metric, title in PANELS_OF_TARGETS.items():
        wanted = set()
        for text in (table[metric]["target"], table[metric]["threshold"]):
            number, unit = re.fullmatch(r"[<>]([\d.]+)(\D+)", text).groups()  # type: ignore[union-attr]
            wanted.add(round(float(number) * FACTORS[unit], 9))
        defaults = panels[title]["fieldConfig"]["defaults"]
        drawn = {round(step["value"], 9) for step in defaults["thresholds"]["steps"] if step["value"] is not None}
        assert drawn == wanted, title
        assert defaults["custom"]["thresholdsStyle"]["mode"] != "off", title


def test_the_targets_without_a_panel_of_their_own_are_right() -> None:
    """P50 and P99 share the panel of P95; their numbers stand in its description."""
    (panel,) = [one for one in _panels(_overview()) if one["title"] == "P95 Response Time"]
    assert (targets.P50.target, targets.P99.target) == (0.05, 1.0)
    assert "P50 50 ms, P99 1 s" in panel["description"]
    assert [target["legendFormat"] for target in panel["targets"]] == ["P50", "P95", "P99"]
