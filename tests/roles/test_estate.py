"""The inventories, the wiring between the roles, and the versions that are written in two places."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.check_machine import LOCAL_PORTS

ROOT = Path(__file__).parents[2]
SERVICES = {"backend", "prometheus", "alertmanager", "node_exporter", "cadvisor", "grafana"}


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment).stdout


def hostvars(inventory: str, host: str, name: str, environment: dict[str, str] | None = None) -> Any:
    """A variable of a host as its roles would see it, templates resolved."""
    output = run(
        "ansible", host, "--inventory", inventory, "--module-name", "ansible.builtin.debug", "--args", f"var={name}",
        "--one-line", environment=environment,
    )  # fmt: skip
    return json.loads(output.partition("=>")[2])[name]


@pytest.mark.parametrize("inventory", ["inventories/local", "inventories/production"])
def test_every_group_of_the_architecture_has_hosts(inventory: str) -> None:
    groups = json.loads(run("ansible-inventory", "--inventory", inventory, "--list"))
    assert all(groups[name]["hosts"] for name in SERVICES)
    assert set(groups["allin"]["children"]) == {"application", "monitoring", "exporters"}


def test_every_host_of_production_is_watched() -> None:
    """Prevents: an example that leaves a host without an exporter."""
    groups = json.loads(run("ansible-inventory", "--inventory", "inventories/production", "--list"))
    everything = {host for name in SERVICES for host in groups[name]["hosts"]}
    assert set(groups["node_exporter"]["hosts"]) == everything
    assert set(groups["cadvisor"]["hosts"]) == everything


def test_targets_follow_the_groups() -> None:
    jobs = hostvars("inventories/production", "monitor1", "prometheus_scrape_jobs")
    assert {job["name"]: job["targets"] for job in jobs} == {
        # Two workers each (group_vars/backend), with a port each.
        "backend-api-production": ["192.0.2.11:7001", "192.0.2.11:7002", "192.0.2.12:7001", "192.0.2.12:7002"],
        "prometheus": ["192.0.2.21:9090"],
        "alertmanager": ["192.0.2.21:9093", "192.0.2.22:9093"],
        "node": ["192.0.2.11:9100", "192.0.2.12:9100", "192.0.2.21:9100", "192.0.2.22:9100"],
        "cadvisor": ["192.0.2.11:8080", "192.0.2.12:8080", "192.0.2.21:8080", "192.0.2.22:8080"],
        "grafana": ["192.0.2.21:3001"],
    }


def test_every_target_says_which_host_it_is_on() -> None:
    """Prevents: a host that is down, and a message for each service on it."""
    for inventory, viewer, hosts in (
        ("inventories/production", "monitor1", {"app1", "app2", "monitor1", "monitor2"}),
        ("inventories/local", "allin-local", {"allin-local"}),
    ):
        jobs = hostvars(inventory, viewer, "prometheus_scrape_jobs")
        labelled = {job["target_labels"][target]["host"] for job in jobs for target in job["targets"]}
        assert labelled == hosts
    assert jobs[0]["target_labels"]["allin-local:7000"] == {"host": "allin-local"}


def expected_targets(inventory: str, host: str) -> dict[str, list[str]]:
    """What the rules say must be scraped, by job."""
    return {one["job"]: one["targets"] for one in hostvars(inventory, host, "prometheus_inventory_targets")}


@pytest.mark.parametrize(
    ("inventory", "host"), [("inventories/production", "monitor1"), ("inventories/local", "allin-local")]
)
def test_the_rules_expect_exactly_what_is_scraped(inventory: str, host: str) -> None:
    """Prevents: an alert about a target that nobody owns, and a blind spot. The two are computed apart."""
    jobs = hostvars(inventory, host, "prometheus_scrape_jobs")
    assert expected_targets(inventory, host) == {job["name"]: job["targets"] for job in jobs}


def test_a_target_that_is_missing_is_on_the_same_host_as_one_that_is_scraped() -> None:
    """Prevents: a host that is down, and a further message for each of its targets that Prometheus does not know."""
    jobs = {job["name"]: job for job in hostvars("inventories/production", "monitor1", "prometheus_scrape_jobs")}
    for one in hostvars("inventories/production", "monitor1", "prometheus_inventory_targets"):
        scraped = jobs[one["job"]]
        assert one["target_labels"] == {target: scraped["target_labels"][target] for target in scraped["targets"]}


def test_a_probe_is_expected_where_the_routes_lead(tmp_path: Path) -> None:
    """Prevents: verify.yml that fails on an inventory whose environment has receivers of its own."""
    assert hostvars("inventories/production", "monitor1", "verify_integrations") == ["slack", "email"]
    estate = {"alertmanager_environments": [{"name": "production", "slack_channel": "#production"}]}
    (tmp_path / "own.yml").write_text(yaml.safe_dump(estate))
    output = run(
        "ansible", "monitor1", "--inventory", "inventories/production", "--module-name", "ansible.builtin.debug",
        "--args", "var=verify_integrations", "--one-line", "--extra-vars", f"@{tmp_path / 'own.yml'}",
    )  # fmt: skip
    assert json.loads(output.partition("=>")[2])["verify_integrations"] == ["slack"]


def test_a_target_that_is_not_scraped_is_still_expected() -> None:
    """Prevents: a check of the targets against themselves."""
    output = run(
        "ansible", "monitor1", "--inventory", "inventories/production", "--module-name", "ansible.builtin.debug",
        "--args", "var=prometheus_inventory_targets", "--one-line", "--extra-vars",
        json.dumps({"prometheus_scrape_jobs": [], "allin_backend_targets": [], "prometheus_alertmanagers": []}),
    )  # fmt: skip
    expected = json.loads(output.partition("=>")[2])["prometheus_inventory_targets"]
    assert {one["job"]: len(one["targets"]) for one in expected} == {
        "backend-api-production": 4,
        "prometheus": 1,
        "alertmanager": 2,
        "node": 4,
        "cadvisor": 4,
        "grafana": 1,
    }


def test_the_members_of_a_cluster_know_each_other_and_not_themselves() -> None:
    assert hostvars("inventories/production", "monitor1", "alertmanager_cluster_peers") == ["192.0.2.22:9094"]
    assert hostvars("inventories/production", "monitor2", "alertmanager_cluster_peers") == ["192.0.2.21:9094"]
    assert hostvars("inventories/local", "allin-local", "alertmanager_cluster_peers") == []


def test_a_group_s_order_is_the_same_in_every_run(tmp_path: Path) -> None:
    """Prevents: an Alertmanager that restarts in every other run, since its peers are listed in another order.

    Ansible's sets of groups within groups and its filter `difference` have the order of Python's hashes.
    """
    sites: dict[str, Any] = {f"site_{n}": {"hosts": {f"h{n}": {}}} for n in range(5)}
    regions = {"east": {"children": sites}, "west": {"children": {"site_5": {"hosts": {"h5": {}}}}}}
    groups = {name: {"children": dict.fromkeys(regions)} for name in sorted(SERVICES)}
    estate = {"all": {"vars": {"allin_environment": "test"}, "children": regions | groups}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(estate))
    (tmp_path / "group_vars/all").mkdir(parents=True)
    (tmp_path / "group_vars/all/wiring.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    names = (
        *("prometheus_scrape_jobs", "prometheus_inventory_targets", "prometheus_alertmanagers"),
        *("alertmanager_cluster_peers", "grafana_prometheus_url", "grafana_alertmanager_url"),
        *("verify_targets", "verify_alertmanager_hosts"),
    )
    (tmp_path / "group_vars/all/everything.yml").write_text(f"everything: '{{{{ [{', '.join(names)}] }}}}'")
    runs = [
        hostvars(str(tmp_path / "hosts.yml"), "h3", "everything", {**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2", "3")
    ]
    assert runs[0] == runs[1] == runs[2]
    assert dict(zip(names, runs[0], strict=True))["alertmanager_cluster_peers"] == [
        f"h{n}:9094" for n in (0, 1, 2, 4, 5)
    ]


def test_the_documented_names_of_the_local_estate() -> None:
    """Prevents: dashboards that filter on the documented job and find nothing."""
    jobs = hostvars("inventories/local", "allin-local", "prometheus_scrape_jobs")
    assert {job["name"]: job["targets"] for job in jobs} == {
        "backend-api-dev": ["allin-local:7000"],
        "prometheus": ["allin-local:9090"],
        "alertmanager": ["allin-local:9093"],
        "node": ["allin-local:9100"],
        "cadvisor": ["allin-local:8080"],
        "grafana": ["allin-local:3001"],
    }


def test_who_goes_without_grafana_is_not_scraped_and_not_expected(tmp_path: Path) -> None:
    """Prevents: alerts about a Grafana that the run itself has left out, and links in messages to it."""
    estate = yaml.safe_load((ROOT / "inventories/local/hosts.yml").read_text())
    estate["all"]["children"]["grafana_left_out"] = {"hosts": {"allin-local": {}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(estate))
    (tmp_path / "group_vars").symlink_to(ROOT / "inventories/local/group_vars")
    inventory = str(tmp_path / "hosts.yml")
    jobs = hostvars(inventory, "allin-local", "prometheus_scrape_jobs")
    assert next(job["targets"] for job in jobs if job["name"] == "grafana") == []
    assert expected_targets(inventory, "allin-local")["grafana"] == []
    assert hostvars(inventory, "allin-local", "prometheus_dashboard_url_base") == ""
    assert hostvars("inventories/local", "allin-local", "prometheus_dashboard_url_base") == "http://127.0.0.1:3001"


def test_grafana_asks_the_first_prometheus_and_alertmanager() -> None:
    assert hostvars("inventories/production", "monitor1", "grafana_prometheus_url") == "http://192.0.2.21:9090"
    assert hostvars("inventories/production", "monitor1", "grafana_alertmanager_url") == "http://192.0.2.21:9093"


@pytest.mark.parametrize(("general", "longest"), [(None, "2m"), ("45s", "2m"), ("150s", "150s")])
def test_panels_look_back_over_samples_of_every_job(tmp_path: Path, general: str | None, longest: str) -> None:
    """Prevents: empty panels where one job is scraped less often than the others."""
    jobs = [{"name": "node", "scrape_interval": "2m"}, {"name": "cadvisor", "scrape_interval": "90s"}, {"name": "x"}]
    settings = {"prometheus_scrape_jobs": jobs} | ({"prometheus_scrape_interval": general} if general else {})
    groups = {"prometheus": {"hosts": {"one": settings}}, "grafana": {"hosts": {"two": {}}}}
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    (tmp_path / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    assert hostvars(str(tmp_path / "hosts.yml"), "two", "grafana_scrape_interval") == longest


def test_the_heartbeat_receiver_knows_how_often_alertmanager_calls(tmp_path: Path) -> None:
    """Prevents: a limit that is checked against calls every minute, where they come every ten minutes."""
    name = "heartbeat_receiver_interval_seconds"
    assert hostvars("inventories/local", "allin-local", name) == 60
    receiver: dict[str, Any] = {"heartbeat_receiver": {"hosts": {"outside": {}}}}
    alertmanager: dict[str, Any] = {
        "alertmanager": {"hosts": {"one": {"alertmanager_heartbeat_interval_seconds": 600}}}
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    # Who watches another estate may have no Alertmanager in the inventory.
    for children, seconds in ((receiver, 60), (receiver | alertmanager, 600)):
        estate = {"all": {"vars": {"allin_environment": "test"}, "children": children}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(estate))
        assert hostvars(str(tmp_path / "hosts.yml"), "outside", name) == seconds


def test_grafana_with_tls_is_scraped_over_tls(tmp_path: Path) -> None:
    estate = {
        "all": {
            "vars": {"allin_environment": "test"},
            "children": {"grafana": {"hosts": {"one": {"grafana_tls_certificate_file": "/etc/ssl/one.pem"}}}},
        }
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(estate))
    jobs = hostvars(str(tmp_path / "hosts.yml"), "one", "prometheus_scrape_jobs")
    assert next(job["scheme"] for job in jobs if job["name"] == "grafana") == "https"


def test_the_first_host_of_a_database_sets_who_may_do_what_in_it(tmp_path: Path) -> None:
    """Prevents: two hosts that make each other's tokens invalid in every run."""
    shared = {
        "type": "postgres",
        "host": "db.test:5432",
        "name": "grafana",
        "user": "grafana",
        "password": "{{ secret }}",
    }
    hosts: dict[str, Any] = {
        "alone": {},
        "one": {"grafana_database": shared},
        "two": {"grafana_database": shared | {"user": "another"}},
        "three": {"grafana_database": shared | {"name": "other"}},
        "four": {"grafana_database": {"type": "sqlite3"}},
        "five": {"grafana_database": {"type": "sqlite3"}},
    }
    estate = {
        "all": {"vars": {"allin_environment": "test", "secret": "x"}, "children": {"grafana": {"hosts": hosts}}},
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(estate, sort_keys=False))
    found = {host: hostvars(str(tmp_path / "hosts.yml"), host, "grafana_access_host") for host in hosts}
    assert found == {host: "one" if host == "two" else host for host in hosts}


