"""Which receiver an alert reaches, decided by amtool itself, of the three versions that users get."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.alert_routing import alert_integrations
from tests.roles.rendering import MAIL, ROOT, SLACK, render
from tests.sinks.alertmanagers import SUITES, amtool

# Everything that an inventory may say of who is told what.
FULL: dict[str, Any] = {
    # Debian 12's, which is the oldest.
    "alertmanager_install_method": "package",
    "alertmanager_smtp_username": "u",
    "alertmanager_slack_channels": {"critical": "#page", "info": "#quiet"},
    "alertmanager_heartbeat_url": "https://heartbeat.test/allin",
    "alertmanager_environments": [
        {"name": "staging", "slack_channel": "#staging", "mute_times": {"critical": ["nights"], "warning": ["nights"]}}
    ],
    "alertmanager_teams": [
        {"name": "payments", "slack_channel": "#payments", "email_to": ["payments@mail.test"]},
        {"name": "platform", "email_to": ["platform@mail.test"]},
    ],
    "alertmanager_time_intervals": [
        {"name": "nights", "time_intervals": [{"times": [{"start_time": "22:00", "end_time": "24:00"}]}]}
    ],
    "alertmanager_mute_times": {"info": ["nights"]},
    "alertmanager_extra_integrations": {"critical": {"webhook_configs": [{"url": "http://127.0.0.1:1/pager"}]}},
    "alertmanager_extra_receivers": [{"name": "archive", "webhook_configs": [{"url": "http://127.0.0.1:1/"}]}],
    "alertmanager_extra_routes": [{"matchers": ["component = business"], "receiver": "archive", "continue": True}],
}

INFO_HOOK = {"info": {"webhook_configs": [{"url": "http://127.0.0.1:1/"}]}}

# labels, receivers in the order of the routes
ROUTES = [
    ({"alertname": "Watchdog", "severity": "none", "component": "watchdog"}, "heartbeat"),
    # Whatever else it carries, nobody but the heartbeat gets it.
    ({"alertname": "Watchdog", "severity": "critical", "environment": "staging", "team": "payments"}, "heartbeat"),
    ({"alertname": "Watchdog", "component": "business"}, "heartbeat"),
    ({"alertname": "BackendDown", "severity": "critical"}, "critical"),
    ({"alertname": "SlowResponseTime", "severity": "critical", "job": "x"}, "critical"),
    ({"alertname": "SlowResponseTime", "severity": "warning"}, "warning"),
    ({"alertname": "LowCacheHitRate", "severity": "info"}, "info"),
    # What nobody has given a severity that we know is shown, not lost.
    ({"alertname": "FromSomebodyElse"}, "warning"),
    ({"alertname": "FromSomebodyElse", "severity": "page"}, "warning"),
    ({"alertname": "FromSomebodyElse", "severity": "none"}, "warning"),
    ({"alertname": "HostDown", "severity": "critical", "environment": "production", "host": "app1"}, "critical"),
    # An environment of its own, whoever's the alert is: a trial wakes nobody.
    ({"severity": "critical", "environment": "staging"}, "environment-staging-critical"),
    ({"severity": "warning", "environment": "staging", "team": "payments"}, "environment-staging-warning"),
    ({"severity": "info", "environment": "staging"}, "environment-staging-info"),
    ({"severity": "page", "environment": "staging"}, "environment-staging-warning"),
    ({"severity": "critical", "environment": "staging2"}, "critical"),
    ({"severity": "critical", "team": "payments"}, "team-payments-critical"),
    ({"severity": "warning", "team": "payments", "environment": "production"}, "team-payments-warning"),
    ({"severity": "info", "team": "payments"}, "team-payments-info"),
    ({"severity": "critical", "team": "platform"}, "team-platform-critical"),
    ({"severity": "warning", "team": "platform"}, "team-platform-warning"),
    ({"severity": "info", "team": "platform"}, "team-platform-info"),
    ({"severity": "critical", "team": "unheard-of"}, "critical"),
    # A user's own route that goes on.
    ({"severity": "warning", "component": "business"}, "archive,warning"),
    ({"severity": "critical", "component": "business", "team": "payments"}, "archive,team-payments-critical"),
]


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("alertmanager") / "both"
    render(destination, **SLACK, **MAIL, **FULL)
    return destination


def check(suite: str, folder: Path) -> None:
    """Let a suite's amtool check a configuration."""
    run = subprocess.run(
        [amtool(suite), "check-config", str(folder / "alertmanager.yml")], check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("suite", SUITES)
def test_amtool_accepts_the_configuration(both: Path, suite: str) -> None:
    check(suite, both)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("labels", "receiver"), ROUTES, ids=lambda value: str(value))
