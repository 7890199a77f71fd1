"""docs/alerts.md and the rules, routes and settings that it is written from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles import rendering
from tests.roles.messages import BACKEND_DOWN, DISKS
from tests.rules.alerts_document import (
    DOCUMENT,
    EXAMPLES,
    SUBJECTS,
    Documented,
    generated,
    hidden_by,
    kept_labels,
    kept_section,
    steps,
)
from tests.rules.rule_files import HERE, RuleFiles, case_names, render


@pytest.fixture(scope="module")
def documented(rules: RuleFiles, tmp_path_factory: pytest.TempPathFactory) -> Documented:
    """The roles' defaults."""
    heartbeat = {"alertmanager_heartbeat_url": "https://heartbeat.example.com/allin"}
    folder = tmp_path_factory.mktemp("alertmanager")
    return Documented(rules, rendering.render(folder, **rendering.SLACK, **rendering.MAIL, **heartbeat))


def test_the_document_is_what_the_rules_say(documented: Documented) -> None:
    """Prevents: a table that promises another threshold than the one in force. The examples: test_messages.py."""
    text = DOCUMENT.read_text()
    assert generated(documented, kept_section(text)) == text.split(EXAMPLES)[0].rstrip("\n"), "run make alerts-doc"


def test_what_is_written_by_hand_is_kept(documented: Documented) -> None:
    first, *_, last = kept_section("").splitlines()
    measured = f"{first}\n| fault | median |\n{last}"
    assert kept_section(generated(documented, measured)) == measured


def test_every_alert_has_its_subject(rules: RuleFiles) -> None:
    """Prevents: alerts that the table leaves out, because their group is new."""
    groups = [group["name"] for group in rules.groups() if any("alert" in rule for rule in group["rules"])]
    assert sorted(groups) == sorted(name for names in SUBJECTS.values() for name in names)


def test_the_labels_that_are_kept_are_those_of_the_cases(rules: RuleFiles) -> None:
    """Prevents: "hidden by HostDown" of an alert that has no host. The cases say what Prometheus does."""
    records = Documented(rules, {}).records()
    known = {rule["alert"]: rule for rule in rules.alerts()}
    for name in case_names():
        for group in yaml.safe_load((HERE / "cases" / name).read_text())["tests"]:
            for test in group.get("alert_rule_test", []):
                rule = known[test["alertname"]]
                kept = kept_labels(rule["expr"], records)
                for alert in test.get("exp_alerts", []):
                    labels = alert["exp_labels"].keys() - rule["labels"].keys()
                    # label_replace and absent() make labels of their own.
                    labels -= {"metric", "problem"} if "label_replace" in rule["expr"] else set()
                    if kept is not None and "absent" not in rule["expr"]:
                        assert labels <= kept, f"{name}: {rule['alert']}"


@pytest.mark.parametrize("alert", [BACKEND_DOWN, *DISKS], ids=lambda alert: alert["annotations"]["summary"])
def test_the_examples_of_messages_are_what_the_rules_say(rules: RuleFiles, alert: dict[str, Any]) -> None:
    """Prevents: pictures of texts that no rule has any more."""
    labels = alert["labels"]
    (rule,) = (
        rule
        for rule in rules.alerts()
        if (rule["alert"], rule["labels"]["severity"]) == (labels["alertname"], labels["severity"])
    )
    for name in ("summary", "description"):
        parts = re.split(r"({{.*?}})", rule["annotations"][name])
        known = [re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found.group(1)], part) for part in parts]
        pattern = "".join(".+" if part.startswith("{{") else re.escape(part) for part in known)
        assert re.fullmatch(pattern, alert["annotations"][name])


@pytest.mark.parametrize(
    ("alert", "severity", "causes"),
    [
        ("BackendDown", "critical", []),
        ("HostDown", "critical", []),
        ("HighErrorRate", "critical", ["BackendDown or BackendAbsent (same job)"]),
        ("TargetDown", "warning", ["HostDown (same host)"]),
        (
            "HighMemoryUsage",
            "warning",
            [
                "its critical form",
                "HostDown (same host)",
                "BackendDown or BackendAbsent (same job)",
                "BackendInstanceDown (same instance)",
            ],
        ),
        ("ContainerAbsent", "warning", ["InventoryTargetMissing of `cadvisor`"]),
    ],
)
def test_what_hides_an_alert(documented: Documented, alert: str, severity: str, causes: list[str]) -> None:
    rules = [rule for rule in documented.rules.alerts() if rule["alert"] == alert]
    (rule,) = (rule for rule in rules if rule["labels"]["severity"] == severity)
    found = hidden_by(rule, documented)
    # A backend's alerts may be about the backend's own target too; TargetDown leaves it out.
    assert found == causes or (alert == "TargetDown" and found[:1] == causes)


def test_the_way_to_the_message_follows_the_settings(documented: Documented, tmp_path: Path) -> None:
    """Prevents: a table of times that stays when somebody changes a default."""
    way = steps(documented, "BackendDown", "critical")
    # The goal: a backend that is killed is a message within a minute.
    assert sum(step.longest for step in way) <= 60
    slower = render(tmp_path / "slower", prometheus_alert_thresholds={"backend_down": {"for": "40s"}})
    changed = steps(dataclasses.replace(documented, rules=slower), "BackendDown", "critical")
    # Looked at every 15 s, 40 s are 45 s.
    assert sum(step.longest for step in changed) - sum(step.longest for step in way) == 30
    patient = {**documented.alertmanager, "route": {**documented.alertmanager["route"], "routes": []}}
    patient["route"]["routes"] = [
        {**route, "group_wait": "25s"} for route in documented.alertmanager["route"]["routes"]
    ]
    later = steps(dataclasses.replace(documented, alertmanager=patient), "BackendDown", "critical")
    assert sum(step.longest for step in later) - sum(step.longest for step in way) == 20
