"""playbooks/verify.yml itself, on this machine as its host: what people see when a message arrives, and when not."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alert_path.stack import ROOT, Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "sid", "sid")
    yield stack
    stack.stop()


def verify(stack: Stack, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the playbook with these options of ansible-playbook."""
    variables = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "prometheus_port": int(stack.urls["prometheus"].rpartition(":")[2]),
        "prometheus_config_dir": str(stack.folder),
        "__prometheus_promtool": str(stack.root / "usr/bin/promtool"),
        "__verify_reload": ["kill", "-HUP", str(stack.processes["prometheus"].pid)],
        "verify_receipts": [
            {"integration": "slack", "url": f"{stack.sinks}/api/messages?kind=slack"},
            {"integration": "email", "url": f"{stack.sinks}/api/messages?kind=mail"},
        ],
        "verify_firing_timeout_seconds": 10,
    } | variables
    inventory = stack.folder / "hosts.json"
    inventory.write_text(json.dumps({"prometheus": {"hosts": {"here": None}}}))
    return subprocess.run(
        ["ansible-playbook", "-i", str(inventory), "-e", json.dumps(variables), "playbooks/verify.yml", *options],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_it_prints_the_hops_with_their_times(stack: Stack) -> None:
    done = verify(stack)
    assert done.returncode == 0, done.stdout
    assert "got through, firing and resolved." in done.stdout
    for hop in ("Rule in Prometheus", "Alertmanager http", "Route of severity=critical", "Slack", "Mail"):
        assert hop in done.stdout
    assert "changed=0" in done.stdout


def test_it_fails_naming_the_hop(stack: Stack) -> None:
    stack.fault(slack={"status": 404, "body": "no_service"})
    done = verify(stack, verify_alertmanager_hosts=["here"])
    stack.fault()
    assert done.returncode != 0
    assert re.search(
        r"did not get through\. Slack: (\d+) of \1 attempts to send failed", " ".join(done.stdout.split())
    ), done.stdout
    assert "FAILED" in done.stdout


def test_settings_that_cannot_work_are_refused(stack: Stack) -> None:
    done = verify(stack, verify_severity="page", verify_labels={"not a label": "x"})
    assert done.returncode != 0
    assert "verify_severity" in done.stdout
    assert "verify_labels" in done.stdout
    assert not Path(stack.folder / "rules/90-probe.rules.yml").exists()


def test_what_is_not_scraped_is_named_and_hides_nothing(stack: Stack) -> None:
    """Also prevents: a run that proves no alert path because an exporter is down, or that ends well although it is."""
    missing = {"verify_targets": {"node": ["app1:9100"]}, "verify_data_timeout_seconds": 1}
    done = verify(stack, **missing)
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert "got through, firing and resolved." in text
    said = "No data: node app1:9100: Prometheus was never told of it. Cure: ansible-playbook site.yml --tags prometheus"
    assert text.count(said) >= 2
    # Each question alone.
    done = verify(stack, "--tags", "data", **missing)
    assert done.returncode != 0
    assert "got through" not in done.stdout
    assert verify(stack, "--tags", "alert_path", **missing).returncode == 0


def test_all_that_is_scraped_is_counted(stack: Stack) -> None:
    done = verify(stack, "--tags", "data")
    assert done.returncode == 0, done.stdout
    assert "0 targets of the inventory are up" in done.stdout
