"""Alertmanager's configuration as the role writes it, for tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

SLACK = {"alertmanager_slack_api_url": "http://127.0.0.1:8025/slack/x", "alertmanager_slack_channel": "#alerts"}
MAIL = {
    "alertmanager_email_to": ["a@mail.test", "b@mail.test"],
    "alertmanager_email_from": "from@mail.test",
    "alertmanager_smtp_smarthost": "127.0.0.1:2525",
}


def render(destination: Path, **settings: Any) -> dict[str, Any]:
    """Render alertmanager.yml with these variables; return it parsed."""
    destination.mkdir(exist_ok=True)
    variables = {"role": str(ROOT / "roles/alertmanager"), "destination": str(destination), **settings}
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), "tests/roles/render_alertmanager.yml"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    loaded: dict[str, Any] = yaml.safe_load((destination / "alertmanager.yml").read_text())
    return loaded
