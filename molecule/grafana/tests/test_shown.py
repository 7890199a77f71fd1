"""What Grafana shows: its data sources answer, and every dashboard that is code is there and finds data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dashboard_queries
from apis import Grafana, Prometheus
from waiting import eventually

ROOT = Path(__file__).parents[3]
DASHBOARDS = {
    json.loads(path.read_text())["uid"]: path.parent.name
    for path in (ROOT / "roles/grafana/files/dashboards").glob("*/*.json")
}


def test_the_data_sources_are_healthy(admin: Grafana) -> None:
    assert {one["uid"]: one["type"] for one in admin.get("/api/datasources")} == {
        "prometheus": "prometheus",
        "alertmanager": "alertmanager",
    }
    assert admin.get("/api/datasources/uid/prometheus/health")["status"] == "OK"
    # Grafana has no check of its own for this kind; its answer through the proxy says as much.
    assert "versionInfo" in admin.get("/api/datasources/proxy/uid/alertmanager/api/v2/status")


def test_a_viewer_s_query_finds_data(person: Callable[[str], Grafana]) -> None:
    assert person("victor").query("up")


def test_every_dashboard_is_there_under_its_uid(admin: Grafana) -> None:
    found = {one["uid"]: one["folderUid"] for one in admin.get("/api/search?type=dash-db&limit=5000")}
    assert {uid: found.get(uid) for uid in DASHBOARDS} == {uid: f"allin-{name}" for uid, name in DASHBOARDS.items()}


def test_every_panel_s_query_finds_data_through_grafana(admin: Grafana) -> None:
    eventually(
        lambda: dashboard_queries.complaints(admin), lambda found: not found, within=120, what="every panel has data"
    )


def test_prometheus_watches_grafana(prometheus: Prometheus) -> None:
    """Prevents: an alert about Grafana whose metrics Grafana does not have."""
    eventually(lambda: prometheus.scalar('up{job="grafana"}'), lambda up: up == 1, within=30, what="Grafana is scraped")
    for name in ("grafana_http_request_duration_seconds_count", "grafana_build_info"):
        assert prometheus.query(f'{name}{{job="grafana"}}'), name
    assert prometheus.query(
        'grafana_http_request_duration_seconds_count{job="grafana",status_code="200",host="allin-grafana"}'
    )
