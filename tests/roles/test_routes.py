"""Which receiver an alert reaches, decided by amtool itself, of the three versions that users get."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "allin-artifacts/debian"
SUITES = ("bookworm", "trixie", "sid")  # Alertmanager 0.25, 0.28, 0.33

SLACK = {"alertmanager_slack_api_url": "http://127.0.0.1:8025/slack/x", "alertmanager_slack_channel": "#alerts"}
MAIL = {
    "alertmanager_email_to": ["a@mail.test", "b@mail.test"],
    "alertmanager_email_from": "from@mail.test",
    "alertmanager_smtp_smarthost": "127.0.0.1:2525",
}

ROUTES = [
    ({"alertname": "BackendDown", "severity": "critical"}, "critical"),
    ({"alertname": "SlowResponseTime", "severity": "critical", "job": "x"}, "critical"),
    ({"alertname": "SlowResponseTime", "severity": "warning"}, "warning"),
    ({"alertname": "LowCacheHitRate", "severity": "info"}, "info"),
    # What nobody has given a severity that we know is shown, not lost.
    ({"alertname": "FromSomebodyElse"}, "warning"),
    ({"alertname": "FromSomebodyElse", "severity": "page"}, "warning"),
]


def amtool(suite: str) -> str:
    path = CACHE / suite / "usr/bin/amtool"
    assert path.exists(), f"no {path}: run tools/debian_packages.py --test-tools"
    return str(path)


def render(destination: Path, **settings: Any) -> dict[str, Any]:
    """Render alertmanager.yml with these variables; return it parsed."""
    destination.mkdir(exist_ok=True)
    variables = {"role": str(ROOT / "roles/alertmanager"), "destination": str(destination), **settings}
    subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), "tests/roles/render_alertmanager.yml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    loaded: dict[str, Any] = yaml.safe_load((destination / "alertmanager.yml").read_text())
    return loaded


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("alertmanager") / "both"
    render(
        destination, **SLACK, **MAIL, alertmanager_smtp_username="u", alertmanager_slack_channels={"critical": "#page"}
    )
    return destination


@pytest.mark.parametrize("suite", SUITES)
def test_amtool_accepts_the_configuration(both: Path, suite: str) -> None:
    subprocess.run([amtool(suite), "check-config", str(both / "alertmanager.yml")], check=True, capture_output=True)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("labels", "receiver"), ROUTES, ids=lambda value: str(value))
def test_an_alert_reaches_its_receiver(both: Path, suite: str, labels: dict[str, str], receiver: str) -> None:
    pairs = [f"{name}={value}" for name, value in labels.items()]
    command = [amtool(suite), "config", "routes", "test", f"--config.file={both / 'alertmanager.yml'}", *pairs]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == receiver


def test_every_receiver_is_reachable_and_every_route_has_one(both: Path) -> None:
    config = yaml.safe_load((both / "alertmanager.yml").read_text())
    used = {config["route"]["receiver"], *(route["receiver"] for route in config["route"]["routes"])}
    assert used == {one["name"] for one in config["receivers"]} == {receiver for _, receiver in ROUTES}


def test_critical_goes_to_slack_and_mail_the_rest_to_slack(both: Path) -> None:
    receivers = {one["name"]: one for one in yaml.safe_load((both / "alertmanager.yml").read_text())["receivers"]}
    assert receivers["critical"]["slack_configs"][0]["channel"] == "#page"
    assert receivers["critical"]["email_configs"][0]["to"] == "a@mail.test, b@mail.test"
    for severity in ("warning", "info"):
        assert receivers[severity]["slack_configs"][0]["channel"] == "#alerts"
        assert "email_configs" not in receivers[severity]
    for one in receivers.values():
        for config in one.get("slack_configs", []) + one.get("email_configs", []):
            assert config["send_resolved"] is True


def test_no_secret_stands_in_the_configuration(both: Path) -> None:
    text = (both / "alertmanager.yml").read_text()
    assert "/slack/x" not in text
    assert "slack_api_url_file" in text
    assert "smtp_auth_password_file" in text


def test_without_slack_mail_takes_every_severity(tmp_path: Path) -> None:
    config = render(tmp_path / "mail", **MAIL, alertmanager_slack_enabled=False)
    assert all("email_configs" in one and "slack_configs" not in one for one in config["receivers"])
    assert "slack_api_url_file" not in config["global"]


def test_notify_false_tells_nobody_and_is_still_valid(tmp_path: Path) -> None:
    config = render(tmp_path / "quiet", alertmanager_notify=False)
    assert all(set(one) == {"name"} for one in config["receivers"])
    subprocess.run(
        [amtool("sid"), "check-config", str(tmp_path / "quiet/alertmanager.yml")], check=True, capture_output=True
    )


def test_a_user_s_receivers_and_routes_come_first(tmp_path: Path) -> None:
    """Prevents: extra routes that ours would have swallowed."""
    render(
        tmp_path / "extra",
        **SLACK,
        **MAIL,
        alertmanager_extra_receivers=[{"name": "pager", "webhook_configs": [{"url": "http://127.0.0.1:1/"}]}],
        alertmanager_extra_routes=[{"matchers": ["team = payments"], "receiver": "pager"}],
    )
    command = [amtool("sid"), "config", "routes", "test", f"--config.file={tmp_path / 'extra/alertmanager.yml'}"]
    for labels, receiver in ((["team=payments", "severity=critical"], "pager"), (["severity=critical"], "critical")):
        assert (
            subprocess.run([*command, *labels], check=True, capture_output=True, text=True).stdout.strip() == receiver
        )
