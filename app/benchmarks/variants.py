"""The ways of measuring HTTP requests that are compared: none, ours, written by hand, and the libraries.

The libraries are imported only when they are asked for: they are in ``requirements/bench.txt``, while the tests' own
environment has just one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from allin_backend import paths
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.contract import HTTP_BUCKETS
from allin_backend.metrics.http import HttpMetricsMiddleware
from benchmarks.references import HandWritten, HandWrittenLabels, Tutorial

TEMPLATE: Final = next(path for path in paths.MEASURED if "{" in path)
"""The route that is asked for: one that the contract knows."""


def filled_in(template: str, value: str) -> str:
    """A path of this route template, with the value for each of its parameters."""
    return re.sub(r"\{[^}]*\}", value, template)


BARE: Final = "bare"
NO_OP: Final = "middleware that does nothing"
UNCOUNTED: Final = (BARE, NO_OP)
"""These measure nothing and have no series."""
OURS: Final = "ours"
HAND_WRITTEN: Final = "hand-written, children kept"
INSTRUMENTATOR: Final = "prometheus-fastapi-instrumentator, same metrics"


class Framework(StrEnum):
    """Below which framework's application the middlewares are measured."""

    STARLETTE = "Starlette"
    FASTAPI = "FastAPI"


@dataclass(frozen=True, slots=True)
class Target:
    """An application to call; ``counted`` says how many requests its instrumentation has counted so far.

    ``series`` says how many samples it shows. Both are ``None`` for one that counts nothing.
    """

    app: ASGIApp
    counted: Callable[[], float] | None = None
    series: Callable[[], int] | None = None


MakeApp = Callable[..., Any]
"""Makes a new application; keyword arguments go to its constructor."""
Build = Callable[[MakeApp], Target]


