"""Whose an alert is: the label `team`, from the inventory's hosts to the alerts that Prometheus sends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles" / "prometheus"
ODD = 'Pay "$1" (EU)'
ESTATE = {
    "all": {
        "vars": {"allin_environment": "test"},
        "children": {
            "backend": {"hosts": {"app1": None, "app2": None}, "vars": {"allin_team": ODD}},
            "prometheus": {"hosts": {"monitor1": {"allin_team": "platform"}}},
            "alertmanager": {"hosts": {"monitor1": None, "spare": None}},
            "node_exporter": {"hosts": {"app1": None, "monitor1": None, "spare": None}},
        },
    }
}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An estate of two teams, and a host that is nobody's."""
    folder = tmp_path_factory.mktemp("estate")
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    (folder / "hosts.yml").write_text(yaml.safe_dump(ESTATE))
    return folder / "hosts.yml"


def value(inventory: Path, name: str) -> Any:
    """A variable as the role prometheus sees it on monitor1."""
    run = subprocess.run(
        [
            *("ansible", "monitor1", "--inventory", str(inventory), "--module-name", "ansible.builtin.debug"),
            *("--args", f"var={name}", "--one-line"),
            *("--extra-vars", f"@{ROLE / 'vars/main.yml'}"),
        ],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(run.stdout.partition("=>")[2])[name]


def test_what_is_measured_on_a_host_is_its_team_s(inventory: Path) -> None:
    labels = {"app1": {"host": "app1", "team": ODD}, "app2": {"host": "app2", "team": ODD}}
    labels |= {"monitor1": {"host": "monitor1", "team": "platform"}, "spare": {"host": "spare"}}
    for name in ("prometheus_scrape_jobs", "prometheus_inventory_targets"):
        for job in value(inventory, name):
            found = {target: job["target_labels"][target] for target in job["targets"]}
            assert found == {target: labels[target.partition(":")[0]] for target in job["targets"]}, name


def test_an_alert_about_a_job_is_the_team_s_whose_hosts_it_is_about(inventory: Path) -> None:
    """Prevents: a backend that is down, and a message to everybody but the team that runs it."""
    assert value(inventory, "__prometheus_alert_relabelling") == [
        {
            "source_labels": ["job", "team"],
            "regex": r"backend\-api\-test;",
            "target_label": "team",
            "replacement": 'Pay "$$1" (EU)',
        },
        {"source_labels": ["job", "team"], "regex": "prometheus;", "target_label": "team", "replacement": "platform"},
        # alertmanager and node are of several: whose an alert about all of them is, nobody can say.
        {"action": "labeldrop", "regex": "replica"},
    ]
