"""The deployed stack, seen from outside: only what a user, a browser or a receiver could see."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
from typing import Any

import pytest
from apis import Alertmanager, Prometheus, get
from client import Kind, Message, SinkClient
from conftest import HOST
from estate import run_site
from waiting import eventually

JOB = "backend-api-dev"
INSTANCE = "allin-molecule:7000"
# What the documents promise; written out here so that a changed variable is noticed.
PORTS = {"backend": 7000, "prometheus": 9090, "alertmanager": 9093, "node_exporter": 9100, "cadvisor": 8080}
JOBS = {
    "backend": JOB,
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
    "node_exporter": "node",
    "cadvisor": "cadvisor",
}


@pytest.fixture(scope="session")
def expected_targets() -> set[tuple[str, str]]:
    """Every (job, instance) that the inventory promises."""
    output = subprocess.run(
        ["ansible-inventory", "--list", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"]],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    groups = json.loads(output)
    return {(JOBS[group], f"{name}:{port}") for group, port in PORTS.items() for name in groups[group]["hosts"]}


def journal(host: Any, unit: str) -> str:
    """The last lines that a unit has logged, for failure messages."""
    return str(host.run(f"journalctl --unit {unit} --lines 20 --no-pager --output cat").stdout)


def test_a_request_becomes_a_sample(backend: str, prometheus: Prometheus) -> None:
    """Prevents: a backend that runs and a Prometheus that runs, with nothing between them."""
    counter = f'sum(allin_http_requests_total{{job="{JOB}",instance="{INSTANCE}",route="/health",status_code="200"}})'
    before = eventually(lambda: prometheus.scalar(counter), lambda _: True, within=20, what="the counter exists")
    for _ in range(3):
        get(f"{backend}/health")
    eventually(lambda: prometheus.scalar(counter), lambda value: value == before + 3, within=20, what=f"{before + 3}")


def test_a_post_is_stored_and_read_back(backend: str) -> None:
    """Prevents: a service that answers /health and has no database."""
    assert json.loads(get(f"{backend}/ready"))["status"] == "ready"


def test_the_targets_are_exactly_the_inventory(
    host: Any, prometheus: Prometheus, expected_targets: set[tuple[str, str]]
) -> None:
    """Prevents: a host that nobody watches, and a target that nobody owns."""
    wanted = dict.fromkeys(expected_targets, "up")
    eventually(
        prometheus.targets,
        lambda seen: seen == wanted,
        within=30,
        what=f"targets {wanted}",
        explain=lambda: journal(host, "prometheus"),
    )


def test_what_the_inventory_expects_is_a_metric(prometheus: Prometheus, expected_targets: set[tuple[str, str]]) -> None:
    """Prevents: an inventory whose targets nobody compares with what is scraped."""

    def expected() -> set[tuple[str, str]]:
        found = prometheus.query("allin_inventory_target")
        return {(one["metric"]["job"], one["metric"]["instance"]) for one in found}

    eventually(expected, lambda seen: seen == expected_targets, within=30, what=f"{expected_targets}")


def test_a_target_that_prometheus_lost_is_named(host: Any, prometheus: Prometheus) -> None:
    """Prevents: a blind spot. What is not scraped has no `up` that could be 0."""
    file = "/etc/prometheus/targets/node.yml"

    def missing() -> set[tuple[str, str]]:
        return {
            (one["labels"]["job"], one["labels"]["instance"])
            for one in prometheus.api("alerts")["alerts"]
            if one["labels"]["alertname"] == "InventoryTargetMissing" and one["state"] == "firing"
        }

    eventually(missing, lambda seen: seen == set(), within=30, what="every target is scraped before")
    host.check_output(f"cp --preserve {file} /root/node.yml")
    try:
        # By hand, in place: the mode stays. Prometheus notices within 5 s, and drops the series two scrapes later.
        host.check_output(f"echo '[]' > {file}")
        lost = {("node", f"{HOST}:9100")}
        eventually(missing, lambda seen: seen == lost, within=30, what=f"{lost} and nothing else")
        assert prometheus.query('up{job="node"}') == []
    finally:
        host.check_output(f"cat /root/node.yml > {file}; rm /root/node.yml")
    eventually(missing, lambda seen: seen == set(), within=30, what="it is scraped again")


def test_every_rule_is_evaluated_and_healthy(prometheus: Prometheus) -> None:
    """Prevents: rule files that are loaded and cannot be evaluated."""

    def unhealthy() -> list[str]:
        groups = prometheus.api("rules")["groups"]
        assert groups
        return [
            f"{one['name']}: {one['health']} {one.get('lastError', '')}"
            for group in groups
            for one in group["rules"]
            # A group's first turn comes some time within its interval. The 30 days' budgets have five minutes.
            if one["health"] != "ok" and not (one["health"] == "unknown" and group["interval"] > 40)
        ]

    eventually(unhealthy, lambda bad: bad == [], within=40, what="every rule healthy")
    alerts = {one["name"] for one in prometheus.rules() if one["type"] == "alerting"}
    documented = {
        "HighErrorRate",
        "SlowResponseTime",
        "HighMemoryUsage",
        "HighEventLoopLag",
        "LowCacheHitRate",
        "SlowDatabaseQueries",
    }
    assert documented | {"BackendDown", "InventoryTargetMissing", "Watchdog"} <= alerts


def test_retention_is_what_the_inventory_says(prometheus: Prometheus) -> None:
    """Prevents: a retention variable that never reaches the process."""
    flags = prometheus.api("status/flags")
    assert flags["storage.tsdb.retention.time"] in ("7d", "1w")
    assert flags["storage.tsdb.retention.size"] in ("1GB", "1GiB")
    assert flags["storage.tsdb.path"].startswith("/var/lib/prometheus")


def test_external_labels_are_set(prometheus: Prometheus) -> None:
    """Prevents: alerts of which nobody knows the environment."""
    assert "environment: dev" in prometheus.api("status/config")["yaml"]


def test_prometheus_knows_the_alertmanager(prometheus: Prometheus) -> None:
    """Prevents: alerts that fire and are sent nowhere."""

    def active() -> list[str]:
        return [one["url"] for one in prometheus.api("alertmanagers")["activeAlertmanagers"]]

    assert eventually(active, within=20, what="an active Alertmanager") == ["http://allin-molecule:9093/api/v2/alerts"]


def test_a_fault_becomes_messages_and_so_does_its_end(
    host: Any, backend: str, prometheus: Prometheus, alertmanager: Alertmanager, sinks: SinkClient
) -> None:
    """Prevents: everything that lies between a dead backend and somebody who knows it."""
    eventually(lambda: prometheus.scalar(f'up{{job="{JOB}"}}'), lambda up: up == 1, within=30, what="the backend is up")
    eventually(lambda: "BackendDown" in prometheus.firing(), lambda fires: not fires, within=60, what="no alert before")
    sinks.clear()

    def arrives(kind: Kind, status: str) -> Message:
        """The message about BackendDown, in at most 90 s."""
        return sinks.wait_for(lambda one: one.title.startswith(f"[{status}") and "BackendDown" in one.title, 90, kind)

    stopped = time.monotonic()
    host.check_output("systemctl stop allin-backend.service")
    try:
        message = arrives("slack", "FIRING")
        seconds = time.monotonic() - stopped
        letter = arrives("mail", "FIRING")
        print(
            f"\nfault to Slack message: {seconds:.1f} s, at this scenario's pace (scrape and evaluation every second)"
        )
        with pytest.raises(urllib.error.URLError):
            get(f"{backend}/health")
    finally:
        host.check_output("systemctl start allin-backend.service")
        started = time.monotonic()

    # BackendDown is about a job, whose only host is this team's.
    assert message["channel"] == "#shop"
    attachment = message["attachments"][0]
    assert message.title.startswith("[FIRING:1] BackendDown (critical)")
    assert JOB in attachment["text"]
    assert attachment["title_link"].startswith("http://127.0.0.1:9093/")
    assert letter["rcpt_to"] == ["on-call@allin.localhost"]
    assert letter.title.startswith("[FIRING:1] BackendDown (critical)")
    assert JOB in letter.text

    resolved = arrives("slack", "RESOLVED")
    print(f"recovery to resolved Slack message: {time.monotonic() - started:.1f} s")
    assert resolved["channel"] == "#shop"
    assert resolved.title.startswith("[RESOLVED] BackendDown")
    assert arrives("mail", "RESOLVED")["rcpt_to"] == ["on-call@allin.localhost"]

    def about_the_backend() -> list[str]:
        return [one["labels"]["alertname"] for one in alertmanager.api("alerts") if one["labels"].get("job") == JOB]

    eventually(about_the_backend, lambda alerts: alerts == [], within=60, what="no alert about the backend left")


def test_the_watchdog_is_heard(host: Any) -> None:
    """Prevents: a dead man's switch that is deployed and that nobody calls. That it speaks up: `make faults`."""

    def calls() -> int:
        return int(json.loads(host.check_output("curl -fsS http://127.0.0.1:8095/"))["allin"]["calls"])

    eventually(calls, within=130, what="Alertmanager calls, once a minute")