def test_each_host_has_the_targets_of_its_own_workers(tmp_path: Path) -> None:
    """Prevents: workers of one host that are looked for on another, or on the ports of another."""
    hosts: dict[str, Any] = {
        "one": {},
        "three": {"backend_workers": 3, "backend_metrics_port_base": 7100},
        "elsewhere": {"backend_port": 8000, "ansible_host": "192.0.2.9"},
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    estate = {"all": {"vars": {"allin_environment": "test"}, "children": {"backend": {"hosts": hosts}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(estate))
    jobs = hostvars(str(tmp_path / "hosts.yml"), "one", "prometheus_scrape_jobs")
    assert next(job["targets"] for job in jobs if job["name"] == "backend-api-test") == [
        "192.0.2.9:8000",
        "one:7000",
        "three:7101",
        "three:7102",
        "three:7103",
    ]
    expected = expected_targets(str(tmp_path / "hosts.yml"), "one")
    assert expected["backend-api-test"] == next(job["targets"] for job in jobs if job["name"] == "backend-api-test")


@pytest.mark.parametrize(
    ("role", "port"),
    [
        ("backend", "backend_port"),
        ("backend", "backend_metrics_port_base"),
        ("prometheus", "prometheus_port"),
        ("alertmanager", "alertmanager_port"),
        ("node_exporter", "node_exporter_port"),
        ("cadvisor", "cadvisor_port"),
        ("grafana", "grafana_port"),
    ],
)
def test_the_wiring_s_ports_are_the_roles_defaults(role: str, port: str) -> None:
    """Prevents: a role used alone that listens where the wiring does not look."""
    wiring = yaml.safe_load((ROOT / "inventories/wiring/all.yml").read_text())
    defaults = yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())
    assert wiring[port] == defaults[port]


def test_the_local_stack_knows_no_real_platform_and_makes_its_own_secrets(tmp_path: Path) -> None:
    """Prevents: a try-out that posts to the real platforms, and a key that everybody who has the repository knows."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    names = (
        "backend_platforms_url",
        "backend_platforms",
        "backend_token_keys",
        "grafana_admin_password",
        "grafana_secret_key",
    )
    first, second = (
        [hostvars("inventories/local", "allin-local", name, environment) for name in names] for _ in range(2)
    )
    assert first == second, "another run has other secrets"
    url, platforms, keys, *passwords = first
    assert [len(one) for one in passwords] == [24, 32]
    assert url == "http://127.0.0.1:7080"
    assert len({one["client_secret"] for one in platforms.values()}) == 1
    assert len(base64.urlsafe_b64decode(keys[0])) == 32
    made = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "allin-artifacts/local-secrets").iterdir()}
    assert made == dict.fromkeys(("client-secret", "token-key", "grafana-admin-password", "grafana-secret-key"), 0o600)


# Which archives of an artifacts folder are for this machine.
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
ANOTHER = {"amd64": "arm64", "arm64": "amd64"}[MACHINE]


def local_release(tmp_path: Path, role: str, *there: str) -> dict[str, Any]:
    """What the local inventory sets with these files in the artifacts folder."""
    folder = tmp_path / "allin-artifacts"
    folder.mkdir(exist_ok=True)
    for name in there:
        (folder / name).write_text("x")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    names = ["version", "archive_sha256"] + ["archive_url"] * (role == "cadvisor")
    return {name: hostvars("inventories/local", "allin-local", f"{role}_{name}", environment) for name in names}


def test_the_local_stack_takes_the_best_cadvisor_that_is_there(tmp_path: Path) -> None:
    """Prevents: a stand-in that passes for upstream's release, and upstream's release without its pin."""
    digest = hashlib.sha256(b"x").hexdigest()
    role = yaml.safe_load((ROOT / "roles/cadvisor/defaults/main.yml").read_text())
    # Nothing is there: what the role says, to be downloaded and compared with the role's pin.
    nothing = local_release(tmp_path, "cadvisor")
    url = role["cadvisor_archive_url"].strip().replace("{{ cadvisor_version }}", role["cadvisor_version"])
    assert nothing == {"version": role["cadvisor_version"], "archive_url": url, "archive_sha256": {}}
    old = local_release(
        tmp_path, "cadvisor", f"cadvisor-v0.38.7-debian11-linux-{MACHINE}", f"cadvisor-v0.57.0-linux-{ANOTHER}"
    )
    assert old["version"] == "0.38.7"
    assert old["archive_url"].endswith("/cadvisor-v0.38.7-debian11-linux-{arch}")
    assert old["archive_sha256"] == {MACHINE: digest}
    other = local_release(tmp_path, "cadvisor", f"cadvisor-v0.9.0-linux-{MACHINE}", f"cadvisor-v0.57.0-linux-{MACHINE}")
    assert other["archive_url"].endswith("/cadvisor-v0.57.0-linux-{arch}")
    assert other["archive_sha256"] == {MACHINE: digest}
    assert local_release(tmp_path, "cadvisor", f"cadvisor-v{role['cadvisor_version']}-linux-{MACHINE}") == nothing


def test_the_local_stack_takes_the_newest_grafana_that_is_there(tmp_path: Path) -> None:
    """Prevents: a Grafana that is left out with its archive in the folder, and one of another architecture."""
    digest = hashlib.sha256(b"x").hexdigest()
    version = yaml.safe_load((ROOT / "roles/grafana/defaults/main.yml").read_text())["grafana_version"]
    nothing = {"version": version, "archive_sha256": {}}
    assert local_release(tmp_path, "grafana", f"grafana-99.0.0.linux-{ANOTHER}.tar.gz") == nothing
    old = local_release(tmp_path, "grafana", f"grafana-9.5.2.linux-{MACHINE}.tar.gz")
    assert old == {"version": "9.5.2", "archive_sha256": {MACHINE: digest}}
    # As upstream's page names it.
    new = local_release(tmp_path, "grafana", f"grafana_13.0.1_24388279614_linux_{MACHINE}.tar.gz")
    assert new == {"version": "13.0.1", "archive_sha256": {MACHINE: digest}}


def test_the_local_stack_compares_the_role_s_grafana_with_its_pin(tmp_path: Path) -> None:
    version = yaml.safe_load((ROOT / "roles/grafana/defaults/main.yml").read_text())["grafana_version"]
    pinned = local_release(tmp_path, "grafana", f"grafana_{version}_1_linux_{MACHINE}.tar.gz")
    assert pinned == {"version": version, "archive_sha256": {}}


def test_the_machine_check_knows_the_published_ports() -> None:
    """Prevents: a port that is taken, and found out only when Docker fails."""
    published = yaml.safe_load((ROOT / "inventories/local/group_vars/all/vars.yml").read_text())
    assert sorted(LOCAL_PORTS) == sorted(published["local_host_published_ports"])


def test_both_inventories_share_the_wiring() -> None:
    for name in ("local", "production"):
        assert (ROOT / f"inventories/{name}/group_vars/all/wiring.yml").resolve() == ROOT / "inventories/wiring/all.yml"


def test_collections_are_those_that_the_controller_s_packages_carry() -> None:
    """Prevents: users of Galaxy and users of PyPI running different modules."""
    wanted = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    base = Path(str(distribution("ansible").locate_file("ansible_collections")))
    for one in wanted:
        manifest = json.loads((base / one["name"].replace(".", "/") / "MANIFEST.json").read_text())
        assert manifest["collection_info"]["version"] == one["version"], one["name"]


def test_every_collection_that_is_used_is_required() -> None:
    wanted = {one["name"] for one in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}
    text = "\n".join(
        path.read_text()
        for folder in ("roles", "playbooks", "molecule", "inventories")
        for path in (ROOT / folder).rglob("*.yml")
    )
    used = {
        name
        for name in ("ansible.posix", "community.docker", "community.general", "community.crypto")
        if f"{name}." in text
    }
    used.add("ansible.posix")  # callbacks in ansible.cfg
    assert wanted == used


def test_the_examples_hold_no_secret_and_no_real_host() -> None:
    """Prevents: a webhook that somebody pasted and committed."""
    for path in (ROOT / "inventories").rglob("*.yml*"):
        text = path.read_text()
        assert "hooks.slack.com/services/T" not in text
        assert "$ANSIBLE_VAULT" not in text
