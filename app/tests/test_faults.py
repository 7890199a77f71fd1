"""Injected faults: read strictly, seen in the metrics they are about, over when their time is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette
from starlette.testclient import TestClient

from allin_backend import faults as module
from allin_backend.app import create_app
from allin_backend.faults import KINDS, CacheOff, Errors, Fault, Faults, InjectedError, LoopBlock, SlowDatabase, parse
from allin_backend.metrics import contract
from allin_backend.metrics.collector import BackendMetrics
from support import DEADLINE, make_settings, sign_up, value

NOW = 1_800_000_000.0
COMPLETE: dict[str, dict[str, float]] = {
    "slow-db": {"seconds": 0.5},
    "errors": {"ratio": 0.3},
    "cache-off": {},
    "leak": {"bytes_per_second": 1e6, "limit_bytes": 5e6},
    "loop-block": {"seconds": 0.1, "every_seconds": 1},
}


class Cache:
    disabled = False


class Site:
    """Faults with a file, a clock that stands still, and a gauge."""

    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        self.metrics = BackendMetrics(self.registry, version="0", release="0")
        self.cache = Cache()
        self.path = directory / "faults.json"
        self.now = NOW
        self.chances = [0.0]
        self.faults = Faults(
            self.path,
            self.metrics.work.fault_active,
            self.cache,
            now=lambda: self.now,
            chance=lambda: self.chances.pop(0),
        )

    def write(self, content: object) -> None:
        # Renamed into place, so that the file is another one, whatever the resolution of its times.
        new = self.path.with_suffix(".new")
        new.write_text(content if isinstance(content, str) else json.dumps(content))
        new.rename(self.path)

    def inject(self, name: str, *, lasting: float = 60, **parameters: float) -> None:
        self.write({name: COMPLETE[name] | parameters | {"until": self.now + lasting}})
        self.faults.look()

    def active(self) -> set[str]:
        return active(self.registry)


def active(registry: CollectorRegistry) -> set[str]:
    """What the metrics show to be in force."""
    return {name for name in contract.FAULTS if value(registry, "allin_fault_injection_active", fault=name) == 1}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    fields: list[dict[str, Any]] = [
        record.__dict__["fields"] for record in caplog.records if record.levelno >= logging.ERROR
    ]
    return [entry["reason"] for entry in fields]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_every_fault_of_the_contract_can_be_injected() -> None:
    assert tuple(KINDS) == contract.FAULTS
    content = {name: parameters | {"until": NOW + 3600} for name, parameters in COMPLETE.items()}

    found, problems = parse(json.dumps(content).encode(), NOW)

    assert problems == []
    assert {name: type(fault) for name, fault in found.items()} == KINDS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "one JSON object"),
        ('{"errors": {}, "errors": {}}', "a name occurs twice"),
        ({"slow_db": {"seconds": 1, "until": NOW + 1}}, "slow_db: no such fault; there are slow-db, errors"),
        ({"errors": {"ratio": 0.3}}, "errors: .*until"),
        ({"errors": 0.3}, "errors: Expected `object`"),
        ({"errors": {"until": NOW + 1}}, "errors: .*ratio"),
        ({"errors": {"ratio": 1.5, "until": NOW + 1}}, "errors: .*<= 1"),
        ({"errors": {"ratio": 0, "until": NOW + 1}}, "errors: .*> 0"),
        ({"errors": {"ratio": True, "until": NOW + 1}}, "errors: .*bool"),
        ({"errors": {"ratio": "0.3", "until": NOW + 1}}, "errors: .*str"),
        ({"errors": {"ratio": 0.3, "rate": 1, "until": NOW + 1}}, "errors: .*rate"),
        ({"errors": {"ratio": 0.3, "until": NOW + 3601}}, "errors: until must be within 3600 seconds"),
        ('{"errors": {"ratio": 0.3, "until": NaN}}', "errors: until must be within"),
        ('{"errors": {"ratio": 0.3, "until": Infinity}}', "errors: until must be within"),
        ('{"errors": {"ratio": NaN, "until": 1800000001}}', "errors: "),
        ({"slow-db": {"seconds": 31, "until": NOW + 1}}, "slow-db: .*<= 30"),
        ({"leak": {"bytes_per_second": 0, "limit_bytes": 1, "until": NOW + 1}}, "leak: .*>= 1"),
        # Nothing could end it any more.
        ({"loop-block": {"seconds": 1, "every_seconds": 1, "until": NOW + 1}}, "loop-block: .*between two blocks"),
    ],
)
def test_what_cannot_be_used_is_named(content: object, problem: str) -> None:
    encoded = content.encode("latin-1") if isinstance(content, str) else json.dumps(content).encode()
    found, problems = parse(encoded, NOW)

    assert found == {}
    assert len(problems) == 1
    assert re.search(problem, problems[0]), problems


def test_other_faults_count_beside_one_that_cannot_be_used() -> None:
    content = {"errors": {"ratio": 9, "until": NOW + 1}, "cache-off": {"until": NOW + 1}}

    found, problems = parse(json.dumps(content).encode(), NOW)

    assert found == {"cache-off": CacheOff(until=NOW + 1)}
    assert len(problems) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["until", "seconds", "ratio"]), inner),
)


@given(st.binary() | (JSON | st.dictionaries(st.sampled_from(list(KINDS)), JSON)).map(lambda x: json.dumps(x).encode()))
def test_no_file_makes_it_fail(content: bytes) -> None:
    found, _ = parse(content, NOW)

    assert all(NOW < fault.until <= NOW + 3600 for fault in found.values())


def test_deep_nesting_and_long_numbers_are_refused() -> None:
    for content in (b"[" * 100_000, b"1" * 5_000, b'{"errors": {"ratio": 0.3, "until": 1' + b"0" * 400 + b"}}"):
        assert len(parse(content, NOW)[1]) == 1


def test_file_is_read_when_it_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []

    def counted(content: bytes, now: float) -> tuple[dict[str, Fault], list[str]]:
        reads.append(content)
        return parse(content, now)

    monkeypatch.setattr(module, "parse", counted)
    site.faults.look()
    assert (site.active(), reads) == (set(), [])  # no file, no fault

    site.inject("errors")
    site.faults.look()
    site.faults.look()
    assert (site.active(), len(reads)) == ({"errors"}, 1)

    site.inject("cache-off")
    assert site.active() == {"cache-off"}

    site.write({})
    site.faults.look()
    assert site.active() == set()

    site.inject("errors")
    site.path.unlink()
    site.faults.look()
    assert site.active() == set()


def test_file_changed_within_the_same_second_is_seen(site: Site) -> None:
    site.path.write_text("{}")
    site.faults.look()
    before = site.path.stat()
    content = json.dumps({"cache-off": {"until": NOW + 1}})
    site.path.write_text(content)
    os.utime(site.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    site.faults.look()

    assert site.active() == {"cache-off"}


def test_refusal_is_logged_once_and_ends_what_was_in_force(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.inject("errors")
    site.write({"eror": {}})
    site.faults.look()
    site.faults.look()

    assert site.active() == set()
    assert len(refusals(caplog)) == 1
    assert "eror: no such fault" in refusals(caplog)[0]


@pytest.mark.parametrize(
    ("kind", "reason"), [("directory", "not a plain file"), ("fifo", "not a plain file"), ("large", "larger than")]
)
def test_what_is_no_faults_file_is_refused(
    site: Site, kind: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "directory":
        site.path.mkdir()
    elif kind == "fifo":
        os.mkfifo(site.path)
    else:
        site.write("{" + " " * 70_000 + "}")
    site.faults.look()

    assert site.active() == set()
    assert len(refusals(caplog)) == 1
    assert reason in refusals(caplog)[0]


def test_fault_ends_at_its_time(site: Site) -> None:
    site.inject("cache-off", lasting=60)
    site.now += 59.9
    site.faults.look()
    assert (site.active(), site.cache.disabled) == ({"cache-off"}, True)

    site.now += 0.1
    assert site.faults.active(CacheOff) is None  # at once, not when the file is next looked at
    site.faults.look()
    assert (site.active(), site.cache.disabled) == (set(), False)


def test_faults_that_have_ended_are_no_mistake(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.inject("errors", lasting=-5)

    assert (site.active(), refusals(caplog)) == (set(), [])


def test_file_is_watched_until_the_stop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_SECONDS", 0.001)

    async def until(active: set[str]) -> None:
        async with asyncio.timeout(DEADLINE):
            while site.active() != active:
                await asyncio.sleep(0.001)

    async def scenario() -> None:
        site.faults.start()
        site.write({"cache-off": {"until": NOW + 60}})
        await until({"cache-off"})
        # A mistake in this module itself must not keep the fault alive either.
        with monkeypatch.context() as patch:
            patch.setattr(Faults, "_read", lambda _self: 1 / 0)
            site.write({"cache-off": {"until": NOW + 61}})
            await until(set())
        site.write({"cache-off": {"until": NOW + 62}})
        await until({"cache-off"})
        await site.faults.stop()
        assert (site.active(), site.cache.disabled) == (set(), False)
        assert len(asyncio.all_tasks()) == 1
        site.write({"cache-off": {"until": NOW + 63}})
        await asyncio.sleep(0.02)
        assert site.active() == set()

    asyncio.run(scenario())


# --- slow-db ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def engine_of(site: Site, directory: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/slow.db")
    site.metrics.database.instrument(engine.sync_engine)
    site.faults.slow_down(engine.sync_engine)
    yield engine
    await engine.dispose()


def test_slow_database_shows_in_the_metrics_and_lets_the_loop_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"operation": "select", "table": "none"}
    clock = 0.0

    def spent() -> float | None:
        return value(site.registry, "allin_db_query_duration_seconds_sum", **labels)

    async def scenario() -> None:
        waiting, over = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            nonlocal clock
            clock += seconds
            waiting.set()
            await over.wait()

        monkeypatch.setattr("asyncio.sleep", sleep)
        monkeypatch.setattr("allin_backend.metrics.database.perf_counter", lambda: clock)
        async with engine_of(site, tmp_path) as engine, engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            assert spent() == 0

            site.inject("slow-db")
            query = asyncio.ensure_future(connection.execute(text("SELECT 1")))
            await waiting.wait()  # that this goes on shows that the loop is free
            assert not query.done()
            over.set()
            await query
            assert spent() == 0.5

            site.write({})
            site.faults.look()
            await connection.execute(text("SELECT 1"))
            assert spent() == 0.5

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))
    assert value(site.registry, "allin_db_queries_total", **labels, status="success") == 3


def test_every_kind_of_statement_is_slow(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def scenario() -> None:
        async with engine_of(site, tmp_path) as engine, engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (a INTEGER)"))
            site.inject("slow-db")
            monkeypatch.setattr("asyncio.sleep", sleep)
            await connection.execute(text("INSERT INTO t VALUES (:a)"), {"a": 1})
            await connection.execute(text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
            no_parameters = {"no_parameters": True}
            await connection.exec_driver_sql("DELETE FROM t", execution_options=no_parameters)
            monkeypatch.undo()

    asyncio.run(scenario())
    assert slept == [0.5] * 3


def test_slow_statement_can_be_called_off(site: Site, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engine_of(site, tmp_path) as engine, engine.connect() as connection:
            site.inject("slow-db", seconds=30)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await connection.execute(text("SELECT 1"))

    asyncio.run(scenario())
    assert value(site.registry, "allin_db_queries_total", operation="select", table="none", status="error") == 1


# --- errors, cache-off ------------------------------------------------------------------------------------------------


def test_share_of_calls_that_fail(site: Site) -> None:
    site.faults.raise_sometimes()
    site.inject("errors", ratio=0.3)
    site.chances = [0.0, 0.299, 0.3, 0.999]

    failed = 0
    for _ in range(4):
        try:
            site.faults.raise_sometimes()
        except InjectedError:
            failed += 1

    assert failed == 2
    assert site.chances == []
    assert site.faults.active(Errors) == Errors(until=NOW + 60, ratio=0.3)


@pytest.fixture
def faulty(tmp_path: Path, registry: CollectorRegistry) -> Iterator[tuple[TestClient, Path]]:
    """The whole application with a faults file."""
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"errors": {"ratio": 1, "until": time.time() + 600}}))
    app = create_app(make_settings(tmp_path, ALLIN_FAULTS_FILE=str(file)), registry)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, file


def test_errors_of_the_api_take_the_usual_way(
    faulty: tuple[TestClient, Path], registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = faulty
    response = client.get("/api/v1/posts/1", headers={"X-Request-ID": "abc"})

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == "abc"
    labels = {"method": "GET", "route": "/api/v1/posts/{post_id}", "status_code": "500"}
    assert value(registry, "allin_http_requests_total", **labels) == 1
    assert value(registry, "allin_fault_injection_active", fault="errors") == 1


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/openapi.json"])
def test_probes_and_scrapes_go_on(faulty: tuple[TestClient, Path], path: str) -> None:
    assert faulty[0].get(path).status_code == 200


def test_faults_end_with_the_application(faulty: tuple[TestClient, Path], registry: CollectorRegistry) -> None:
    client, _ = faulty
    client.__exit__()
    assert value(registry, "allin_fault_injection_active", fault="errors") == 0
    client.__enter__()  # for the fixture, which leaves once more


def test_without_the_setting_nothing_is_in_the_way(tmp_path: Path, registry: CollectorRegistry) -> None:
    def hooks(app: Starlette) -> tuple[bool, bool]:
        layers = []
        for route in app.routes:
            layer = getattr(route, "app", None)
            while layer is not None:
                layers.append(type(layer).__name__)
                layer = getattr(layer, "app", None)
        return "_ErrorInjection" in layers, "do_execute" in vars(app.state.database.engine.sync_engine.dialect)

    without = create_app(make_settings(tmp_path), registry)
    with_file = create_app(make_settings(tmp_path, ALLIN_FAULTS_FILE="/nowhere"), CollectorRegistry())

    assert (hooks(without), hooks(with_file)) == ((False, False), (True, True))


def test_cache_of_the_application_is_switched_off(faulty: tuple[TestClient, Path], registry: CollectorRegistry) -> None:
    client, file = faulty
    file.write_text("{}")
    _wait_for_faults(registry, set())
    client.headers.update(sign_up(client))

    def misses() -> float:
        before = value(registry, "allin_cache_misses_total", cache_type="session") or 0
        client.get("/api/v1/users/me")
        return (value(registry, "allin_cache_misses_total", cache_type="session") or 0) - before

    misses()
    assert misses() == 0
    file.write_text(json.dumps({"cache-off": {"until": time.time() + 600}}))
    _wait_for_faults(registry, {"cache-off"})
    assert misses() == 1


def _wait_for_faults(registry: CollectorRegistry, names: set[str]) -> None:
    end = time.monotonic() + DEADLINE
    while active(registry) != names:
        assert time.monotonic() < end
        time.sleep(0.01)


# --- leak, loop-block -------------------------------------------------------------------------------------------------


def test_leak_takes_memory_up_to_its_limit_and_gives_it_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAK_EVERY_SECONDS", 0.001)
    mebibyte = 1024**2
    resident = "allin_process_resident_memory_bytes"

    async def scenario() -> None:
        before = value(site.registry, resident) or 0
        site.inject("leak", bytes_per_second=1000 * mebibyte, limit_bytes=50.5 * mebibyte)
        async with asyncio.timeout(DEADLINE):
            while site.faults.leaked_bytes < 50.5 * mebibyte:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert site.faults.leaked_bytes == 50.5 * mebibyte
        # Not only promised by the kernel, but taken.
        assert (value(site.registry, resident) or 0) - before > 40 * mebibyte

        site.now += 61
        site.faults.look()
        await asyncio.sleep(0)
        assert site.faults.leaked_bytes == 0
        assert (value(site.registry, resident) or 0) - before < 20 * mebibyte
        await site.faults.stop()

    asyncio.run(scenario())


def test_blocked_loop_is_seen_as_lag_and_runs_in_between(site: Site) -> None:
    async def scenario() -> None:
        site.metrics.event_loop.start()
        site.inject("loop-block", every_seconds=0.2)
        async with asyncio.timeout(DEADLINE):
            while len([late for late in site.metrics.event_loop.ordered() if late >= 0.1]) < 3:
                await asyncio.sleep(0.005)
        assert site.faults.active(LoopBlock) is not None
        site.now += 61
        site.faults.look()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        site.metrics.event_loop.stop()

    asyncio.run(scenario())


def test_changed_fault_replaces_the_one_in_force(site: Site) -> None:
    async def scenario() -> None:
        site.inject("leak", bytes_per_second=1000, limit_bytes=1000)
        first = site.faults.leaked_bytes
        await asyncio.sleep(0)
        site.inject("leak", bytes_per_second=2000, limit_bytes=2000)
        await asyncio.sleep(0)
        assert (first, site.faults.leaked_bytes) == (0, 200)
        assert len(asyncio.all_tasks()) == 2
        await site.faults.stop()

    asyncio.run(scenario())
    assert site.faults.active(SlowDatabase) is None
