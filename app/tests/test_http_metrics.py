"""HTTP requests are counted right: the table of cases, and the middleware in its place in the whole application."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend import paths
from allin_backend.metrics import http
from allin_backend.metrics.collector import BackendMetrics
from http_table import ROWS, Row, run
from support import Caller, http_scope, value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_case(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    run(row, http, lambda clock: monkeypatch.setattr(http, "perf_counter", clock))


def test_client_that_leaves_while_it_signs_up_is_499(app: Starlette, registry: CollectorRegistry) -> None:
    headers = {"content-type": "application/json"}
    caller = Caller(http_scope(paths.USERS, "POST", headers), gone_after=0)

    asyncio.run(caller.run(app))

    labels = {"method": "POST", "route": paths.USERS, "status_code": "499"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1
    labels["status_code"] = "500"
    assert registry.get_sample_value("allin_http_requests_total", labels) == 0


def test_metrics_requests_are_not_measured(client: TestClient, registry: CollectorRegistry) -> None:
    before = _total(registry)
    for method in ("GET", "HEAD", "POST"):
        client.request(method, "/metrics")

    assert _total(registry) == before
    assert "allin_active_connections 0.0" in client.get("/metrics").text


def test_health_is_measured(client: TestClient, registry: CollectorRegistry) -> None:
    client.get("/health")

    labels = {"method": "GET", "route": "/health", "status_code": "200"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1


def test_unhandled_error_in_the_whole_application(
    ann: TestClient, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("a secret inside")

    monkeypatch.setattr("allin_backend.database.posts.PostStore.get", broken)
    response = ann.get("/api/v1/posts/1", headers={"X-Request-ID": "abc"})

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == "abc"
    assert response.json()["request_id"] == "abc"
    assert "secret" not in response.text
    labels = {"method": "GET", "route": "/api/v1/posts/{post_id}", "status_code": "500"}
    assert registry.get_sample_value("allin_http_requests_total", labels) == 1
    assert registry.get_sample_value("allin_active_connections") == 0


def test_value_on_a_bound_is_in_that_bucket(registry: CollectorRegistry) -> None:
    metrics = BackendMetrics(registry, version="0", release="0")
    labels = {"method": "GET", "route": "/health", "status_code": "200"}

    def bucket(bound: str) -> float | None:
        return value(registry, "allin_http_request_duration_seconds_bucket", **labels, le=bound)

    metrics.http.record("GET", "/health", 200, 0.2)
    assert (bucket("0.15"), bucket("0.2"), bucket("10.0"), bucket("+Inf")) == (0, 1, 1, 1)
    metrics.http.record("GET", "/health", 200, 60)
    assert (bucket("10.0"), bucket("+Inf")) == (1, 2)


def _total(registry: CollectorRegistry) -> float:
    return sum(
        sample.value
        for family in registry.collect()
        if family.name == "allin_http_requests"
        for sample in family.samples
    )
