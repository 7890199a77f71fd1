"""Settings that cannot work are refused by name, with an example, before any host is reached.

One run of the preflight plays serves the whole table: each row is a host of its own in a made-up inventory, at an
address that nobody answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.certificates import certificate_and_key  # noqa: E402

CERTIFICATE, KEY = certificate_and_key()
_, STRANGER = certificate_and_key()

GOOD = {
    "alertmanager_slack_api_url": "https://hooks.slack.test/services/a/b/c",
    "alertmanager_slack_channel": "#alerts",
    "alertmanager_email_to": ["on-call@mail.test"],
    "alertmanager_email_from": "monitoring@mail.test",
    "alertmanager_smtp_smarthost": "mail.test:587",
    "grafana_admin_password": "a-password-of-a-test",
    "grafana_secret_key": "a-key-of-a-test-and-long",
    "heartbeat_receiver_webhook_url": "https://hooks.slack.test/services/a/b/c",
}
EMPTY_ENVIRONMENT = ["alertmanager_environments[0].name", "is empty", "name: production"]

OIDC = {
    "client_id": "grafana",
    "client_secret": "SECRET-of-grafana",
    "auth_url": "https://id.test/authorize",
    "token_url": "https://id.test/token",
    "api_url": "https://id.test/userinfo",
}

# Every switch of the roles that the preflight checks.
SWITCHES = [
    (role.parent.parent.name, name)
    for role in sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))
    if f"name: {role.parent.parent.name}\n" in (ROOT / "playbooks/preflight.yml").read_text()
    for name, option in yaml.safe_load(role.read_text())["argument_specs"]["main"]["options"].items()
    if option["type"] == "bool"
]

PLATFORM = {"client_id": "SECRET-id", "client_secret": "SECRET"}

# What a check might take for a mistake.
FITTING: dict[str, dict[str, Any]] = {
    "prometheus": {
        "allin_environment": "test",
        "prometheus_scrape_jobs": [
            {"name": "slow", "targets": [], "scrape_interval": "1m", "scrape_timeout": "60s"},
            # Prometheus takes the interval, where the general time-out is longer.
            {"name": "quick", "targets": [], "scrape_interval": "5s"},
        ],
        "prometheus_extra_scrape_configs": [{"job_name": "x", "scrape_timeout": "10s"}],
        "prometheus_alertmanagers": ["alerts:9093", "[2001:db8::1]:9093"],
        "prometheus_runbook_url_base": "docs/run.books",
        "prometheus_dashboard_url_base": "https://grafana.test/monitoring/",
        "prometheus_scrape_interval": "30s",
        "prometheus_alert_thresholds": {
            "backend_down": {"for": "30s"},
            "backend_restarting_too_often": {"window": "2m", "restarts": 0, "for": 0},
            "certificate_expiry": {"critical_days": 0},
            "database_pool_exhausted": {"ratio": 1},
            "high_cpu_usage": {"ratio": 3.5, "for": "1h30m"},
            "high_error_rate": {"minimum_errors": 0, "ratio": "0.999", "for": "0s"},
            "high_event_loop_lag": {"for": "150s"},
            "host_disk_filling_up": {"ratio": 1.0},
            "latency_budget_burn": {"objective": 0.5, "fast_page_burn": 0.1, "seconds": 0.5},
            "target_down": {"for": "1m"},
        },
    },
    "grafana": {
        "grafana_settings": {
            "auth": {"disable_login_form": True, "disable_login": False},
            "auth.basic": {"enabled": True},
            "auth.anonymous": None,
            "database": {"path": "other.db", "max_open_conn": 10},
            "server": {"domain": "grafana.test", "enable_gzip": True},
            "paths": {"plugins": "/srv/plugins"},
            "metrics": {"enabled": None, "basic_auth_username": "", "interval_seconds": 30},
        },
        "grafana_users": [
            {"login": "anna"},
            {"login": "otto", "password": "SECRET-password", "update_password": "on_create"},
        ],
        "grafana_teams": [{"name": "payments"}, {"name": "Payments"}],
        "grafana_folders": [
            {"uid": "allin-platform", "permissions": [{"team": "payments", "permission": "edit"}]},
            {"uid": "closed", "title": "Closed", "permissions": []},
            {
                "uid": "shared",
                "title": "Shared",
                "permissions": [{"role": "Viewer", "permission": "view"}, {"user": "Viewer", "permission": "edit"}],
            },
        ],
        "grafana_service_accounts": [
            {"name": "one", "tokens": [{"name": "ci"}]},
            {"name": "two", "tokens": [{"name": "ci"}]},
        ],
        "grafana_oidc": OIDC | {"roles": {"Admin": ["ops", "7"], "Viewer": None}, "signout_redirect_url": ""},
        "grafana_extra_secrets": {"smtp": "SECRET$", "proxy.pem": "SECRET"},
        "grafana_datasources_extra": [
            {
                "name": "Logs",
                "secureJsonData": {"one": "Bearer $__file{/etc/grafana-secrets/logs}", "two": "$__env{TWO}"},
            },
        ],
        "grafana_tls_certificate": CERTIFICATE,
        "grafana_tls_key": KEY,
        "grafana_alertmanager_url": "",
    },
    "alertmanager": {
        "alertmanager_daily_mail_location": "Europe/Berlin",
        "alertmanager_environments": [{"name": "staging", "slack_channel": "#staging"}],
        "alertmanager_time_intervals": [
            {
                "name": "nights",
                "time_intervals": [{"location": "Local"}, {"location": ""}, {"times": [], "location": "Asia/Kolkata"}],
            },
        ],
        "alertmanager_mute_times": {"warning": ["nights"]},
        "alertmanager_cluster_peers": ["192.0.2.10:9094"],
    },
    # A whole number is a name too.
    "backend": {"backend_environment": 5},
    "heartbeat_receiver": {
        "heartbeat_receiver_interval_seconds": 30,
        "heartbeat_receiver_expected": [
            {"name": "one", "limit_seconds": 60},
            {"name": "two", "limit_seconds": "20", "interval_seconds": 10},
        ],
    },
}

# Null where a text says that there is none: what an inventory has that takes back the value of a wider group.
NULLS: dict[str, dict[str, Any]] = {
    "alertmanager": dict.fromkeys(
        ("alertmanager_smtp_username", "alertmanager_smtp_password", "alertmanager_heartbeat_url")
    ),
    "heartbeat_receiver": {
        "heartbeat_receiver_mail_to": ["on-call@mail.test"],
        "heartbeat_receiver_mail_from": "heartbeat@mail.test",
        "heartbeat_receiver_smtp_smarthost": "mail.test:25",
        **dict.fromkeys(
            ("heartbeat_receiver_webhook_url", "heartbeat_receiver_smtp_username", "heartbeat_receiver_smtp_password")
        ),
    },
}

HOST = "{{ ansible_facts['hostname'] }}"
# What only the host can say; the checks before it see no facts.
FROM_FACTS: dict[str, dict[str, Any]] = {
    "prometheus": {
        "prometheus_scrape_interval": "{{ '15s' if ansible_facts['python']['version']['major'] == 3 else '30s' }}",
        "prometheus_extra_scrape_configs": [
            {"job_name": HOST, "scrape_interval": "{{ '1m' if ansible_facts['domain'] == 'corp.net' else '2m' }}"}
        ],
        "prometheus_alert_thresholds": {
            "high_memory_usage": {
                "warning_bytes": "{{ ansible_facts['distribution_major_version'] | int * 33554432 }}"
            },
            "high_error_rate": {"for": "{{ '5m' if ansible_facts['domain'] == 'corp.net' else '2m' }}"},
        },
        "prometheus_evaluation_interval": "{{ '15s' if ansible_facts['architecture'] == 'x86_64' else '30s' }}",
        "prometheus_rule_files": [f"/srv/rules/{HOST}/*.yml"],
    },
    "alertmanager": {
        "alertmanager_slack_username": f"Alerts of {HOST}",
        "alertmanager_slack_channels": {"info": f"#{HOST}"},
        "alertmanager_email_from": f"{HOST}@mail.test",
        "alertmanager_smtp_username": HOST,
        "alertmanager_group_wait": "{{ '5s' if ansible_facts['architecture'] == 'x86_64' else '10s' }}",
        "alertmanager_info_to": "{{ 'slack' if ansible_facts['distribution'] == 'Debian' else 'nobody' }}",
        "alertmanager_notify": "{{ ansible_facts['hostname'] != 'trial' }}",
        "alertmanager_environments": [{"name": HOST, "slack_channel": "#a"}],
        "alertmanager_teams": [{"name": "payments", "slack_channel": f"#{HOST}"}],
        "alertmanager_extra_integrations": {"critical": {"webhook_configs": [{"url": f"http://{HOST}:8080/"}]}},
        "alertmanager_extra_receivers": [{"name": HOST, "webhook_configs": [{"url": f"http://{HOST}:8080/"}]}],
        "alertmanager_extra_routes": [{"matchers": ["team = payments"], "receiver": HOST}],
        "alertmanager_extra_inhibit_rules": [{"source_matchers": [f'host = "{HOST}"'], "target_matchers": ["a = b"]}],
        "alertmanager_heartbeat_url": f"https://heartbeat.test/{HOST}",
    },
    "backend": {
        "backend_environment": HOST,
        "backend_workers": "{{ 4 if ansible_facts['architecture'] == 'x86_64' else 2 }}",
        "backend_platforms": f"{{{{ {{}} if {HOST[2:-2]} == 'trial' else {json.dumps({'facebook': PLATFORM})} }}}}",
    },
    "grafana": {
        "grafana_root_url": "https://{{ ansible_facts['fqdn'] }}/",
        "grafana_settings": {"server": {"domain": "{{ ansible_facts['fqdn'] }}"}, "auth.basic": {"enabled": HOST}},
        "grafana_users": [{"login": HOST}],
        "grafana_dashboards_extra": f"{{{{ [] if {HOST[2:-2]} == 'trial' else [] }}}}",
    },
    "heartbeat_receiver": {
        "heartbeat_receiver_expected": [{"name": HOST, "limit_seconds": 300}],
        "heartbeat_receiver_webhook_url": f"https://hooks.slack.test/{HOST}",
        "heartbeat_receiver_interval_seconds": "{{ 30 if ansible_facts['architecture'] == 'x86_64' else 60 }}",
    },
}


def pager(path: str) -> dict[str, Any]:
    """A receiver that reads its key from this file, and its route."""
    return {
        "alertmanager_extra_receivers": [{"name": "pager", "pagerduty_configs": [{"routing_key_file": path}]}],
        "alertmanager_extra_routes": [{"matchers": ["team = payments"], "receiver": "pager"}],
    }


# role, what is set, what the message must contain: the variable, and an example of what to write
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    # a wrong type
    ("prometheus", {"prometheus_port": "ninety"}, ["prometheus_port", "prometheus_port: 9090"]),
    ("prometheus", {"prometheus_scrape_jobs": "backend"}, ["prometheus_scrape_jobs"]),
    ("prometheus", {"prometheus_scrape_jobs": [{"name": "x", "targets": 5, "scheme": "gopher"}]}, ["scheme", "https"]),
    ("alertmanager", {"alertmanager_smtp_require_tls": "perhaps"}, ["alertmanager_smtp_require_tls", "true"]),
    ("backend", {"backend_traffic_rate": "fast"}, ["backend_traffic_rate", "backend_traffic_rate: 3.0"]),
    ("backend", {"backend_workers": "many"}, ["backend_workers", "backend_workers: 4"]),
    ("backend", {"backend_platforms": {"facebook": "secret"}}, ["backend_platforms.facebook"]),
    ("node_exporter", {"node_exporter_archive_sha256": "abc"}, ["node_exporter_archive_sha256", "amd64"]),
    ("cadvisor", {"cadvisor_docker_enabled": "perhaps"}, ["cadvisor_docker_enabled", "true"]),
    ("cadvisor", {"cadvisor_disabled_metrics": "disk"}, ["cadvisor_disabled_metrics"]),
    # an unknown choice
    ("prometheus", {"prometheus_install_method": "deb"}, ["prometheus_install_method", "archive", "package"]),
    ("alertmanager", {"alertmanager_install_method": "snap"}, ["alertmanager_install_method", "archive"]),
    ("node_exporter", {"node_exporter_install_method": ""}, ["node_exporter_install_method", "archive"]),
    ("backend", {"backend_log_level": "loud"}, ["backend_log_level", "info"]),
    ("backend", {"backend_platforms": {"myspace": PLATFORM}}, ["backend_platforms", "myspace"]),
    # a missing required value
    ("prometheus", {"prometheus_scrape_jobs": [{"name": "x"}]}, ["prometheus_scrape_jobs[0]", "targets"]),
    ("alertmanager", {"alertmanager_slack_api_url": ""}, ["alertmanager_slack_api_url", "https://hooks.slack.com"]),
    ("alertmanager", {"alertmanager_slack_channel": ""}, ["alertmanager_slack_channel", "#alerts"]),
    ("alertmanager", {"alertmanager_email_to": []}, ["alertmanager_email_to", "on-call@"]),
    ("alertmanager", {"alertmanager_email_from": ""}, ["alertmanager_email_from", "monitoring@"]),
    ("alertmanager", {"alertmanager_smtp_smarthost": ""}, ["alertmanager_smtp_smarthost", ":587"]),
    ("backend", {"backend_platforms": {"twitter": {"client_id": "x"}}}, ["backend_platforms.twitter", "client_secret"]),
    ("backend", {"backend_platforms": {"twitter": PLATFORM}}, ["backend_token_keys", "make-token-key"]),
    # a placeholder
    ("backend", {"backend_database_password": "changeme"}, ["backend_database_password", "placeholder"]),
    ("alertmanager", {"alertmanager_slack_api_url": "https://hooks.slack.com/services/XXX"}, ["placeholder"]),
    ("alertmanager", {"alertmanager_slack_api_url": "changeme"}, ["alertmanager_slack_api_url"]),
    ("alertmanager", {"alertmanager_email_to": ["you@example.com"]}, ["alertmanager_email_to"]),
    ("alertmanager", {"alertmanager_smtp_smarthost": "mail.example.com:587"}, ["alertmanager_smtp_smarthost"]),
    # nobody to tell
    (
        "alertmanager",
        {"alertmanager_slack_enabled": False, "alertmanager_email_enabled": False},
        ["alertmanager_notify: false"],
    ),
    # routes and receivers that cannot work together
    (
        "alertmanager",
        {"alertmanager_extra_receivers": [{"name": "pager", "webhook_configs": [{"url": "http://x"}]}]},
        ["alertmanager_extra_receivers", "no route names the receiver pager", "alertmanager_extra_routes: [{matchers:"],
    ),
    (
        "alertmanager",
        {"alertmanager_extra_routes": [{"matchers": ["team = x"], "receiver": "critcal"}]},
        ["alertmanager_extra_routes[0]", "critcal", "did you mean critical?"],
    ),
    (
        "alertmanager",
        {"alertmanager_extra_routes": [{"matchers": ["alertname = Watchdog"], "receiver": "critical"}]},
        ["alertmanager_extra_routes[0]", "Watchdog", "Remove the route"],
    ),
    (
        "alertmanager",
        {"alertmanager_extra_routes": [{"receiver": "critical"}]},
        ["the role's route of severity", "alertmanager_extra_routes[0] (no matchers)", "continue: true"],
    ),
    (
        "alertmanager",
        {"alertmanager_teams": [{"name": "a", "slack_channel": "#a"}, {"name": "a", "slack_channel": "#b"}]},
        ["alertmanager_teams[1]", "alertmanager_teams[0]"],
    ),
    (
        "alertmanager",
        {"alertmanager_environments": [{"name": "staging"}]},
        ["alertmanager_environments[0]", "tells nobody", "slack_channel"],
    ),
    ("alertmanager", {"alertmanager_teams": [{"slack_channel": "#a"}]}, ["alertmanager_teams[0].name"]),
    (
        "alertmanager",
        {"alertmanager_teams": [{"name": "a", "slack_channel": "Alerts"}]},
        ["slack_channel", "#payments"],
    ),
    ("alertmanager", {"alertmanager_mute_times": {"warning": ["nights"]}}, ["nights", "alertmanager_time_intervals"]),
    ("alertmanager", {"alertmanager_mute_times": {"critical": ["nights"]}}, ["alertmanager_mute_times.critical"]),
    ("alertmanager", {"alertmanager_time_intervals": [{"name": "nights"}]}, ["nothing uses nights"]),
    ("alertmanager", {"alertmanager_info_to": "mail"}, ["alertmanager_info_to", "daily_mail"]),
    (
        "alertmanager",
        {"alertmanager_info_to": "daily_mail", "alertmanager_email_enabled": False},
        ["alertmanager_email_enabled: true"],
    ),
    ("alertmanager", {"alertmanager_daily_mail_time": "8 am"}, ["alertmanager_daily_mail_time", "08:00"]),
    ("alertmanager", {"alertmanager_heartbeat_url": "https://example.com/ping"}, ["alertmanager_heartbeat_url"]),
    ("alertmanager", {"alertmanager_heartbeat_url": "ping.test"}, ["alertmanager_heartbeat_url", "https://"]),
    ("alertmanager", {"alertmanager_heartbeat_interval_seconds": 0}, ["alertmanager_heartbeat_interval_seconds: 60"]),
    # a name of nothing
    ("alertmanager", {"alertmanager_environments": [{"name": "", "slack_channel": "#a"}]}, EMPTY_ENVIRONMENT),
    ("alertmanager", {"alertmanager_environments": [{"name": " ", "slack_channel": "#a"}]}, EMPTY_ENVIRONMENT),
    (
        "alertmanager",
        {"alertmanager_teams": [{"name": "", "slack_channel": "#a"}]},
        ["alertmanager_teams[0].name", "''"],
    ),
    (
        "prometheus",
        {"prometheus_external_labels": {"environment": ""}},
        ["prometheus_external_labels.environment", "''"],
    ),
    ("prometheus", {"allin_environment": ""}, ["allin_environment is ''", "allin_environment: production"]),
    *(
        (
            "node_exporter",
            {"allin_deploy_silence_minutes": value},
            [f"silence_minutes is {said}, not a number of minutes"],
        )
        for value, said in (
            ("half an hour", '"half an hour"'),
            (-1, "-1"),
            (2000, "2000"),
            (True, "true"),
            (None, "null"),
        )
    ),
    # As it was written: 0 was shown as ''.
    *(
        ("alertmanager", {"allin_environment": value}, [f" is {said}, no text", f"environment: {right}"])
        for value, said, right in (
            (None, "null", "production"),
            (False, "false", "production"),
            ([], "[]", "production"),
            (0, "0", "'0'"),
            (5, "5", "'5'"),
            (1.5, "1.5", "'1.5'"),
        )
    ),
    ("backend", {"backend_environment": ""}, ["backend_environment: ''", "backend_environment: production"]),
    # a time zone that there is not
    (
        "alertmanager",
        {"alertmanager_daily_mail_location": "Europe/Berln"},
        ["alertmanager_daily_mail_location: 'Europe/Berln'", "Europe/Berlin"],
    ),
    ("alertmanager", {"alertmanager_daily_mail_location": "CEST"}, ["alertmanager_daily_mail_location", "time zone"]),
    (
        "alertmanager",
        {
            "alertmanager_time_intervals": [
                {"name": "nights", "time_intervals": [{"location": "UTC"}, {"location": "Berlin"}]}
            ],
            "alertmanager_mute_times": {"warning": ["nights"]},
        },
        ["alertmanager_time_intervals[0].time_intervals[1].location: 'Berlin'", "location: Europe/Berlin"],
    ),
    # an address of another form
    (
        "prometheus",
        {"prometheus_alertmanagers": ["192.0.2.9:9093", "http://192.0.2.10:9093"]},
        ["prometheus_alertmanagers[1]: 'http://192.0.2.10:9093'", "prometheus_alertmanagers: ['192.0.2.10:9093']"],
    ),
    (
        "alertmanager",
        {"alertmanager_cluster_peers": ["192.0.2.10"]},
        ["alertmanager_cluster_peers[0]: '192.0.2.10'", "['192.0.2.11:9094']"],
    ),
    *(
        (
            "prometheus",
            {"prometheus_runbook_url_base": base},
            ["prometheus_runbook_url_base", "https://git.your-company.com"],
        )
        for base in (
            "",
            "/docs/runbooks",
            "git.test/runbooks",
            "git:8080/runbooks",
            "//git.test/runbooks",
            "ftp://git.test",
        )
    ),
    (
        "prometheus",
        {"prometheus_dashboard_url_base": "grafana.test"},
        ["prometheus_dashboard_url_base: 'grafana.test'", "https://grafana.your-company.com"],
    ),
    ("alertmanager", {"alertmanager_external_url": "alerts.test"}, ["alertmanager_external_url", "https://alerts"]),
    ("grafana", {"grafana_root_url": "grafana.test"}, ["grafana_root_url", "https://grafana.your-company.com"]),
    ("grafana", {"grafana_prometheus_url": ""}, ["grafana_prometheus_url: ''", "http://192.0.2.21:9090"]),
    (
        "grafana",
        {"grafana_alertmanager_url": "192.0.2.21:9093"},
        ["grafana_alertmanager_url", "http://192.0.2.21:9093"],
    ),
    (
        "grafana",
        {"grafana_oidc": OIDC | {"roles": {"Admin": ["ops"]}, "signout_redirect_url": "id.test"}},
        ["grafana_oidc.signout_redirect_url: 'id.test'", "https://id.example.com"],
    ),
    # the addresses of inventories/production, left as they are: links in messages that lead nowhere
    *(
        (role, {name: value}, [f"{name}", "documentation only", example])
        for role, name, value, example in (
            ("prometheus", "prometheus_external_url", "https://prometheus.example.com", "prometheus.your-company.com"),
            ("prometheus", "prometheus_runbook_url_base", "https://git.example.com/docs", "git.your-company.com"),
            ("prometheus", "prometheus_dashboard_url_base", "https://grafana.example.com", "grafana.your-company.com"),
            ("alertmanager", "alertmanager_external_url", "https://alerts.example.com", "alerts.your-company.com"),
            ("grafana", "grafana_root_url", "https://grafana.example.com", "grafana.your-company.com"),
            ("backend", "backend_oauth_redirect_url", "https://app.example.com/oauth/callback", "app.your-company.com"),
            ("backend", "backend_cache_url", "redis://cache.example.com:6379/0", "redis://"),
            ("backend", "backend_database_url", "postgresql+asyncpg://allin@db.example.com/allin", "postgresql"),
            ("backend", "backend_trusted_proxies", ["192.0.2.5"], "127.0.0.1"),
        )
    ),
    # secrets that would be shown, and secrets that are not there
    (
        "alertmanager",
        {"alertmanager_extra_integrations": {"critical": {"pagerduty_configs": [{"routing_key": "SECRET"}]}}},
        [
            "alertmanager_extra_integrations.critical.pagerduty_configs[0].routing_key",
            "routing_key_file: /etc/alertman",
        ],
    ),
    (
        "alertmanager",
        {"alertmanager_extra_secrets": {"pager": "SECRET"}} | pager("/etc/alertmanager-secrets/pagr"),
        ["routing_key_file: nothing writes /etc/alertmanager-secrets/pagr", "did you mean pager?"],
    ),
    ("alertmanager", {"alertmanager_extra_secrets": {"smtp_password": "SECRET"}}, ["alertmanager_smtp_password"]),
    ("alertmanager", {"alertmanager_smtp_username": "monitoring"}, ["alertmanager_smtp_password from a vault"]),
    ("alertmanager", {"alertmanager_extra_inhibit_rules": [{"source_matcher": []}]}, ["did you mean source_matchers?"]),
    (
        "heartbeat_receiver",
        {
            "heartbeat_receiver_mail_to": ["on-call@mail.test"],
            "heartbeat_receiver_mail_from": "heartbeat@mail.test",
            "heartbeat_receiver_smtp_smarthost": "mail.test:465",
            "heartbeat_receiver_smtp_username": "heartbeat",
        },
        ["heartbeat_receiver_smtp_password from a vault"],
    ),
    # heartbeats that nobody could tell apart, or that one late call would make missing
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_expected": [{"name": "a", "limit_seconds": n} for n in (300, 300)]},
        ["heartbeat_receiver_expected has a twice", "one entry"],
    ),
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_expected": [{"name": "a", "limit_seconds": 119}]},
        ["heartbeat_receiver_expected: a has limit_seconds: 119", "every 60 s", "limit_seconds: 120"],
    ),
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_interval_seconds": 200},
        ["heartbeat_receiver_expected: allin has limit_seconds: 300", "every 200 s", "limit_seconds: 400"],
    ),
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_expected": [{"name": "a", "limit_seconds": 90, "interval_seconds": 50}]},
        ["heartbeat_receiver_expected: a has limit_seconds: 90", "every 50 s", "limit_seconds: 100"],
    ),
    ("heartbeat_receiver", {"heartbeat_receiver_interval_seconds": 0}, ["heartbeat_receiver_interval_seconds: 60"]),
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_expected": [{"name": "a", "limit_seconds": 90, "interval_seconds": 0}]},
        ["heartbeat_receiver_expected[0].interval_seconds: 0", "interval_seconds: 60"],
    ),
    # a scrape that may take longer than until the next one
    (
        "prometheus",
        {"prometheus_scrape_interval": "5s"},
        ["prometheus_scrape_timeout: '10s' is longer than prometheus_scrape_interval, '5s'", "scrape_timeout: 5s"],
    ),
    (
        "prometheus",
        {"prometheus_scrape_jobs": [{"name": "x", "targets": [], "scrape_interval": "1m", "scrape_timeout": "61s"}]},
        ["prometheus_scrape_jobs[0].scrape_timeout: '61s' is longer than scrape_interval, '1m'"],
    ),
    (
        "prometheus",
        {"prometheus_scrape_jobs": [{"name": "x", "targets": [], "scrape_timeout": "20s"}]},
        ["prometheus_scrape_jobs[0].scrape_timeout: '20s' is longer than prometheus_scrape_interval, '15s'"],
    ),
    (
        "prometheus",
        {"prometheus_extra_scrape_configs": [{"job_name": "x", "scrape_interval": "5s", "scrape_timeout": "6s"}]},
        ["prometheus_extra_scrape_configs[0].scrape_timeout: '6s' is longer than scrape_interval, '5s'"],
    ),
    (
        "prometheus",
        {"prometheus_scrape_jobs": [{"name": "x", "targets": [], "scrape_interval": "often"}]},
        ["prometheus_scrape_jobs[0].scrape_interval: 'often' is not a duration"],
    ),
    # scrapes so rare that Prometheus forgets a target of which one failed
    (
        "prometheus",
        {"prometheus_scrape_interval": "3m"},
        ["prometheus_scrape_interval: '3m' is too long", "at most 2m", "prometheus_scrape_interval: 15s"],
    ),
    (
        "prometheus",
        {"prometheus_scrape_jobs": [{"name": "x", "targets": [], "scrape_interval": "150s"}]},
        ["prometheus_scrape_jobs[0].scrape_interval: '150s' is too long", "at most 2m"],
    ),
    (
        "prometheus",
        {"prometheus_extra_scrape_configs": [{"job_name": "x", "scrape_interval": 300}]},
        ["prometheus_extra_scrape_configs[0].scrape_interval: 300 is not a duration", "scrape_interval: 30s"],
    ),
    # an extra job that alerts ask for by its name
    (
        "prometheus",
        {"prometheus_extra_scrape_configs": [{"job_name": "grafana", "scrape_interval": "5m"}]},
        ["prometheus_extra_scrape_configs: the scrape_interval of the job grafana, '5m', is too long", "at most 2m"],
    ),
    # rule files that nobody would miss until they were needed
    (
        "prometheus",
        {"prometheus_rule_files": ["/nowhere/*.yml"]},
        ["prometheus_rule_files[0]", "/nowhere/*.yml", "no file"],
    ),
    ("prometheus", {"prometheus_rule_files": [f"{ROOT}/docs/*/*.yml"]}, ["prometheus_rule_files[0]", "wildcard"]),
    ("prometheus", {"prometheus_rule_files": [f"{ROOT}/docs/alerts.md"]}, ["docs/alerts.md", "does not end in .yml"]),
    # a bad duration
    ("prometheus", {"prometheus_retention_time": "15 days"}, ["prometheus_retention_time", "30d"]),
    ("prometheus", {"prometheus_scrape_interval": "15"}, ["prometheus_scrape_interval", "15s"]),
    ("prometheus", {"prometheus_evaluation_interval": "0s"}, ["prometheus_evaluation_interval", "15s"]),
    ("alertmanager", {"alertmanager_group_wait": "soon"}, ["alertmanager_group_wait", "30s"]),
    ("alertmanager", {"alertmanager_repeat_interval": "-1h"}, ["alertmanager_repeat_interval", "12h"]),
    ("cadvisor", {"cadvisor_housekeeping_interval": "often"}, ["cadvisor_housekeeping_interval", "10s"]),
    ("cadvisor", {"cadvisor_cgroup_prefixes": ["system.slice"]}, ["cadvisor_cgroup_prefixes", "/system.slice/"]),
    # a bad size
    ("prometheus", {"prometheus_retention_size": "10 gigabytes"}, ["prometheus_retention_size", "10GB"]),
    # a port out of range
    ("prometheus", {"prometheus_port": 70000}, ["prometheus_port", "65535", "prometheus_port: 9090"]),
    ("alertmanager", {"alertmanager_port": 0}, ["alertmanager_port", "alertmanager_port: 9093"]),
    ("alertmanager", {"alertmanager_cluster_port": 99999}, ["alertmanager_cluster_port", "9094"]),
    ("node_exporter", {"node_exporter_port": -1}, ["node_exporter_port", "node_exporter_port: 9100"]),
    ("cadvisor", {"cadvisor_port": 0}, ["cadvisor_port", "cadvisor_port: 8080"]),
    ("backend", {"backend_port": 65536}, ["backend_port", "backend_port: 7000"]),
    ("backend", {"backend_workers": 0}, ["backend_workers", "above 0"]),
    ("backend", {"backend_traffic_people": 0}, ["backend_traffic_people", "above 0"]),
    ("backend", {"backend_traffic_shape": "round"}, ["backend_traffic_shape", "daily", "flat"]),
    # what is for trying out, where people depend on it
    ("backend", {"backend_environment": "production", "backend_traffic_enabled": True}, ["backend_traffic_enabled"]),
    ("backend", {"backend_environment": "prod-eu", "backend_simulator_enabled": True}, ["backend_simulator_enabled"]),
    ("backend", {"backend_environment": "production", "backend_faults_enabled": True}, ["backend_faults_enabled"]),
    ("backend", {"backend_metrics_port_base": 65530, "backend_workers": 9}, ["backend_metrics_port_base", "65539"]),
    ("backend", {"backend_metrics_port_base": 6998, "backend_workers": 2}, ["backend_metrics_port_base", "7000"]),
    ("backend", {"backend_simulator_port": 0}, ["backend_simulator_port", "backend_simulator_port: 7080"]),
    # a secret that cannot be one
    ("backend", {"backend_token_keys": ["SECRET-too-short"]}, ["backend_token_keys[0]", "make-token-key"]),
    ("backend", {"backend_database_password": "SECRET\nline"}, ["backend_database_password", "one line"]),
    ("backend", {"backend_cache_url": "cache.test:6379"}, ["backend_cache_url", "redis://"]),
    # an address with a port, a relative path, a label that Prometheus cannot have
    ("node_exporter", {"node_exporter_listen_address": "0.0.0.0:9100"}, ["node_exporter_listen_address"]),
    ("prometheus", {"prometheus_data_dir": "data"}, ["prometheus_data_dir", "/var/lib/prometheus/data"]),
    ("prometheus", {"prometheus_external_labels": {"my-label": "x"}}, ["prometheus_external_labels", "my-label"]),
    ("prometheus", {"prometheus_external_url": "prometheus.test"}, ["prometheus_external_url", "https://"]),
    # Grafana: passwords that are none, and what contradicts itself
    ("grafana", {"grafana_admin_password": ""}, ["grafana_admin_password", "correct-horse"]),
    ("grafana", {"grafana_admin_password": "admin"}, ["grafana_admin_password", "at least 12"]),
    ("grafana", {"grafana_admin_password": "SECRET-shor"}, ["grafana_admin_password", "at least 12"]),
    ("grafana", {"grafana_secret_key": "SW2YcwTIb9zpOOhoPsMm"}, ["grafana_secret_key", "everybody knows"]),
    ("grafana", {"grafana_secret_key": "changeme-changeme"}, ["grafana_secret_key", "placeholder"]),
    ("grafana", {"grafana_users": [{"login": "anna", "password": "SECRET"}]}, ["grafana_users[0].password"]),
    ("grafana", {"grafana_users": [{"login": "anna", "role": "Boss"}]}, ["grafana_users[0].role", "Editor"]),
    ("grafana", {"grafana_users": [{"login": "Admin"}]}, ["grafana_admin_password"]),
    ("grafana", {"grafana_users": [{"login": "anna"}, {"login": "Anna"}]}, ["grafana_users", "twice"]),
    ("grafana", {"grafana_port": 0}, ["grafana_port: 3001"]),
    ("grafana", {"grafana_database": {"type": "oracle"}}, ["grafana_database.type", "postgres"]),
    ("grafana", {"grafana_database": {"type": "postgres", "host": "db.test:5432"}}, ["grafana_database", "password"]),
    ("grafana", {"grafana_access_host": "nowhere"}, ["grafana_access_host", "nowhere", "share the database"]),
    ("grafana", {"grafana_tls_certificate_file": "/etc/ssl/grafana.pem"}, ["grafana_tls_key_file"]),
    (
        "grafana",
        {
            "grafana_tls_certificate_file": "/etc/ssl/grafana.pem",
            "grafana_tls_key_file": "/etc/ssl/grafana.key",
            "grafana_root_url": "http://grafana.corp.net/",
        },
        ["grafana_root_url: https://grafana.corp.net/"],
    ),
    ("grafana", {"grafana_oidc": {"client_id": "grafana"}}, ["grafana_oidc", "auth_url"]),
    ("grafana", {"grafana_oidc": OIDC}, ["grafana_oidc", "default_role: Viewer"]),
    ("grafana", {"grafana_oidc": OIDC | {"roles": {"Boss": ["x"]}}}, ["grafana_oidc", "GrafanaAdmin"]),
    ("grafana", {"grafana_ldap": {"host": "ldap.test"}}, ["grafana_ldap", "group_mappings"]),
    (
        "grafana",
        {"grafana_folders": [{"uid": "x", "permissions": [{"team": "payments", "permission": "edit"}]}]},
        ["grafana_folders", "payments", "grafana_teams"],
    ),
    (
        "grafana",
        {"grafana_folders": [{"uid": "x", "permissions": [{"role": "Viewer", "permission": "see"}]}]},
        ["grafana_folders[0].permissions[0].permission", "view"],
    ),
    (
        "grafana",
        {"grafana_dashboards_extra": [{"uid": "x", "title": "X", "path": "/nonexistent"}]},
        ["/nonexistent", "grafana_dashboards_extra"],
    ),
    ("grafana", {"grafana_settings": {"server": {"domain": ["x"]}}}, ["grafana_settings", "server.domain"]),
    # Grafana: settings that keep the role itself out
    ("grafana", {"grafana_settings": {"auth.basic": {"enabled": False}}}, ["auth.basic", "disable_login_form: true"]),
    ("grafana", {"grafana_settings": {"auth.basic": {"enabled": "No"}}}, ["auth.basic", "disable_login_form: true"]),
    ("grafana", {"grafana_settings": {"auth": {"disable_login": True}}}, ["disable_login,", "disable_login_form"]),
    (
        "grafana",
        {"grafana_settings": {"security": {"disable_initial_admin_creation": True}}},
        ["disable_initial_admin_creation", "disable_login_form: true"],
    ),
    (
        "grafana",
        {
            "grafana_settings": {"auth": {"disable_login_form": True}},
            "grafana_users": [{"login": "anna", "password": "SECRET-password"}],
        },
        ["disable_login_form", "grafana_users", "update_password: on_create"],
    ),
    # Grafana: settings for which the role has a variable, which it goes by
    *(
        ("grafana", {"grafana_settings": {section: {key: value}}}, [f"{section}.{key}", f"Write {variable}"])
        for section, key, value, variable in (
            ("database", "host", "db.test:5432", "grafana_database: {type: postgres"),
            ("database", "type", "postgres", "grafana_database: {type: postgres"),
            ("database", "url", "postgres://grafana:SECRET@db.test/grafana", "grafana_database: {type: postgres"),
            ("server", "http_port", 3002, "grafana_port:"),
            ("server", "http_port", None, "grafana_port:"),
            ("server", "http_addr", "", "grafana_listen_address:"),
            ("server", "protocol", "https", "grafana_tls_certificate and grafana_tls_key"),
            ("server", "protocol", "h2", "grafana_tls_certificate and grafana_tls_key"),
            ("server", "cert_file", "/etc/ssl/grafana.pem", "grafana_tls_certificate_file:"),
            ("server", "root_url", "https://grafana.test/x/", "grafana_root_url:"),
            ("server", "serve_from_sub_path", True, "grafana_root_url:"),
            ("paths", "data", "/srv/grafana", "grafana_data_dir:"),
            ("paths", "provisioning", "/srv/provisioning", "grafana_config_dir:"),
            ("security", "admin_user", "root", "grafana_admin_user:"),
            ("security", "admin_password", "SECRET-password", "grafana_admin_password:"),
            ("security", "secret_key", "SECRET-key", "grafana_secret_key:"),
        )
    ),
    # Grafana: metrics that Prometheus could not scrape
    ("grafana", {"grafana_settings": {"metrics": {"enabled": False}}}, ["metrics.enabled", "GrafanaDown", "Leave"]),
    ("grafana", {"grafana_settings": {"metrics": {"enabled": "off"}}}, ["metrics.enabled", "GrafanaDown", "Leave"]),
    (
        "grafana",
        {"grafana_settings": {"metrics": {"basic_auth_username": "x", "basic_auth_password": "SECRET-metrics"}}},
        ["metrics.basic_auth_username", "GrafanaDown", "Leave them out", "reverse proxy"],
    ),
    # Grafana: what would be refused half-way, or mean something else
    ("grafana", {"grafana_oidc": OIDC | {"roles": {"Admin": "ops"}}}, ["grafana_oidc.roles.Admin", "is not a list"]),
    ("grafana", {"grafana_teams": [{"name": "a"}, {"name": "a"}]}, ["grafana_teams has a twice", "members"]),
    (
        "grafana",
        {"grafana_folders": [{"uid": "x", "title": "X"}, {"uid": "x", "title": "Y"}]},
        ["grafana_folders has the uid x twice", "one entry"],
    ),
    (
        "grafana",
        {"grafana_folders": [{"uid": "x", "title": "X", "permissions": [{"permission": "view"}]}]},
        ["grafana_folders: x has a permission that is nobody's", "{role: Viewer, permission: view}"],
    ),
    (
        "grafana",
        {
            "grafana_folders": [
                {
                    "uid": "x",
                    "title": "X",
                    "permissions": [{"role": "Viewer", "permission": "view"}, {"role": "Viewer", "permission": "edit"}],
                }
            ]
        },
        ["grafana_folders: x has two permissions for the role Viewer", "permissions: [{role: Viewer"],
    ),
    ("grafana", {"grafana_folders": [{"uid": "x.y", "title": "X"}]}, ["grafana_folders[0].uid", "letters, digits"]),
    ("grafana", {"grafana_folders": [{"uid": "general"}]}, ["grafana_folders[0].uid", "Grafana's own"]),
    (
        "grafana",
        {"grafana_folders": [{"uid": "allin-platfrom"}]},
        ["grafana_folders", "allin-platfrom", "title: "],
    ),
    ("grafana", {"grafana_service_accounts": [{"name": "a.b"}]}, ["grafana_service_accounts[0].name", "name: deploy"]),
    (
        "grafana",
        {"grafana_service_accounts": [{"name": "a", "tokens": [{"name": "../b"}]}]},
        ["grafana_service_accounts[0].tokens[0].name", "name: ci"],
    ),
    ("grafana", {"grafana_service_accounts": [{"name": "a"}, {"name": "a"}]}, ["grafana_service_accounts has a twice"]),
    (
        "grafana",
        {"grafana_service_accounts": [{"name": "a", "tokens": [{"name": "b"}, {"name": "b"}]}]},
        ["grafana_service_accounts has a.b twice"],
    ),
    (
        "grafana",
        {"grafana_users": [{"login": "anna", "email": "a@mail.test"}, {"login": "otto", "email": "A@Mail.test"}]},
        ["grafana_users gives a@mail.test to two people"],
    ),
    ("grafana", {"grafana_extra_secrets": {"admin-password": "SECRET"}}, ["grafana_extra_secrets", "admin-password"]),
    ("grafana", {"grafana_extra_secrets": {"../smtp": "SECRET"}}, ["grafana_extra_secrets", "../smtp", "{smtp: ...}"]),
    ("grafana", {"grafana_extra_secrets": {"smtp": 5}}, ["grafana_extra_secrets", "smtp", "in quotes"]),
    (
        "grafana",
        {"grafana_dashboards_extra": [{"uid": "platform", "title": "X", "path": str(ROOT / "dashboards")}]},
        ["grafana_dashboards_extra", "platform", "uid: payments"],
    ),
    (
        "grafana",
        {"grafana_dashboards_extra": [{"uid": "allin-platform", "title": "X", "path": str(ROOT / "dashboards")}]},
        ["grafana_dashboards_extra", "allin-platform", "uid: payments"],
    ),
    (
        "grafana",
        {"grafana_dashboards_extra": [{"uid": "../x", "title": "X", "path": str(ROOT / "dashboards")}]},
        ["grafana_dashboards_extra[0].uid", "uid: payments"],
    ),
    (
        "grafana",
        {"grafana_dashboards_imported": [{"id": 1, "revision": n, "sha256": "0" * 64} for n in (1, 2)]},
        ["grafana_dashboards_imported has the id 1 twice"],
    ),
    ("grafana", {"grafana_tls_certificate": "SECRET", "grafana_tls_key": KEY}, ["grafana_tls_certificate", "PEM"]),
    ("grafana", {"grafana_tls_certificate": CERTIFICATE, "grafana_tls_key": "SECRET"}, ["grafana_tls_key", "PEM"]),
    (
        "grafana",
        {"grafana_tls_certificate": CERTIFICATE, "grafana_tls_key": STRANGER},
        ["grafana_tls_key is not the key of grafana_tls_certificate"],
    ),
    (
        "grafana",
        {"grafana_datasources_extra": [{"name": "Logs", "secureJsonData": {"token": "SECRET"}}]},
        ["grafana_datasources_extra: Logs has secureJsonData.token", "$__file{/etc/grafana-secrets/logs-password}"],
    ),
    (
        "grafana",
        {"grafana_datasources_extra": [{"name": "Logs", "basicAuthPassword": "SECRET"}]},
        ["grafana_datasources_extra: Logs has basicAuthPassword", "secureJsonData: {"],
    ),
    (
        "grafana",
        {
            "grafana_datasources_extra": [{"name": "L", "secureJsonData": {"x": "$__file{/etc/grafana-secrets/logs}"}}],
            "grafana_extra_secrets": {"logs": "SECRET$ecret"},
        },
        ["grafana_extra_secrets: logs has a $", "grafana_datasources_extra"],
    ),
    # a misspelled variable, and a template that refers to nothing
    ("prometheus", {"prometheus_retention_tme": "30d"}, ["prometheus_retention_tme", "prometheus_retention_time"]),
    ("alertmanager", {"alertmanager_slack_chanel": "#x"}, ["alertmanager_slack_chanel", "alertmanager_slack_channel"]),
    ("alertmanager", {"alertmanager_smtp_password": "{{ vault_nowhere }}"}, ["alertmanager_smtp_password"]),
    # a threshold of the wrong kind
    (
        "prometheus",
        {"prometheus_alert_thresholds": {"high_error_rate": {"ratio": "many"}}},
        ["prometheus_alert_thresholds.high_error_rate.ratio"],
    ),
    (
        "prometheus",
        {"prometheus_alert_thresholds": {"high_eror_rate": {"ratio": 0.1}}},
        ["high_eror_rate", "high_error_rate"],
    ),
    # thresholds that promtool would take, of which the alert would fire always, never or by chance
    *(
        (
            "prometheus",
            {"prometheus_alert_thresholds": {alert: {key: value}}, **settings},
            [f"prometheus_alert_thresholds.{alert}.{key}: {shown}", *words],
        )
        for alert, key, value, shown, words, settings in (
            ("high_error_rate", "ratio", 5, "5", ["between 0 and 1", "{high_error_rate: {ratio: 0.05}}"], {}),
            ("high_error_rate", "ratio", 0, "0", ["between 0 and 1"], {}),
            ("host_memory_low", "warning_ratio", 1.0, "1.0", ["between 0 and 1", "{warning_ratio: 0.1}"], {}),
            ("social_quota_used", "ratio", 90, "90", ["between 0 and 1"], {}),
            ("database_pool_exhausted", "ratio", 90, "90", ["at most 1", "{ratio: 0.9}"], {}),
            ("high_cpu_usage", "ratio", 0, "0", ["above 0", "{high_cpu_usage: {ratio: 0.85}}"], {}),
            ("latency_budget_burn", "objective", 95, "95", ["between 0 and 1", "{objective: 0.95}"], {}),
            ("high_error_rate", "for", "2", "'2'", ["is not a duration", "{high_error_rate: {for: 2m}}"], {}),
            ("database_errors", "warning_for", "-5m", "'-5m'", ["is not a duration", "{warning_for: 5m}"], {}),
            ("inventory_target_missing", "for", 2, "2", ["is not a duration", "{for: 30s}"], {}),
            ("high_error_rate", "window", "5", "'5'", ["is not a duration", "{window: 5m}"], {}),
            ("high_error_rate", "window", "0s", "'0s'", ["is zero", "{window: 5m}"], {}),
            ("high_error_rate", "window", "30s", "'30s'", ["at least 1m", "{high_error_rate: {window: 5m}}"], {}),
            (
                *("availability_budget_burn", "slow_page_short_window", "3m", "'3m'"),
                *(["at least 4m", "prometheus_scrape_interval (1m)"], {"prometheus_scrape_interval": "1m"}),
            ),
            # One failed scrape would fire; and where gauges are carried over a gap, the last sample of what is gone.
            ("backend_down", "for", "14s", "'14s'", ["one failed scrape", "at least 15s", "{for: 15s}"], {}),
            (
                *("high_event_loop_lag", "for", "2m", "'2m'"),
                *(
                    ["at least 150s", "prometheus_scrape_interval (30s)", "{for: 150s}"],
                    {"prometheus_scrape_interval": "30s"},
                ),
            ),
            (
                *("target_down", "for", "30s", "'30s'", ["at least 1m", "the scrape_interval of the job x (1m)"]),
                {"prometheus_scrape_jobs": [{"name": "x", "targets": [], "scrape_interval": "1m"}]},
            ),
            (
                *("host_oom_kill", "window", "1m", "'1m'"),
                ["at least 8m", "the scrape_interval of the job node (2m)", "{host_oom_kill: {window: 10m}}"],
                {"prometheus_scrape_jobs": [{"name": "node", "targets": [], "scrape_interval": "2m"}]},
            ),
            (
                *("target_down", "for", "1m", "'1m'"),
                ["at least 4m", "the scrape_interval of the job x in prometheus_extra_scrape_configs (4m)"],
                {"prometheus_extra_scrape_configs": [{"job_name": "x", "scrape_interval": "4m"}]},
            ),
            ("latency_budget_burn", "fast_page_burn", 0, "0", ["above 0", "{fast_page_burn: 14.4}"], {}),
            ("slow_response_time", "warning_seconds", -1, "-1", ["above 0", "{warning_seconds: 0.5}"], {}),
            ("host_oom_kill", "kills", -1, "-1", ["is not a number of 0 or more", "{host_oom_kill: {kills: 0}}"], {}),
            ("high_error_rate", "minimum_errors", -1, "-1", ["0 or more", "{minimum_errors: 5}"], {}),
            ("high_error_rate", "ratio", None, "null", ["{high_error_rate: {ratio: 0.05}}"], {}),
            ("inventory_target_missing", "for", None, "null", ["{inventory_target_missing: {for: 15s}}"], {}),
        )
    ),
    (
        "prometheus",
        {"prometheus_alert_thresholds": {"high_error_rate": None}},
        ["prometheus_alert_thresholds.high_error_rate: null", "{high_error_rate: {window: 5m, ratio: 0.05"],
    ),
    ("prometheus", {"prometheus_alert_thresholds": None}, ["prometheus_alert_thresholds: null", "thresholds: {}"]),
    # Prometheus would take a minute for it, which the alerts do not know.
    ("prometheus", {"prometheus_scrape_interval": None}, ["prometheus_scrape_interval: null", "scrape_interval: 15s"]),
    ("prometheus", {"prometheus_scrape_jobs": None}, ["prometheus_scrape_jobs: null", "prometheus_scrape_jobs: []"]),
    # YAML's numbers, truth and nothing, where a name is asked for
    *(
        ("backend", {"backend_environment": value}, [f"backend_environment: {said}", "backend_environment: production"])
        for value, said in (
            (1.5, "1.5 is not a text to YAML; put it in quotes"),
            (True, "true is not a text to YAML; put it in quotes"),
            (None, "required, and not set"),
            ({"ALLIN_PORT": 5}, '{"ALLIN_PORT": 5} is a mapping, not a text'),
        )
    ),
    # a text, as -e alertmanager_notify=false gives: everything went out, since it is not empty
    *(
        (role, {name: text}, [f"{name}: '{text}' is a text, which may count as true", f"{name}: false"])
        for (role, name), text in zip(SWITCHES, cycle(("false", "no", "False", "off", "0")), strict=False)
    ),
    # The plays that deploy would not have it either.
    (
        "prometheus",
        {
            "prometheus_alert_thresholds": {
                "high_memory_usage": {"warning_bytes": "{{ ansible_facts['memtotal_mb'] * 524288 }}"}
            }
        },
        ["prometheus_alert_thresholds: needs the fact memtotal_mb, which the playbooks do not gather", "host_vars"],
    ),
    # What needs no facts is refused though something beside it does.
    (
        "alertmanager",
        {"alertmanager_slack_username": HOST, **pager("/etc/alertmanager-secrets/nobody-wrote-it")},
        ["/etc/alertmanager-secrets/nobody-wrote-it", "alertmanager_extra_secrets"],
    ),
    (
        "grafana",
        {"grafana_root_url": f"https://{HOST}/", "grafana_settings": {"auth.basic": {"enabled": False}}},
        ["grafana_settings switches off auth.basic"],
    ),
    # a list of which every entry was commented out
    ("prometheus", {"prometheus_extra_scrape_configs": None}, ["prometheus_extra_scrape_configs: null", "configs: []"]),
    *(
        ("alertmanager", {name: None}, [f"{name}: null", f"{name}: {empty}"])
        for name, empty in (
            ("alertmanager_extra_integrations", "{}"),
            ("alertmanager_extra_receivers", "[]"),
            ("alertmanager_extra_routes", "[]"),
            ("alertmanager_extra_secrets", "{}"),
            ("alertmanager_environments", "[]"),
            ("alertmanager_teams", "[]"),
            ("alertmanager_time_intervals", "[]"),
            ("alertmanager_mute_times", "{}"),
        )
    ),
    ("grafana", {"grafana_users": None}, ["grafana_users: null", "grafana_users: []"]),
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_expected": None},
        ["heartbeat_receiver_expected: null", "[{name: production, limit_seconds: 300}], or delete the line"],
    ),
    (
        "heartbeat_receiver",
        {"heartbeat_receiver_expected": []},
        ["heartbeat_receiver_expected: [] has no entry", "expected: [{name: production, limit_seconds: 300}]"],
    ),
    (
        "alertmanager",
        {"alertmanager_email_to": None},
        ["alertmanager_email_to: null", "commented out. Write for example: alertmanager_email_to: [on-call@"],
    ),
]

SECRETS = ("hooks.slack.com/services/XXX", "SECRET")


def inventory() -> dict[str, Any]:
    """One host for each row, in the group that its role's play takes; one good host for each role."""
    groups: dict[str, Any] = {}
    for number, (role, settings, _) in enumerate(CASES):
        groups.setdefault(role, {"hosts": {}})["hosts"][f"case{number}"] = settings
    for role, group in groups.items():
        group["hosts"][f"good-{role}"] = FITTING.get(role, {})
        for kind, settings_of in (("facts", FROM_FACTS), ("nulls", NULLS)):
            if role in settings_of:
                group["hosts"][f"{kind}-{role}"] = settings_of[role]
    wanted = {"ansible_host": "192.0.2.99", "ansible_ssh_common_args": "-oConnectTimeout=1"}
    return {"all": {"vars": GOOD | wanted, "children": groups}}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the run said of each host that it refused."""
    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory()))
    # All but the search for archives, which comes after them.
    plays = [play for play in yaml.safe_load((ROOT / "playbooks/preflight.yml").read_text()) if "hosts" in play]
    beyond = {"name": "Beyond", "hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {}}]}
    (folder / "preflight.yml").write_text(yaml.safe_dump([*plays, beyond]))
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.timer",
    }
    run = subprocess.run(
        ["ansible-playbook", "--inventory", str(folder / "hosts.yml"), str(folder / "preflight.yml")],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2, run.stdout + run.stderr
    report, _ = json.JSONDecoder().raw_decode(run.stdout)  # the play's own time follows
    said: dict[str, str] = {}
    *checks, verdict = report["plays"]
    assert verdict["play"]["name"] == plays[-1]["name"], "what one role refuses must stop the run for all hosts"
    (last,) = verdict["tasks"][-1]["hosts"].values()
    assert {role for role, _, _ in CASES} <= set(last["msg"].partition("above: ")[2].partition(".")[0].split(", "))
    for play in checks:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                assert not result.get("unreachable"), f"{host} was reached for, to check a setting"
                assert not result.get("changed")
                if result.get("failed"):
                    said[host] = str(result["msg"])
    return said


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{CASES[n][0]}-{'-'.join(CASES[n][1])}")
def test_a_bad_setting_is_refused_by_name(answers: dict[str, str], number: int) -> None:
    role, settings, wanted = CASES[number]
    assert f"case{number}" in answers, f"{role} accepts {settings}"
    message = answers[f"case{number}"]
    for text in wanted:
        assert text in message
    for secret in SECRETS:
        assert secret not in message


@pytest.mark.parametrize("role", sorted({role for role, _, _ in CASES}))
def test_good_settings_are_accepted(answers: dict[str, str], role: str) -> None:
    """Prevents: a check that refuses everything."""
    assert f"good-{role}" not in answers


@pytest.mark.parametrize("role", sorted(NULLS))
def test_null_says_that_there_is_none(answers: dict[str, str], role: str) -> None:
    assert answers.get(f"nulls-{role}") is None


@pytest.mark.parametrize("role", sorted(FROM_FACTS))
def test_what_comes_from_facts_is_left_to_the_host(answers: dict[str, str], role: str) -> None:
    """Prevents: a value by the host's memory, say, that no run gets past the checks with."""
    assert answers.get(f"facts-{role}") is None