def application(framework: Framework, routes: int, **options: Any) -> Any:
    """An application with so many routes; the one that is asked for is in the middle of the table."""
    templates = [f"/api/v1/resource{number}/{{item_id}}" for number in range(routes - 1)]
    templates.insert(routes // 2, TEMPLATE)

    if framework is Framework.STARLETTE:

        async def starlette_endpoint(_request: Request) -> Response:
            return JSONResponse({"id": 17})

        return Starlette(routes=[Route(template, starlette_endpoint) for template in templates], **options)

    async def fastapi_endpoint() -> dict[str, int]:
        return {"id": 17}

    app = import_module("fastapi").FastAPI(**options)
    for template in templates:
        app.get(template)(fastapi_endpoint)
    return app


def _from_registry(app: ASGIApp, sample: str, registry: CollectorRegistry = REGISTRY) -> Target:
    """A target whose instrumentation counts requests in the samples of this name."""

    def counted() -> float:
        samples = (found for family in registry.collect() for found in family.samples)
        return sum(found.value for found in samples if found.name == sample)

    def series() -> int:
        return sum(len(list(family.samples)) for family in registry.collect())

    return Target(app, counted, series)


def _bare(make_app: MakeApp) -> Target:
    return Target(make_app())


class _PassOn:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def _no_op(make_app: MakeApp) -> Target:
    return Target(_PassOn(make_app()))


def _ours(make_app: MakeApp) -> Target:
    registry = CollectorRegistry()
    metrics = BackendMetrics(registry, version="0", release="0")
    app = make_app()
    measured = HttpMetricsMiddleware(app, metrics.http, app.routes)
    return _from_registry(measured, "allin_http_requests_total", registry)


def _reference(middleware: Callable[[ASGIApp, CollectorRegistry], ASGIApp]) -> Build:
    def build(make_app: MakeApp) -> Target:
        registry = CollectorRegistry()
        return _from_registry(middleware(make_app(), registry), "http_requests_total", registry)

    return build


_instrumentators = iter(range(1_000_000))


def _instrumentator_same_metrics(make_app: MakeApp) -> Target:
    registry = CollectorRegistry()
    library = import_module("prometheus_fastapi_instrumentator")
    app = make_app()
    library.Instrumentator(
        should_group_status_codes=False,
        should_instrument_requests_inprogress=True,
        # This gauge goes to the default registry, whichever is given below.
        inprogress_name=f"http_requests_inprogress_{next(_instrumentators)}",
        registry=registry,
    ).add(
        library.metrics.latency(buckets=HTTP_BUCKETS, registry=registry),
        library.metrics.requests(registry=registry),
    ).instrument(app)
    return _from_registry(app, "http_requests_total", registry)


def _instrumentator_default(make_app: MakeApp) -> Target:
    registry = CollectorRegistry()
    app = make_app()
    import_module("prometheus_fastapi_instrumentator").Instrumentator(registry=registry).instrument(app)
    return _from_registry(app, "http_requests_total", registry)


def _starlette_exporter(make_app: MakeApp) -> Target:
    app = make_app()
    # Its default prefix is also that of starlette-prometheus, and both know the default registry only.
    app.add_middleware(import_module("starlette_exporter").PrometheusMiddleware, prefix="starlette_exporter")
    return _from_registry(app, "starlette_exporter_requests_total")


def _starlette_prometheus(make_app: MakeApp) -> Target:
    app = make_app()
    app.add_middleware(import_module("starlette_prometheus").PrometheusMiddleware)
    return _from_registry(app, "starlette_responses_total")


def _aioprometheus(make_app: MakeApp) -> Target:
    library = import_module("aioprometheus")
    registry = library.Registry()
    app = import_module("aioprometheus.asgi.middleware").MetricsMiddleware(make_app(), registry=registry)

    def counted() -> float:
        if not app.metrics_created:
            return 0
        return float(sum(value for _, value in app.responses_counter.get_all()))

    def series() -> int:
        return sum(len(collector.get_all()) for collector in registry.get_all())

    return Target(app, counted, series)


_OTEL_COUNT: Final = "http_server_duration_milliseconds_count"


def _otel_meter(registry: CollectorRegistry) -> Any:
    reader = import_module("opentelemetry.exporter.prometheus").PrometheusMetricReader(registry=registry)
    return import_module("opentelemetry.sdk.metrics").MeterProvider(metric_readers=[reader], shutdown_on_exit=False)


def _no_traces() -> Any:
    return import_module("opentelemetry.trace").NoOpTracerProvider()


def _otel_asgi(**options: Any) -> Build:
    def build(make_app: MakeApp) -> Target:
        registry = CollectorRegistry()
        app = import_module("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware(
            make_app(), meter_provider=_otel_meter(registry), tracer_provider=_no_traces(), **options
        )
        return _from_registry(app, _OTEL_COUNT, registry)

    return build


def _otel_fastapi(make_app: MakeApp) -> Target:
    registry = CollectorRegistry()
    app = make_app()
    import_module("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor.instrument_app(
        app, meter_provider=_otel_meter(registry), tracer_provider=_no_traces()
    )
    return _from_registry(app, _OTEL_COUNT, registry)


def _fastapi_native(make_app: MakeApp) -> Target:
    registry = CollectorRegistry()
    app = make_app(telemetry={"meter_provider": _otel_meter(registry), "tracing": False, "logs": False})
    return _from_registry(app, "http_server_request_duration_seconds_count", registry)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of measuring requests, and the frameworks that it is made for."""

    name: str
    build: Build
    frameworks: tuple[Framework, ...] = tuple(Framework)


ALL: Final = (
    Variant(BARE, _bare),
    Variant(NO_OP, _no_op),
    Variant(OURS, _ours),
    Variant(HAND_WRITTEN, _reference(HandWritten)),
    Variant("hand-written, labels() on each request", _reference(HandWrittenLabels)),
    Variant("hand-written on BaseHTTPMiddleware, as in tutorials", _reference(Tutorial)),
    Variant(INSTRUMENTATOR, _instrumentator_same_metrics),
    Variant("prometheus-fastapi-instrumentator, defaults", _instrumentator_default),
    Variant("aioprometheus (has no durations)", _aioprometheus),
    Variant("starlette_exporter", _starlette_exporter),
    Variant("starlette-prometheus", _starlette_prometheus),
    Variant("opentelemetry-instrumentation-asgi, defaults", _otel_asgi()),
    Variant("opentelemetry-instrumentation-asgi, without inner spans", _otel_asgi(exclude_spans=["receive", "send"])),
    Variant("FastAPI's own OpenTelemetry metrics", _fastapi_native, (Framework.FASTAPI,)),
    Variant("opentelemetry-instrumentation-fastapi", _otel_fastapi, (Framework.FASTAPI,)),
)