def test_an_alert_reaches_its_receiver(both: Path, suite: str, labels: dict[str, str], receiver: str) -> None:
    pairs = [f"{name}={value}" for name, value in labels.items()]
    command = [amtool(suite), "config", "routes", "test", f"--config.file={both / 'alertmanager.yml'}", *pairs]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == receiver


def receivers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in config["receivers"]}


@pytest.fixture(scope="session")
def config(both: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((both / "alertmanager.yml").read_text())
    return loaded


def test_the_table_above_reaches_every_receiver(config: dict[str, Any]) -> None:
    """Prevents: a receiver that no test knows."""
    assert {name for _, names in ROUTES for name in names.split(",")} == set(receivers(config))


@pytest.mark.parametrize(("labels", "receiver"), ROUTES, ids=lambda value: str(value))
def test_a_probe_expects_what_its_receiver_has(config: dict[str, Any], labels: dict[str, str], receiver: str) -> None:
    """Prevents: a proof of delivery that waits for a mail which nobody sends, or does not miss one."""
    # A user's own routes are not seen, and a probe is no Watchdog.
    if "archive" not in receiver and "Watchdog" not in labels.values():
        ways = receivers(config)[receiver].keys() - {"name"}
        found = alert_integrations({**SLACK, **MAIL, **FULL}, labels)
        assert sorted(found) == sorted(way.removesuffix("_configs") for way in ways)


@pytest.mark.parametrize(
    ("settings", "severity", "ways"),
    [
        ({}, "critical", ["slack", "email"]),
        ({}, "warning", ["slack"]),
        ({"alertmanager_slack_enabled": False}, "warning", ["email"]),
        ({"alertmanager_email_enabled": False}, "critical", ["slack"]),
        ({"alertmanager_notify": False}, "critical", []),
        ({"alertmanager_info_to": "slack"}, "info", ["slack"]),
        ({"alertmanager_info_to": "nobody"}, "info", []),
        ({"alertmanager_info_to": "nobody", "alertmanager_extra_integrations": INFO_HOOK}, "info", ["webhook"]),
        # Once a day is not at once.
        ({"alertmanager_info_to": "daily_mail"}, "info", []),
        ({"alertmanager_info_to": "daily_mail"}, "warning", ["slack"]),
    ],
)
def test_a_probe_expects_what_the_settings_say(settings: dict[str, Any], severity: str, ways: list[str]) -> None:
    assert alert_integrations({**SLACK, **MAIL, **settings}, {"severity": severity}) == ways


def test_critical_goes_to_slack_and_mail_the_rest_to_slack(config: dict[str, Any]) -> None:
    found = receivers(config)
    assert found["critical"]["slack_configs"][0]["channel"] == "#page"
    assert found["critical"]["email_configs"][0]["to"] == "a@mail.test, b@mail.test"
    for severity, channel in (("warning", "#alerts"), ("info", "#quiet")):
        assert found[severity]["slack_configs"][0]["channel"] == channel
        assert "email_configs" not in found[severity]
    for name, one in found.items():
        for part in one.get("slack_configs", []) + one.get("email_configs", []):
            assert part["send_resolved"] is True, name


def test_critical_is_told_at_once(config: dict[str, Any]) -> None:
    """Prevents: a page that waits for the group's other alerts."""

    def routes(tree: dict[str, Any]) -> list[dict[str, Any]]:
        return [tree, *(inner for one in tree.get("routes", []) for inner in routes(one))]

    critical = [one for one in routes(config["route"]) if 'severity = "critical"' in one.get("matchers", [])]
    assert len(critical) == 4
    assert {one["group_wait"] for one in critical} == {"5s"}
    # And one whose second outage, or end, waits for the interval of the others.
    assert {one["group_interval"] for one in critical} == {"30s"}
    assert config["route"]["group_interval"] == "2m"
    assert {one["repeat_interval"] for one in critical} == {"4h"}


def test_a_team_inherits_and_an_environment_does_not(config: dict[str, Any]) -> None:
    """Prevents: a trial that wakes people, and a team whose alerts are lost because it named only an address."""
    found = receivers(config)
    assert found["team-payments-critical"]["slack_configs"][0]["channel"] == "#payments"
    assert found["team-payments-critical"]["email_configs"][0]["to"] == "payments@mail.test"
    assert found["team-payments-critical"]["webhook_configs"] == [{"url": "http://127.0.0.1:1/pager"}]
    assert found["team-platform-critical"]["slack_configs"][0]["channel"] == "#page"
    assert found["team-platform-critical"]["email_configs"][0]["to"] == "platform@mail.test"
    assert set(found["environment-staging-critical"]) == {"name", "slack_configs"}
    assert found["environment-staging-critical"]["slack_configs"][0]["channel"] == "#staging"


def test_mute_times_are_where_they_were_asked_for(config: dict[str, Any]) -> None:
    muted = {
        (route["matchers"][0], inner["matchers"][0] if inner is not route else ""): inner.get("mute_time_intervals")
        for route in config["route"]["routes"]
        for inner in [route, *route.get("routes", [])]
    }
    assert {place for place, names in muted.items() if names == ["nights"]} == {
        ('severity = "info"', ""),
        ('environment = "staging"', 'severity = "critical"'),
        ('environment = "staging"', 'severity = "warning"'),
        # A team that says nothing has what everybody has.
        ('team = "payments"', 'severity = "info"'),
        ('team = "platform"', 'severity = "info"'),
    }


def test_the_heartbeat_gets_the_watchdog_alone_and_never_its_end(config: dict[str, Any]) -> None:
    """Prevents: a resolved Watchdog that counts as a sign of life."""
    route = config["route"]["routes"][0]
    assert route == {
        "matchers": ['alertname = "Watchdog"'],
        "receiver": "heartbeat",
        "group_wait": "0s",
        "group_interval": "60s",
        "repeat_interval": "30s",
    }
    assert receivers(config)["heartbeat"]["webhook_configs"] == [
        {"url": "https://heartbeat.test/allin", "send_resolved": False, "max_alerts": 1}
    ]


def test_the_heartbeat_s_address_is_in_a_file_where_alertmanager_reads_one(tmp_path: Path) -> None:
    config = render(
        tmp_path / "file", **SLACK, **MAIL, alertmanager_heartbeat_url="https://heartbeat.test/allin",
        alertmanager_install_method="archive", alertmanager_version="0.33.1",
    )  # fmt: skip
    webhook = receivers(config)["heartbeat"]["webhook_configs"][0]
    assert webhook["url_file"] == "/etc/alertmanager-secrets/heartbeat_url"
    assert "url" not in webhook
    for suite in SUITES[1:]:
        check(suite, tmp_path / "file")
    old = render(tmp_path / "old", **SLACK, **MAIL, alertmanager_heartbeat_url="https://heartbeat.test/allin",
                 alertmanager_version="0.25.0")  # fmt: skip
    assert receivers(old)["heartbeat"]["webhook_configs"][0]["url"] == "https://heartbeat.test/allin"


def test_without_a_heartbeat_the_watchdog_goes_to_nobody(tmp_path: Path) -> None:
    config = render(tmp_path / "none", **SLACK, **MAIL)
    assert config["route"]["routes"][0] == {"matchers": ['alertname = "Watchdog"'], "receiver": "nobody"}
    assert receivers(config)["nobody"] == {"name": "nobody"}
    assert "time_intervals" not in config


def test_info_can_be_one_mail_a_day(tmp_path: Path) -> None:
    config = render(
        tmp_path / "daily", **SLACK, **MAIL, alertmanager_info_to="daily_mail", alertmanager_daily_mail_time="23:50",
        alertmanager_daily_mail_location="Europe/Berlin",
    )  # fmt: skip
    for suite in SUITES:
        check(suite, tmp_path / "daily")
    info = receivers(config)["info"]
    assert set(info) == {"name", "email_configs"}
    assert info["email_configs"][0]["send_resolved"] is False
    route = config["route"]["routes"][-1]
    assert route["group_by"] == ["environment"]
    assert route["active_time_intervals"] == ["daily-mail"]
    assert config["time_intervals"][0]["time_intervals"][0] == {
        "times": [{"start_time": "23:50", "end_time": "24:00"}, {"start_time": "00:00", "end_time": "00:05"}],
        "location": "Europe/Berlin",
    }


def test_info_can_be_told_nobody(tmp_path: Path) -> None:
    config = render(tmp_path / "quiet-info", **SLACK, **MAIL, alertmanager_info_to="nobody")
    assert config["route"]["routes"][-1]["receiver"] == "nobody"
    assert [one for one in config["receivers"] if one["name"] == "nobody"] == [{"name": "nobody"}]


def test_what_info_has_beside_slack_and_mail_is_kept(tmp_path: Path) -> None:
    """Prevents: an archive of alerts that misses some, since nobody asked for messages of these."""
    config = render(
        tmp_path / "archived-info", **SLACK, **MAIL, alertmanager_info_to="nobody",
        alertmanager_extra_integrations=INFO_HOOK,
        alertmanager_environments=[{"name": "staging", "slack_channel": "#staging"}],
        alertmanager_teams=[{"name": "payments", "slack_channel": "#payments"}],
    )  # fmt: skip
    for suite in SUITES:
        check(suite, tmp_path / "archived-info")
    found = receivers(config)
    for name in ("info", "team-payments-info"):
        assert found[name] == {"name": name, **INFO_HOOK["info"]}
    # An environment has what it names, and this one names nothing for info.
    assert "environment-staging-info" not in found
    assert config["route"]["routes"][-1]["receiver"] == "info"


def test_inhibition_names_alerts_that_exist(config: dict[str, Any]) -> None:
    """Prevents: an alert that was renamed, and a rule that hides nothing any more."""
    templates = (ROOT / "roles/prometheus/templates/rules").glob("*.rules.yml.j2")
    alerts = {name for path in templates for name in re.findall(r"- alert: (\w+)", path.read_text())}
    named = {
        name
        for rule in config["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
        for name in re.findall(r"\w+", matcher.partition("alertname")[2])
    }
    assert named
    assert named <= alerts


def test_no_secret_stands_in_the_configuration(both: Path) -> None:
    text = (both / "alertmanager.yml").read_text()
    assert "/slack/x" not in text
    assert "slack_api_url_file" in text
    assert "smtp_auth_password_file" in text


def test_without_slack_mail_takes_every_severity(tmp_path: Path) -> None:
    config = render(tmp_path / "mail", **MAIL, alertmanager_slack_enabled=False)
    for severity in ("critical", "warning", "info"):
        assert set(receivers(config)[severity]) == {"name", "email_configs"}
    assert "slack_api_url_file" not in config["global"]


def test_notify_false_tells_nobody_and_is_still_valid(tmp_path: Path) -> None:
    config = render(tmp_path / "quiet", alertmanager_notify=False)
    assert all(set(one) == {"name"} for one in config["receivers"])
    subprocess.run(
        [amtool("sid"), "check-config", str(tmp_path / "quiet/alertmanager.yml")], check=True, capture_output=True
    )


def test_notify_false_tells_nobody_of_environments_and_teams_either(tmp_path: Path) -> None:
    """Prevents: an Alertmanager on trial that pages a team."""
    hook = {"webhook_configs": [{"url": "http://127.0.0.1:1/"}]}
    config = render(
        tmp_path / "quiet",
        **SLACK,
        **MAIL,
        alertmanager_notify=False,
        alertmanager_heartbeat_url="http://127.0.0.1:1/",
        alertmanager_extra_integrations={"critical": hook},
        alertmanager_environments=[{"name": "test", "slack_channel": "#x", "extra_integrations": {"critical": hook}}],
        alertmanager_teams=[{"name": "a", "email_to": ["a@mail.test"], "extra_integrations": {"warning": hook}}],
        alertmanager_extra_receivers=[{"name": "pager", **hook}],
        alertmanager_extra_routes=[{"matchers": ["team = payments"], "receiver": "pager"}],
    )
    assert "pager" in receivers(config)
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
