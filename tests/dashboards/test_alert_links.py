"""From an alert to its dashboard, opened at what the alert is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dashboards import reading
from tests.dashboards.catalog import Catalog
from tests.dashboards.conftest import GRAFANA
from tests.rules.rule_files import SUITES, RuleFiles, run_promtool, write_cases

BOARDS = {board["uid"]: board for board in reading.dashboards()}
#: Alerts without a label that their dashboard could be opened at.
ABOUT_EVERYTHING = {"Watchdog", "AlertmanagerConfigInconsistent", "InventoryTargetMissing"}


def test_every_alert_leads_to_a_dashboard_that_exists(rules: RuleFiles) -> None:
    """And fills in variables that the dashboard has; Grafana ignores others without a word."""
    for rule in rules.alerts():
        url = rule["annotations"]["dashboard_url"]
        found = re.match(rf"{re.escape(GRAFANA)}/d/([\w-]+)(\{{|$)", url)
        assert found, url
        variables = {one["name"] for one in BOARDS[found[1]]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", url)) <= variables, url


def test_dashboards_are_opened_at_what_the_alert_is_about(rules: RuleFiles, catalog: Catalog) -> None:
    """The first variable of an address must be a label that the alert has, or all of them are left out."""
    for rule in rules.alerts():
        first = re.search(r"\{\{ with \$labels\.(\w+) \}\}", rule["annotations"]["dashboard_url"])
        assert first, rule["alert"]
        has = catalog.labels(rule["expr"]) | set(rule["labels"])
        assert first[1] in has or rule["alert"] in ABOUT_EVERYTHING, rule["alert"]


def test_a_panel_marks_the_alerts_that_lead_to_its_dashboard(rules: RuleFiles) -> None:
    """The annotations ask for components; one that was forgotten would never be marked."""
    for rule in rules.alerts():
        uid = rule["annotations"]["dashboard_url"].removeprefix(f"{GRAFANA}/d/").split("{")[0]
        (expression,) = [one["expr"] for one in BOARDS[uid]["annotations"]["list"] if one["name"] == "Alerts"]
        if found := re.search(r'component=~?"([^"]+)"', expression):
            assert re.fullmatch(found[1], rule["labels"]["component"]), f"{rule['alert']} is not marked in {uid}"


@pytest.mark.parametrize("release", SUITES)
def test_the_address_is_made_of_the_alerts_labels(release: str, rules: RuleFiles, tmp_path: Path) -> None:
    """As Prometheus expands it: labels that are not there are left out, and odd characters do no harm."""
    alerts = [
        ("instance", 'sum by (job, instance) (up{host="a"})', "allin-overview?var-job=api+dev&var-instance=h%3A1"),
        ("job", "sum by (job) (up)", "allin-overview?var-job=api+dev"),
        ("none", "sum(up)", "allin-overview"),
    ]
    (template,) = {rule["annotations"]["dashboard_url"] for rule in rules.alerts() if rule["alert"] == "HighErrorRate"}
    own = tmp_path / "own.rules.yml"
    made = [{"alert": name, "expr": expr, "annotations": {"url": template}} for name, expr, _ in alerts]
    own.write_text(yaml.safe_dump({"groups": [{"name": "own", "rules": made}]}))
    labels = {"instance": {"job": "api dev", "instance": "h:1"}, "job": {"job": "api dev"}, "none": {}}
    case = {
        "tests": [
            {
                "name": "addresses",
                "interval": "15s",
                "input_series": [{"series": 'up{job="api dev", instance="h:1", host="a"}', "values": "1x8"}],
                "alert_rule_test": [
                    {
                        "alertname": name,
                        "eval_time": "1m",
                        "exp_alerts": [
                            {"exp_labels": labels[name], "exp_annotations": {"url": f"{GRAFANA}/d/{address}"}}
                        ],
                    }
                    for name, _, address in alerts
                ],
            }
        ]
    }
    source = tmp_path / "source"
    source.mkdir()
    (source / "links.yml").write_text(yaml.safe_dump(case))
    write_cases(tmp_path / "cases", RuleFiles(tmp_path / "nothing", (own,)), source=source)
    run = run_promtool(release, "test", "rules", tmp_path / "cases" / "links.yml")
    assert run.returncode == 0, run.stdout + run.stderr
