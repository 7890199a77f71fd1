"""`check_receivers`: secrets that would be shown or are not there, misspelt keys, and what it says of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.action.check_receivers import (
    INHIBIT_KEYS,
    NEWEST,
    OLDEST,
    RECEIVER_KEYS,
    ROUTE_KEYS,
    SECRET_KEYS,
    TRIXIE,
    Checker,
)
from tests.sinks.alertmanagers import SUITES, amtool, unpacked

RELEASES = dict(zip(SUITES, (OLDEST, TRIXIE, NEWEST), strict=True))
FOLDER = "/etc/alertmanager-secrets"


def look(parts: dict[str, Any], release: str = "0.33.1", **more: Any) -> Checker:
    checker = Checker(release, f"{FOLDER}/", more.get("secrets", []), more.get("own", ["slack_api_url"]))
    checker.check(parts)
    checker.check_secrets(more.get("empty", []))
    return checker


def integration(kind: str, config: dict[str, Any], **more: Any) -> list[str]:
    return look({"alertmanager_extra_integrations": {"critical": {kind: [config]}}}, **more).problems


def test_good_parts_are_accepted() -> None:
    """Prevents: a check that refuses everything."""
    webhook = {"webhook_configs": [{"url": "https://hooks.test/token", "http_config": {"follow_redirects": False}}]}
    parts = {
        "alertmanager_extra_integrations": {"critical": webhook, "info": {"opsgenie_configs": []}},
        "alertmanager_teams": [{"name": "a", "extra_integrations": {"warning": webhook}}, {"name": "b"}],
        "alertmanager_environments": [],
        "alertmanager_extra_receivers": [
            {
                "name": "pager",
                "pagerduty_configs": [{"routing_key_file": f"{FOLDER}/pager", "details": {"token": "x"}}],
            },
            {"name": "other", "slack_configs": [{"api_url_file": f"{FOLDER}/slack_api_url"}]},
            {"name": "elsewhere", "victorops_configs": [{"api_key_file": "/run/secrets/victorops"}]},
            {"name": "teams", "msteamsv2_configs": [{"webhook_url_file": "/run/secrets/teams"}]},
        ],
        "alertmanager_extra_routes": [{"receiver": "pager", "routes": [{"matchers": ["a = b"], "continue": True}]}],
        "alertmanager_extra_inhibit_rules": [{"source_matchers": ["a = b"], "target_matchers": [], "equal": []}],
    }
    checker = look(parts, secrets=["pager"])
    assert (checker.problems, checker.inline) == ([], [])


@pytest.mark.parametrize(
    ("kind", "config", "place", "instead"),
    [
        ("pagerduty_configs", {"routing_key": "S"}, "routing_key", "routing_key_file: {}/pagerduty_routing_key"),
        ("opsgenie_configs", {"api_key": "S"}, "api_key", "api_key_file: {}/opsgenie_api_key"),
        ("telegram_configs", {"bot_token": "S"}, "bot_token", "bot_token_file: {}/telegram_bot_token"),
        ("slack_configs", {"api_url": "S"}, "api_url", "api_url_file: {}/slack_api_url_2"),
        (
            "webhook_configs",
            {"url": "https://x.test", "http_config": {"basic_auth": {"username": "u", "password": "S"}}},
            "http_config.basic_auth.password",
            "password_file: {}/webhook_password",
        ),
        (
            "webhook_configs",
            {"http_config": {"authorization": {"credentials": "S"}}},
            "http_config.authorization.credentials",
            "credentials_file: {}/webhook_credentials",
        ),
        (
            "webhook_configs",
            {"http_config": {"oauth2": {"client_id": "u", "client_secret": "S"}}},
            "http_config.oauth2.client_secret",
            "client_secret_file: {}/webhook_client_secret",
        ),
        ("email_configs", {"tls_config": {"key": "S"}}, "tls_config.key", "key_file: {}/email_key"),
        (
            "webhook_configs",
            {"http_config": {"http_headers": {"X-Token": {"secrets": ["S"]}}}},
            "http_config.http_headers.X-Token.secrets",
            "files: [{}/webhook_x_token]",
        ),
    ],
)
def test_a_secret_in_the_configuration_is_named_and_not_shown(
    kind: str, config: dict[str, Any], place: str, instead: str
) -> None:
    (found,) = integration(kind, config)
    assert found.startswith(f"alertmanager_extra_integrations.critical.{kind}[0].{place}: a secret in alertmanager.yml")
    assert instead.format(FOLDER) in found
    assert "alertmanager_extra_secrets: {" in found
    assert "'S'" not in found


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("alertmanager_teams", [{"name": "a", "extra_integrations": {"info": None}}], "[0].extra_integrations.info"),
        ("alertmanager_environments", [{}, {"extra_integrations": {"info": None}}], "[1].extra_integrations.info"),
        ("alertmanager_extra_receivers", [{"name": "a"}], "[0]"),
    ],
)
def test_every_place_is_looked_at(variable: str, value: list[dict[str, Any]], place: str) -> None:
    part = {"pagerduty_configs": [{}, {"service_key": "S"}]}
    for entry in value:
        if variable == "alertmanager_extra_receivers":
            entry |= part
        elif "extra_integrations" in entry:
            entry["extra_integrations"]["info"] = part
    (found,) = look({variable: value}).problems
    assert found.startswith(f"{variable}{place}.pagerduty_configs[1].service_key: ")


def test_an_address_with_a_password_is_a_secret() -> None:
    (found,) = integration("webhook_configs", {"url": "https://me:S3cret@x.test/"})
    assert "[0].url: a secret in alertmanager.yml" in found
    assert f"url_file: {FOLDER}/webhook_url" in found
    assert "S3cret" not in found
    receiver = {"name": "a", "webhook_configs": [{"url": "https://me:S3cret@x.test/"}]}
    old = look({"alertmanager_extra_receivers": [receiver]}, "0.25")
    assert (old.problems, old.inline) == ([], ["alertmanager_extra_receivers[0].webhook_configs[0].url"])
    # An address without one may stand there: what messages advise to write is such a one.
    assert integration("webhook_configs", {"url": "https://x.test:8080/a@b:c@d"}) == []


@pytest.mark.parametrize(
    "config",
    [
        {"sigv4": {"secret_key": "S"}},
        {"http_config": {"proxy_url": "http://me:S@proxy.test"}},
        {"http_config": {"proxy_connect_header": {"Proxy-Authorization": ["S"]}}},
        {"http_config": {"oauth2": {"endpoint_params": {"username": "u", "password": "S"}}}},
    ],
)
def test_what_no_release_reads_from_a_file_may_stand_there_and_is_noted(config: dict[str, Any]) -> None:
    """Prevents: a secret that cannot be written elsewhere, and is shown by --diff."""
    checker = look({"alertmanager_extra_receivers": [{"name": "a", "sns_configs": [config]}]})
    assert checker.problems == []
    assert len(checker.inline) == 1


def test_what_the_user_names_is_no_key_of_a_secret() -> None:
    """Prevents: an attribute of a message that is refused, and of which nothing could be done."""
    assert integration("sns_configs", {"attributes": {"token": "x", "password": "y"}}) == []


def test_the_file_that_is_advised_is_none_of_the_role_s() -> None:
    """Prevents: an address of Slack's that the next run refuses, or that is the one of the role's own channel."""
    for own in (["slack_api_url"], []):
        (found,) = integration("slack_configs", {"api_url": "S"}, own=own)
        assert f"write api_url_file: {FOLDER}/slack_api_url_2, and" in found
        assert "alertmanager_extra_secrets: {slack_api_url_2: ...}" in found
    (found,) = integration("slack_configs", {"api_url_file": f"{FOLDER}/slack_api_url"}, own=[])
    assert found.endswith(
        f"nothing writes {FOLDER}/slack_api_url, which is of alertmanager_slack_api_url where that is in use. "
        f"Write api_url_file: {FOLDER}/slack_api_url_2, "
        "and from a vault: alertmanager_extra_secrets: {slack_api_url_2: ...}"
    )
    (found,) = integration(
        "webhook_configs", {"http_config": {"http_headers": {"X": {"files": [f"{FOLDER}/smtp_password"]}}}}
    )
    assert f"Write files: [{FOLDER}/smtp_password_2], and" in found


def test_each_secret_is_advised_a_file_of_its_own() -> None:
    """Prevents: two services of a kind that get the same key."""
    receivers = [
        {"name": name, "pagerduty_configs": [{"routing_key": f"S{name}"}, {"routing_key": "Sa"}]} for name in "ab"
    ]
    lines = look({"alertmanager_extra_receivers": receivers}).problems
    files = [re.findall(r"\w+(?=: \.\.\.)", line)[0] for line in lines]
    assert files == [f"pagerduty_routing_key{number}" for number in ("", "", "_2", "")]


@pytest.mark.parametrize("files", [5, None, f"{FOLDER}/x", [5]])
def test_files_that_are_no_list_of_paths_are_left_to_amtool(files: Any) -> None:
    assert integration("webhook_configs", {"http_config": {"http_headers": {"X": {"files": files}}}}) == []


@pytest.mark.parametrize("key", ["carrierpigeon_configs", "msteamsv3_configs", "slackk_configs", "labels"])
def test_a_newer_release_may_have_what_we_do_not_know(key: str) -> None:
    """Prevents: an integration of a new Alertmanager that cannot be used before the role knows it."""
    parts = {"alertmanager_extra_receivers": [{"name": "a", key: [{"http_config": {"bearer_token_file": "/x"}}]}]}
    assert look(parts, "0.34.0").problems == []
    assert look(parts, "1.0.0").problems == []
    # Its secrets are found all the same.
    if key.endswith("_configs"):
        parts["alertmanager_extra_receivers"][0][key] = [{"http_config": {"bearer_token": "S"}}]
        assert len(look(parts, "0.34.0").problems) == 1


def test_what_an_old_release_reads_from_nowhere_else_may_stand_there() -> None:
    telegram = {"alertmanager_extra_receivers": [{"name": "a", "telegram_configs": [{"bot_token": "S", "chat_id": 1}]}]}
    old = look(telegram, "0.25")
    assert old.problems == []
    assert old.inline == ["alertmanager_extra_receivers[0].telegram_configs[0].bot_token"]
    assert len(look(telegram, "0.28").problems) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_the_keys_are_alertmanager_s_own(suite: str, tmp_path: Path) -> None:
    """Prevents: advice to write what the release refuses, and a secret that it could have read from a file."""
    holders = {
        "api_key": "opsgenie_configs",
        "auth_password": "email_configs",
        "auth_secret": "email_configs",
        "routing_key": "pagerduty_configs",
        "service_key": "pagerduty_configs",
        "bot_token": "telegram_configs",
        "token": "pushover_configs",
        "user_key": "pushover_configs",
        "token_id": "rocketchat_configs",
        "webhook_url": "discord_configs",
        "alert_source_token": "incidentio_configs",
        "api_secret": "wechat_configs",
        "app_token": "slack_configs",
    }
    for key, since in SECRET_KEYS.items():
        if key not in holders:  # of http_config, which is Prometheus's own
            continue
        config = {"receivers": [{"name": "x", holders[key]: [{f"{key}_file": "/x"}]}], "route": {"receiver": "x"}}
        (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(config))
        run = subprocess.run(
            [amtool(suite), "check-config", str(tmp_path / "alertmanager.yml")],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        said = run.stdout + run.stderr
        assert (f"{key}_file not found" in said or f"{holders[key]} not found" in said) == (RELEASES[suite] < since), (
            said
        )


def said_of(config: dict[str, Any], folder: Path) -> str:
    """Return what the newest release's amtool says of a configuration."""
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    run = subprocess.run(
        [amtool("sid"), "check-config", str(folder / "alertmanager.yml")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return run.stdout + run.stderr


def test_the_kinds_of_receivers_are_the_newest_release_s(tmp_path: Path) -> None:
    for key in RECEIVER_KEYS:
        config = {"receivers": [{"name": "x", key: [{"nonsense": 1}]}], "route": {"receiver": "x"}}
        said = said_of(config, tmp_path)
        assert f"{key} not found" not in said
        assert "nonsense not found" in said


def test_no_kind_of_a_known_release_is_missing() -> None:
    """Prevents: an integration that is refused as misspelt, though Alertmanager has it."""
    for suite in SUITES:
        program = (unpacked(suite) / "usr/bin/prometheus-alertmanager").read_bytes()
        found = {one.decode() for one in re.findall(rb'yaml:"(\w+_configs)[,"]', program)}
        assert found <= set(RECEIVER_KEYS), suite
        assert len(found) > 10
    assert found == set(RECEIVER_KEYS)


def test_the_keys_of_routes_and_inhibition_rules_are_the_newest_release_s(tmp_path: Path) -> None:
    for variable, keys in (("routes", ROUTE_KEYS), ("inhibit_rules", INHIBIT_KEYS)):
        for key in [*keys, "nonsense"]:
            config: dict[str, Any] = {"receivers": [{"name": "x"}], "route": {"receiver": "x"}}
            (config["route"] if variable == "routes" else config)[variable] = [{key: None}]
            assert (f"field {key} not found" in said_of(config, tmp_path)) == (key == "nonsense"), key


def test_a_file_that_nothing_writes_is_named() -> None:
    """Prevents: a receiver that fails at the first alert, since its secret was never there."""
    (found,) = integration("pagerduty_configs", {"routing_key_file": f"{FOLDER}/pagr"}, secrets=["pager"])
    assert found == (
        "alertmanager_extra_integrations.critical.pagerduty_configs[0].routing_key_file: nothing writes "
        f"{FOLDER}/pagr, did you mean pager? Or write from a vault: alertmanager_extra_secrets: {{pagr: ...}}"
    )
    (found,) = integration(
        "webhook_configs", {"http_config": {"http_headers": {"X-Token": {"files": [f"{FOLDER}/none"]}}}}
    )
    assert f"nothing writes {FOLDER}/none. Write from a vault" in found


def test_further_secrets_are_not_empty_and_replace_none_of_ours() -> None:
    found = look({}, secrets=["smtp_password", "pager", "README", "good"], empty=["pager"]).problems
    assert [line.partition(":")[0] for line in found] == [
        "alertmanager_extra_secrets.smtp_password",
        "alertmanager_extra_secrets.pager",
        "alertmanager_extra_secrets.README",
    ]
    assert "alertmanager_smtp_password" in found[0]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"alertmanager_extra_integrations": {"critical": {"pagerduty_config": [{}]}}},
            "critical.pagerduty_config: is no key of a receiver, did you mean pagerduty_configs?",
        ),
        ({"alertmanager_extra_receivers": [{"name": "x", "webhok_configs": []}]}, "did you mean webhook_configs?"),
        (
            {"alertmanager_extra_receivers": [{"name": "x", "carrierpigeon_configs": []}]},
            "is no key of a receiver. There",
        ),
        (
            {"alertmanager_extra_receivers": [{"name": "x", "send": 1}]},
            "[0].send: is no key of a receiver. There are: ",
        ),
        ({"alertmanager_extra_receivers": [{"webhook_configs": []}]}, "alertmanager_extra_receivers[0]: has no name"),
        (
            {"alertmanager_extra_integrations": {"info": {"webhook_configs": {"url": "https://x.test"}}}},
            "alertmanager_extra_integrations.info.webhook_configs: is no list of mappings",
        ),
        (
            {"alertmanager_extra_inhibit_rules": [{}, {"source_matcher": []}]},
            "[1].source_matcher: is no key of an inhibition rule, did you mean source_matchers?",
        ),
        (
            {"alertmanager_extra_routes": [{"routes": [{"matcher": []}]}]},
            "alertmanager_extra_routes[0].routes[0].matcher: is no key of a route, did you mean matchers?",
        ),
    ],
)
def test_misspelt_keys_are_named_with_what_was_meant(parts: dict[str, Any], words: str) -> None:
    (found,) = look(parts).problems
    assert words in found