def test_what_comes_from_facts_is_looked_at_on_the_host(tmp_path: Path) -> None:
    """Prevents: settings that no check looks at, before nor after the host has told its facts."""
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.set_fact": {"hostname": "monitor1", "architecture": "x86_64", "cacheable": True}},
            {"ansible.builtin.import_role": {"name": "alertmanager", "tasks_from": "check"}},
            {"ansible.builtin.import_role": {"name": "grafana", "tasks_from": "check"}},
        ],
    }
    muted = {"alertmanager_time_intervals": [{"name": HOST, "time_intervals": [{"location": "UTC"}]}]}
    hosts = {
        "good": {**muted, "alertmanager_mute_times": {"warning": ["monitor1"]}, "grafana_root_url": f"https://{HOST}/"},
        "unused": muted,
        "no-form": {"grafana_settings": {"auth": {"disable_login": "{{ ansible_facts['hostname'] == 'monitor1' }}"}}},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": GOOD, "hosts": hosts}}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml")]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    said = " ".join((run.stdout + run.stderr).split())
    assert "nothing uses monitor1, so it mutes nothing" in said
    assert "grafana_settings has auth.disable_login" in said
    assert "fatal: [good]" not in said


def test_notify_false_needs_no_receiver(tmp_path: Path) -> None:
    """The one way to deploy an Alertmanager that tells nobody, and the example inventory as it stands is refused."""
    settings = {"alertmanager_notify": False, "alertmanager_install_method": "package"}
    quiet = {"all": {"children": {"alertmanager": {"hosts": {"quiet": settings}}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(quiet))
    command = ["ansible-playbook", "playbooks/preflight.yml", "--inventory"]
    run = subprocess.run([*command, str(tmp_path / "hosts.yml")], cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    run = subprocess.run([*command, "inventories/production"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode != 0
    said = run.stdout + run.stderr
    # What all roles refuse, in one run.
    for name in (
        "backend_database_password",
        "prometheus_external_url",
        "alertmanager_slack_api_url",
        "grafana_root_url",
    ):
        assert f"{name}: " in said
    assert "Settings were refused, see above: alertmanager, backend, grafana, prometheus. No host was changed." in said
    assert "resolve_artifacts" not in said
    assert "Find every archive" not in said


def test_the_check_of_data_sources_refuses_a_text_for_false(tmp_path: Path) -> None:
    """It runs before the other settings of its role are known, so it looks at its switch itself."""
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_role": {"name": "verify", "tasks_from": "datasources"}}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    settings = {f"verify_grafana_{name}": "http://192.0.2.99" for name in ("url", "user", "password")}
    options = ["-e", json.dumps(settings), "-e", "verify_grafana_validate_certs=false"]
    command = ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), *options]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode != 0
    assert "verify_grafana_validate_certs: 'false' is a text" in run.stdout + run.stderr