@pytest.mark.parametrize(
    ("service", "name"),
    [("alertmanager", "slack_api_url"), ("allin-backend", "token-keys"), ("allin-backend", "platforms.json")],
)
def test_secrets_are_readable_by_the_service_alone(host: Any, service: str, name: str) -> None:
    """Prevents: a webhook address, or a key, that any account on the host can read."""
    secret = host.file(f"/etc/{service}-secrets/{name}")
    assert (secret.user, secret.group, secret.mode) == ("root", service, 0o640)
    directory = host.file(f"/etc/{service}-secrets")
    assert (directory.user, directory.group, directory.mode) == ("root", service, 0o750)


def test_settings_hold_no_secret(host: Any) -> None:
    """Prevents: a key that a diff or a log shows."""
    keys = host.check_output("cat /etc/allin-backend-secrets/token-keys").split()
    settings = host.file("/etc/allin-backend/backend.env").content_string
    assert keys
    assert "client_secret" not in settings
    assert not [key for key in keys if key in settings]
    assert "/slack/" not in host.file("/etc/alertmanager/alertmanager.yml").content_string


def test_the_database_has_the_schema_of_the_release(host: Any) -> None:
    """Prevents: a deployment that forgets the migrations, or makes them as root."""
    command = "set -a; . /etc/allin-backend/backend.env; /opt/allin-backend/current/bin/allin-backend migrate --dry-run"
    assert host.check_output(f"bash -c '{command}'").endswith("nothing to do")
    database = host.file("/var/lib/allin-backend/allin.db")
    assert (database.user, database.group) == ("allin-backend", "allin-backend")


