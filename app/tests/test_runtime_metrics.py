"""Event loop, garbage collector, process."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.runtime import EventLoopLag, GarbageCollection, heap_bytes, quantile
from support import DEADLINE, SOURCE, value


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([3.0], 0.5, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.95, 4.0),
        ([1.0, 2.0, 3.0, 4.0], 1.0, 4.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 0.9, 90.0),
    ],
)
def test_quantile(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_blocked_loop_shows_on_the_scale_of_node(factory: object) -> None:
    lag = EventLoopLag()

    async def scenario() -> None:
        lag.start()
        await _samples(lag, 20)
        time.sleep(0.1)  # the loop is meant to be blocked
        await _samples(lag, 30)
        lag.stop()

    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]
        runner.run(scenario())

    ordered = lag.ordered()
    # Idle samples contain the interval of 10 ms; less means that it was subtracted.
    assert 0.009 <= quantile(ordered, 0.5) < 1  # seconds
    assert quantile(ordered, 1.0) >= 0.1


def test_samples_leave_with_time() -> None:
    lag = EventLoopLag(window=0.1)

    async def scenario() -> None:
        lag.start()
        time.sleep(0.1)
        await _samples(lag, 1)
        assert quantile(lag.ordered(), 1.0) >= 0.1
        async with asyncio.timeout(DEADLINE):
            while quantile(lag.ordered(), 1.0) >= 0.1:
                await asyncio.sleep(0.01)
        lag.stop()
        async with asyncio.timeout(DEADLINE):
            while lag.ordered():
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_two_scrapes_see_the_same_window(registry: CollectorRegistry) -> None:
    metrics = BackendMetrics(registry, version="0", release="0")

    async def scenario() -> None:
        metrics.start()
        time.sleep(0.1)
        await _samples(metrics.event_loop, 2)
        metrics.stop()

    asyncio.run(scenario())

    for _ in range(2):
        assert (value(registry, "allin_nodejs_eventloop_lag_max_seconds") or 0) >= 0.1


def test_one_turn_of_a_busy_loop_is_measured() -> None:
    lag = EventLoopLag()

    async def scenario() -> None:
        idle = []
        for _ in range(20):
            await lag.measure_turn()
            idle.append(lag.turn)
        assert 0 < min(idle) < 0.05
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        await lag.measure_turn()
        assert lag.turn >= 0.1

    asyncio.run(scenario())


def test_collections_are_timed_by_kind(registry: CollectorRegistry) -> None:
    metrics = BackendMetrics(registry, version="0", release="0")

    def counts() -> tuple[float, float]:
        name = "allin_nodejs_gc_duration_seconds_count"
        return value(registry, name, kind="minor") or 0, value(registry, name, kind="major") or 0

    before = len(gc.callbacks)
    gc.disable()  # only the collections of this test count
    try:
        metrics.garbage.start()
        metrics.garbage.start()
        gc.collect(0)
        gc.collect(1)
        gc.collect(2)
        assert counts() == (2, 1)
        metrics.garbage.stop()
        assert len(gc.callbacks) == before
        metrics.garbage.stop()
        gc.collect(2)
        assert counts() == (2, 1)
    finally:
        gc.enable()
        metrics.garbage.stop()


def test_collector_started_in_the_middle_of_a_collection() -> None:
    garbage = GarbageCollection()
    garbage._callback("stop", {"generation": 2})

    assert sum(sum(cell.counts) for cell in garbage.cells) == 0


# Here every allocation may start a collection, and with it the callback: between any two steps of what runs then.
LIBRARY = """
import faulthandler, gc
from prometheus_client import CollectorRegistry, Histogram

durations = Histogram("durations_seconds", "Test.", ["kind"], registry=CollectorRegistry())

def collected(phase, info):
    durations.labels(kind="minor").observe(0.0)

faulthandler.dump_traceback_later(2, exit=True)
gc.callbacks.append(collected)
gc.set_threshold(1)
for number in range(10_000):
    durations.labels(kind=str(number)).observe(0.0)
print("finished")
"""
OURS = f"""
import faulthandler, gc, threading
from prometheus_client import CollectorRegistry, generate_latest
from allin_backend.metrics.collector import BackendMetrics

