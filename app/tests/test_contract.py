"""The declared metrics and the exposed ones are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from allin_backend import paths
from allin_backend.app import create_app
from allin_backend.database.tables import metadata
from allin_backend.metrics import contract
from allin_backend.metrics.contract import BY_NAME, CONTRACT, Kind, Label, Metric, Subject, by_name
from allin_backend.settings import Settings
from support import SOURCE, sign_up

# Written out once more on purpose: these names are what existing dashboards and alerts use.
DOCUMENTED = {
    "allin_http_request_duration_seconds": {"method", "route", "status_code"},
    "allin_http_requests_total": {"method", "route", "status_code"},
    "allin_active_connections": set(),
    "allin_db_query_duration_seconds": {"operation", "table"},
    "allin_db_queries_total": {"operation", "table", "status"},
    "allin_cache_hits_total": {"cache_type"},
    "allin_cache_misses_total": {"cache_type"},
    "allin_oauth_operations_total": {"platform", "operation", "status"},
    "allin_social_api_calls_total": {"platform", "endpoint", "status"},
    "allin_social_api_duration_seconds": {"platform", "endpoint"},
    "allin_process_cpu_seconds_total": set(),
    "allin_process_resident_memory_bytes": set(),
    "allin_process_heap_bytes": set(),
    "allin_nodejs_eventloop_lag_seconds": set(),
    "allin_nodejs_eventloop_lag_p50_seconds": set(),
    "allin_nodejs_eventloop_lag_p95_seconds": set(),
    "allin_nodejs_eventloop_lag_p99_seconds": set(),
    "allin_nodejs_gc_duration_seconds": {"kind"},
}


@pytest.fixture
def exposition(client: TestClient) -> str:
    """A scrape after every kind of request has been made."""
    headers = sign_up(client)
    client.post("/api/v1/posts", json={"text": "hello"}, headers=headers)
    for path in (*paths.MEASURED, "/nowhere"):
        path = path.format(post_id=1, account_id=1, platform="facebook")
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "BREW"):
            client.request(method, path, headers=headers)
    client.delete("/api/v1/users/me", headers=headers)
    return client.get("/metrics").text


def test_documented_names_and_labels_are_declared() -> None:
    assert {metric.name: set(metric.label_names) for metric in CONTRACT if metric.documented} == DOCUMENTED


def test_scrape_has_exactly_the_declared_metrics(exposition: str) -> None:
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(exposition)
    }

    assert sorted(families) == sorted(BY_NAME)
    for name, family in families.items():
        declared = BY_NAME[name]
        assert family.type == declared.kind, name
        assert family.documentation == declared.help, name
        # The HTTP families have some of their samples from the start, and the exposition is made after requests.
        if not declared.appears or name.startswith("allin_http_"):
            assert {sample.name for sample in family.samples} == set(declared.sample_names), name


def test_scrape_uses_only_declared_labels_and_values(exposition: str) -> None:
    for family in text_string_to_metric_families(exposition):
        declared = BY_NAME[f"{family.name}_total" if family.type == "counter" else family.name]
        closed = {label.name: label.values for label in declared.labels}
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = labels.pop("le", None)
            assert (bound is not None) == sample.name.endswith("_bucket")
            assert bound is None or float(bound) in (*declared.buckets, float("inf"))
            assert set(labels) == set(closed), sample
            for name, text in labels.items():
                values = closed[name]
                assert values is None or text in values, sample


def test_no_sample_appears_twice(exposition: str) -> None:
    keys = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    ]

    assert len(keys) == len(set(keys))


def test_histograms_are_cumulative_and_complete(exposition: str) -> None:
    buckets: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    counts: dict[tuple[object, ...], float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = labels.pop("le", None)
            key: tuple[object, ...] = (family.name, *sorted(labels.items()))
            if bound is not None:
                buckets.setdefault(key, []).append((float(bound), sample.value))
            elif sample.name.endswith("_count"):
                counts[key] = sample.value

    assert counts
    for key, pairs in buckets.items():
        assert [bound for bound, _ in pairs] == [*BY_NAME[str(key[0])].buckets, float("inf")]
        assert [count for _, count in pairs] == sorted(count for _, count in pairs), key
        assert pairs[-1][1] == counts[key], key


def test_promtool_accepts_the_scrape(exposition: str, promtool: Path) -> None:
    result = subprocess.run(
        [promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_closed_sets_are_those_of_the_program(app: Starlette) -> None:
    routes = [route.path for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes), "a Mount hides the prefix of its paths from the metrics"
    assert sorted(routes) == sorted((*paths.MEASURED, paths.METRICS))
    assert sorted(contract.ROUTES) == sorted((*paths.MEASURED, "unmatched"))
    assert sorted(contract.DB_TABLES) == sorted((*metadata.tables, "other", "none"))


def test_thresholds_of_the_documented_alerts_are_bucket_bounds() -> None:
    assert {0.05, 0.1, 0.2, 0.5, 1.0, 2.0} <= set(contract.HTTP_BUCKETS)
    assert 2.0 in contract.DB_BUCKETS


def test_series_for_first_events_exist_from_the_start(app: Starlette, registry: CollectorRegistry) -> None:
    def requests(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status_code": status}
        return registry.get_sample_value("allin_http_requests_total", labels)

    for method, route, success in [
        ("GET", "/", "200"),
        ("GET", "/health", "200"),
        ("GET", "/ready", "200"),
        ("POST", "/api/v1/users", "201"),
        ("GET", "/api/v1/users/me", "200"),
        ("DELETE", "/api/v1/users/me", "204"),
        ("POST", "/api/v1/sessions", "201"),
        ("PUT", "/api/v1/posts/{post_id}/schedule", "200"),
        ("GET", "/api/v1/posts", "200"),
        ("POST", "/api/v1/posts", "201"),
        ("GET", "/api/v1/posts/{post_id}", "200"),
        ("DELETE", "/api/v1/posts/{post_id}", "204"),
    ]:
        assert requests(method, route, success) == 0
        assert requests(method, route, "500") == 0
    assert requests("GET", "unmatched", "404") == 0
    for operation in ("select", "insert", "update", "delete"):
        for table in ("users", "posts"):
            for status in ("success", "error"):
                labels = {"operation": operation, "table": table, "status": status}
                assert registry.get_sample_value("allin_db_queries_total", labels) == 0
    for kind in ("minor", "major"):
        assert registry.get_sample_value("allin_nodejs_gc_duration_seconds_count", {"kind": kind}) is not None


def test_two_applications_in_one_registry_are_refused(settings: Settings, registry: CollectorRegistry) -> None:
    create_app(settings, registry)

    with pytest.raises(ValueError, match="Duplicated"):
        create_app(settings, registry)


def test_contract_needs_nothing_but_the_standard_library() -> None:
    # -S: no site-packages, so any import from there fails.
    code = "from allin_backend.metrics.contract import CONTRACT; print(len(CONTRACT))"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == str(len(CONTRACT))


HELP = "Help."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http_requests_total", Kind.COUNTER, HELP), "starts with allin_"),
        (("allin_Requests_total", Kind.COUNTER, HELP), "lower case"),
        (("allin__requests_total", Kind.COUNTER, HELP), "lower case"),
        (("allin_x_count", Kind.GAUGE, HELP), "ending is made"),
        (("allin_x_total", Kind.COUNTER, "Help"), "one line of sentences"),
        (("allin_x_total", Kind.COUNTER, "Two\nlines."), "one line of sentences"),
        (("allin_x_total", Kind.COUNTER, HELP, (Label("a", ("1",)), Label("a", ("2",)))), "the same name"),
        (("allin_requests", Kind.COUNTER, HELP), "end in _total"),
        (("allin_requests_total", Kind.GAUGE, HELP), "end in _total"),
        (("allin_x_seconds", Kind.HISTOGRAM, HELP), "have buckets"),
        (("allin_x_seconds", Kind.GAUGE, HELP, (), "seconds", (1.0,)), "have buckets"),
        (("allin_x_seconds", Kind.HISTOGRAM, HELP, (), "seconds", (2.0, 1.0)), "rise"),
        (("allin_x_seconds", Kind.HISTOGRAM, HELP, (), "seconds", (1.0, float("inf"))), "rise"),
        (("allin_x", Kind.GAUGE, HELP, (), "seconds"), "belongs into the name"),
        (("allin_x_minutes", Kind.GAUGE, HELP, (), "minutes"), "base unit"),
        (("allin_x_bytes_total", Kind.COUNTER, HELP), "not declared"),
    ],
)
def test_contradictory_declarations_are_refused(
    arguments: tuple[str, Kind, str, tuple[Label, ...], str, tuple[float, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Metric(*arguments)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        # Prometheus renames these: the first would be stored as exported_job, and job="publish" select nothing.
        ("job", ("publish",), "itself"),
        ("instance", None, "itself"),
        ("le", ("1",), "itself"),
        ("__a", ("1",), "lower-case letters"),
        ("aB", ("1",), "lower-case letters"),
        ("a", (), "closed set"),
        ("a", ("1", "1"), "closed set"),
        ("a", ("1", ""), "no label at all"),
    ],
)
def test_labels_that_prometheus_would_not_keep_are_refused(
    name: str, values: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Label(name, values)


def test_a_name_is_declared_once() -> None:
    metric = Metric("allin_x_total", Kind.COUNTER, HELP)

    assert by_name([Subject("a", "", (metric,))]) == {"allin_x_total": metric}
    with pytest.raises(ValueError, match=r"declared twice: allin_x_total$"):
        by_name([Subject("a", "", (metric,)), Subject("b", "", (metric,))])
