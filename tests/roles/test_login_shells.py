"""What login shells of an estate's hosts are told, for the runbooks' commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCAL = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "/usr/bin/python3"}


def told(inventory: str, **settings: Any) -> dict[str, dict[str, str]]:
    """Each host's variables, as a shell has them that has read what the roles write."""
    run = subprocess.run(
        ["ansible-playbook", "--inventory", f"inventories/{inventory}", "--check",
         "--extra-vars", json.dumps(LOCAL | settings), "tests/roles/login_shells.yml"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.timer"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    report, _ = json.JSONDecoder().raw_decode(run.stdout)  # the play's own time follows
    written: dict[str, str] = {}
    for play in report["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                written[host] = written.get(host, "") + result["invocation"]["module_args"]["block"]
    shells = {host: dict(line.split("=", 1) for line in shell(text)) for host, text in written.items()}
    return {host: {name: value for name, value in one.items() if name.isupper()} for host, one in shells.items()}


def shell(text: str) -> list[str]:
    """Read a profile as /bin/sh does, and return what it exports."""
    command = ["env", "-i", "PATH=/usr/bin:/bin", "sh", "-euc", f"{text}\nenv"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in output.splitlines() if not line.startswith(("PATH=", "PWD="))]


def test_the_hosts_of_production_know_their_own_addresses_and_the_job() -> None:
    """Prevents: a runbook that asks 127.0.0.1, where no service listens, or for a job of another estate."""
    app, monitor = "192.0.2.11", "192.0.2.21"
    grafana = {"grafana_tls_certificate_file": "/etc/ssl/g.pem", "grafana_root_url": "https://g.example.com/x"}
    shells = told("production", **grafana)
    assert shells["app1"] == {
        "BACKEND": f"http://{app}:7000",
        "BACKEND_METRICS": f"http://{app}:7001/metrics http://{app}:7002/metrics",
        "NODE_EXPORTER": f"http://{app}:9100",
    }
    assert shells["monitor1"] == {
        "PROMETHEUS": f"http://{monitor}:9090",
        "ALERTMANAGER": f"http://{monitor}:9093",
        "BACKEND_JOB": "backend-api-production",
        "NODE_EXPORTER": f"http://{monitor}:9100",
        "GRAFANA": f"https://{monitor}:3001/x",
    }
    # It has no Prometheus, and silences all the same.
    assert shells["monitor2"] == {
        "ALERTMANAGER": "http://192.0.2.22:9093",
        "BACKEND_JOB": "backend-api-production",
        "NODE_EXPORTER": "http://192.0.2.22:9100",
    }


def test_the_local_host_knows_all_of_them() -> None:
    """Prevents: 0.0.0.0, and a slash too many, in a command."""
    assert told("local", local_grafana="grafana-12.4.0.linux-amd64.tar.gz")["allin-local"] == {
        "PROMETHEUS": "http://127.0.0.1:9090",
        "ALERTMANAGER": "http://127.0.0.1:9093",
        "BACKEND_JOB": "backend-api-dev",
        "BACKEND": "http://127.0.0.1:7000",
        "BACKEND_METRICS": "http://127.0.0.1:7000/metrics",
        "NODE_EXPORTER": "http://127.0.0.1:9100",
        "GRAFANA": "http://127.0.0.1:3001",
    }


@pytest.mark.parametrize(
    ("role", "playbook", "hosts"),
    [
        ("backend", "backend", "backend"),
        ("node_exporter", "exporters", "node_exporter"),
        ("alertmanager", "monitoring", "alertmanager"),
        ("prometheus", "monitoring", "prometheus"),
        ("grafana", "grafana", "grafana:!grafana_left_out"),
    ],
)
def test_each_service_s_playbook_tells_login_shells(role: str, playbook: str, hosts: str) -> None:
    """Prevents: a profile that nothing writes."""
    plays = yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text())
    found = [
        (play["hosts"], play["tags"])
        for play in plays
        for task in play.get("tasks", [])
        if task.get("ansible.builtin.import_role") == {"name": role, "tasks_from": "profile"}
    ]
    assert found == [(hosts, [role])]
