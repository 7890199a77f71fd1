"""How Prometheus asks the other services: with TLS, and below the path of an address that has one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.rules.rule_files import SUITES, run_promtool  # noqa: E402

TLS = {"grafana_tls_certificate_file": "/etc/ssl/one.pem", "grafana_tls_key_file": "/etc/ssl/one.key"}


def prometheus_yml(folder: Path, **settings: Any) -> dict[str, Any]:
    """Render an estate of one host with these variables; return the configuration, which three releases accept."""
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all.yml").symlink_to(ROOT / "inventories/wiring/all.yml")
    hosts = {"one": {"ansible_host": "192.0.2.9", **settings}}
    groups: dict[str, Any] = {name: {"hosts": {"one": {}}} for name in ("prometheus", "alertmanager", "grafana")}
    estate = {"all": {"vars": {"allin_environment": "test"}, "hosts": hosts, "children": groups}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(estate))
    variables = json.dumps({"role": str(ROOT / "roles/prometheus"), "destination": str(folder)})
    run = subprocess.run(
        [
            *("ansible-playbook", "--inventory", str(folder / "hosts.yml"), "--extra-vars", variables),
            "tests/roles/render_prometheus.yml",
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for release in SUITES:
        checked = run_promtool(release, "check", "config", folder / "prometheus.yml")
        assert checked.returncode == 0, f"{release}: {checked.stdout}{checked.stderr}"
    loaded: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text())
    return loaded


def jobs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["job_name"]: one for one in config["scrape_configs"]}


def test_without_tls_nothing_is_said_of_it(tmp_path: Path) -> None:
    grafana = jobs(prometheus_yml(tmp_path))["grafana"]
    assert (grafana["scheme"], grafana["metrics_path"]) == ("http", "/metrics")
    assert "tls_config" not in grafana


@pytest.mark.parametrize(
    ("root_url", "known"), [("https://Grafana.test/", {"server_name": "grafana.test"}), ("", {})], ids=["named", "bare"]
)
def test_the_target_s_address_need_not_be_in_grafana_s_certificate(
    tmp_path: Path, root_url: str, known: dict[str, str]
) -> None:
    """Prevents: GrafanaDown for ever, since a certificate has a name, and perhaps an authority of the estate's own."""
    grafana = jobs(prometheus_yml(tmp_path, grafana_root_url=root_url, **TLS))["grafana"]
    assert grafana["scheme"] == "https"
    assert grafana["tls_config"] == {**known, "insecure_skip_verify": True}


def test_with_an_authority_grafana_s_certificate_is_verified(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("promtool looks whether it is there")
    settings = {"grafana_root_url": "https://grafana.test", "grafana_tls_ca_file": str(tmp_path / "ca.pem")}
    grafana = jobs(prometheus_yml(tmp_path, **settings, **TLS))["grafana"]
    assert grafana["tls_config"] == {"server_name": "grafana.test", "ca_file": str(tmp_path / "ca.pem")}


def test_what_is_served_below_a_path_is_asked_there(tmp_path: Path) -> None:
    """Prevents: targets that answer with a redirect or 404, and alerts that are sent to nobody."""
    config = prometheus_yml(
        tmp_path,
        grafana_root_url="https://monitoring.test/grafana/",
        prometheus_external_url="https://monitoring.test/prometheus",
        alertmanager_external_url="https://monitoring.test/alerts/",
    )
    assert {name: job["metrics_path"] for name, job in jobs(config).items() if "metrics_path" in job} == {
        "grafana": "/grafana/metrics",
        "prometheus": "/prometheus/metrics",
        "alertmanager": "/alerts/metrics",
    }
    (alertmanagers,) = config["alerting"]["alertmanagers"]
    assert alertmanagers["path_prefix"] == "/alerts"