registry = CollectorRegistry()
metrics = BackendMetrics(registry, version="0", release="0")
faulthandler.dump_traceback_later({DEADLINE}, exit=True)
metrics.garbage.start()
gc.set_threshold(1)
scraper = threading.Thread(target=lambda: [generate_latest(registry) for _ in range(2)])
scraper.start()
for number in range(300):
    gc.set_threshold(1 + number % 5)  # so that a collection starts at each allocation in turn
    list(metrics._collect_runtime())
    metrics.http.record("GET", "/health", number, 0.0)
    metrics.database.cell(f"SELECT {{number}} FROM users").observe(0.0)
    metrics.work.sign_ins.inc("success")
scraper.join()
gc.set_threshold(0)
gc.collect(1)
gc.collect(2)
assert all(sum(cell.counts) for cell in metrics.garbage.cells)
print("finished")
"""  # noqa: S608  # no SQL that is run


def _run(code: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_library_histogram_in_the_callback_stops_the_process_for_good() -> None:
    result = _run(LIBRARY)

    assert result.stdout == ""
    # Waiting for a lock that the same thread holds, not merely slow: labels, interrupted by the callback, in labels.
    functions = re.findall(r" in (\w+|<module>)$", result.stderr, re.MULTILINE)
    assert functions == ["labels", "collected", "labels", "<module>"], result.stderr


def test_collections_at_any_moment_do_not_stop_the_process() -> None:
    result = _run(OURS)

    assert (result.stdout, result.stderr) == ("finished\n", "")


def test_lifespan_leaves_nothing_behind(registry: CollectorRegistry) -> None:
    before = list(gc.callbacks)
    metrics = BackendMetrics(registry, version="0", release="0")

    async def scenario() -> None:
        metrics.start()
        assert len(gc.callbacks) == len(before) + 1
        metrics.stop()
        metrics.stop()

    asyncio.run(scenario())
    assert gc.callbacks == before


def test_process_values_are_plausible(registry: CollectorRegistry) -> None:
    BackendMetrics(registry, version="1.2.3", release="r4")

    def read(name: str) -> float:
        found = value(registry, name)
        assert found is not None, name
        return found

    mebibyte = 1024**2
    assert 10 * mebibyte < read("allin_process_resident_memory_bytes") < read("allin_process_virtual_memory_bytes")
    assert 1 * mebibyte < read("allin_process_heap_bytes") < read("allin_process_virtual_memory_bytes")
    assert abs(time.time() - read("allin_process_start_time_seconds")) < 86_400
    assert 3 <= read("allin_process_open_fds") < read("allin_process_max_fds")
    assert value(registry, "allin_build_info", version="1.2.3", release="r4") == 1
    before = read("allin_process_cpu_seconds_total")
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert before + 0.05 <= read("allin_process_cpu_seconds_total") < before + 10


def test_heap_follows_an_allocation() -> None:
    before = heap_bytes() or 0
    block = bytearray(64 * 1024**2)
    grown = heap_bytes() or 0

    assert 60 * 1024**2 < grown - before < 80 * 1024**2
    del block


def test_resident_memory_follows_what_is_used(registry: CollectorRegistry) -> None:
    BackendMetrics(registry, version="0", release="0")
    name = "allin_process_resident_memory_bytes"
    before = value(registry, name) or 0
    block = bytearray(b"x") * (64 * 1024**2)
    grown = value(registry, name) or 0
    del block
    shrunk = value(registry, name) or 0

    assert 60 * 1024**2 < grown - before < 80 * 1024**2
    assert grown - shrunk > 60 * 1024**2


def test_heap_is_unknown_without_proc(tmp_path: Path) -> None:
    assert heap_bytes(tmp_path / "missing") is None
    (tmp_path / "status").write_text("Name:\tx\n")
    assert heap_bytes(tmp_path / "status") is None
    (tmp_path / "status").write_text("VmSize:\t  900 kB\nVmData:\t  100 kB\n")
    assert heap_bytes(tmp_path / "status") == 102_400


async def _samples(lag: EventLoopLag, count: int) -> None:
    """Wait until ``count`` more samples have been taken."""
    before = len(lag.ordered())
    async with asyncio.timeout(DEADLINE):
        while len(lag.ordered()) < before + count:
            await asyncio.sleep(0.005)