def test_the_social_platforms_are_simulated_on_the_loopback_alone(host: Any, address: str) -> None:
    """Prevents: a try-out that posts to the real platforms, and a simulator that others reach."""
    assert 'ALLIN_PLATFORMS_URL="http://127.0.0.1:7080"' in host.file("/etc/allin-backend/backend.env").content_string
    assert set(json.loads(host.check_output("curl -fsS http://127.0.0.1:7080/control/stats"))) == {
        "facebook",
        "instagram",
        "linkedin",
        "tiktok",
        "twitter",
    }
    with pytest.raises(urllib.error.URLError):
        get(f"http://{address}:7080/control/stats")


def test_faults_may_be_switched_on_here(host: Any) -> None:
    """Prevents: drills that nobody can hold, since the directory of their file went with a restart."""
    directory = host.file("/run/allin-backend")
    assert (directory.is_directory, directory.user) == (True, "allin-backend")


def test_the_distribution_s_services_do_not_run_beside_ours(host: Any) -> None:
    """Prevents: two Alertmanagers on one host, one of them with nobody's settings."""
    running = host.check_output("systemctl list-units --type service --state running --plain --no-legend")
    ours = {
        "allin-backend.service",
        "allin-simulator.service",
        "prometheus.service",
        "alertmanager.service",
        "node_exporter.service",
        "cadvisor.service",
        "heartbeat-receiver.service",
    }
    units = {line.split()[0] for line in running.splitlines()}
    assert ours <= units
    assert not [one for one in units - ours if "prometheus" in one or "alertmanager" in one]
    assert host.check_output("systemctl is-system-running") == "running"


@pytest.mark.parametrize(
    ("unit", "exposure"),
    [
        ("allin-backend", 1.5),
        ("allin-simulator", 1.5),
        ("prometheus", 1.5),
        ("alertmanager", 1.5),
        ("node_exporter", 1.9),
        ("cadvisor", 1.6),
        ("heartbeat-receiver", 1.5),
    ],
)
def test_each_unit_s_sandbox_is_as_tight_as_it_was(host: Any, unit: str, exposure: float) -> None:
    """Prevents: an exception to the sandbox that nobody decided. systemd rates 0 (nothing exposed) to 10."""
    rating = host.run(f"systemd-analyze security --no-pager --threshold={exposure * 10:.0f} {unit}.service")
    assert rating.rc == 0, rating.stdout


def test_a_run_without_change_is_quick() -> None:
    """Prevents: a deployment that people avoid because it takes a minute to say that all is well."""
    started = time.monotonic()
    run = run_site("-vvv")
    seconds = time.monotonic() - started
    assert run.code == 0, run.output[-3000:]
    assert run.changed(HOST) == 0
    calls: dict[str, int] = {}
    play = task = ""
    for line in run.output.splitlines():
        if line.startswith("PLAY ["):
            play = line.partition("[")[2].partition("]")[0]
        elif line.startswith("TASK ["):
            task = line
        elif f"<{HOST}> EXEC " in line and "Gathering Facts" not in task:
            calls[play] = calls.get(play, 0) + 1
    print(f"\nsite.yml without change: {seconds:.1f} s in all; remote calls: {calls}")
    services = ("Deploy the exporters", "Deploy cAdvisor", "Deploy Alertmanager", "Deploy Prometheus")
    assert all(0 < calls[service] <= 6 for service in services), calls
    # Beside what the others do, it looks at the secrets, the database's schema and the simulator.
    assert 0 < calls["Deploy the backend"] <= 9, calls
