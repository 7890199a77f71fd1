"""How /metrics is rendered."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.testclient import TestClient

from allin_backend.metrics import contract
from allin_backend.metrics.collector import BackendMetrics
from allin_backend.metrics.exposition import Exposition
from allin_backend.metrics.runtime import EventLoopLag


class SlowCollector(Collector):
    """Counts its collections and holds each until it is released."""

    def __init__(self, *, fails: bool = False) -> None:
        self.collections = 0
        self.threads: set[int] = set()
        self.release = threading.Event()
        self.fails = fails

    def collect(self) -> Iterator[Metric]:
        self.collections += 1
        self.threads.add(threading.get_ident())
        assert self.release.wait(20)
        if self.fails:
            raise RuntimeError("cannot collect")
        yield GaugeMetricFamily("allin_test", "Test.", value=self.collections)


@pytest.fixture
def slow(registry: CollectorRegistry) -> SlowCollector:
    collector = SlowCollector()
    registry.register(collector)
    return collector


def test_overlapping_scrapes_share_a_rendering_off_the_loop(registry: CollectorRegistry, slow: SlowCollector) -> None:
    async def scenario() -> None:
        exposition = Exposition(registry, EventLoopLag())
        scrapes = [asyncio.create_task(exposition.render()) for _ in range(5)]
        async with asyncio.timeout(20):
            while not slow.collections:  # the loop goes on while the collector is stuck
                await asyncio.sleep(0.001)
        slow.release.set()
        assert len(set(await asyncio.gather(*scrapes))) == 1
        assert slow.collections == 1
        assert b"allin_test 2.0" in await exposition.render()  # a later one is new
        exposition.close()

    asyncio.run(scenario())
    assert threading.get_ident() not in slow.threads


def test_scraper_that_gives_up_does_not_stop_the_others(registry: CollectorRegistry, slow: SlowCollector) -> None:
    async def scenario() -> None:
        exposition = Exposition(registry, EventLoopLag())
        impatient = asyncio.create_task(exposition.render())
        patient = asyncio.create_task(exposition.render())
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        slow.release.set()
        assert b"allin_test 1.0" in await patient
        exposition.close()

    asyncio.run(scenario())


def test_failure_reaches_every_scraper_and_the_next_one_tries_again(
    registry: CollectorRegistry, slow: SlowCollector
) -> None:
    slow.fails = True
    slow.release.set()

    async def scenario() -> None:
        exposition = Exposition(registry, EventLoopLag())
        results = await asyncio.gather(exposition.render(), exposition.render(), return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError, RuntimeError]
        slow.fails = False
        assert b"allin_test" in await exposition.render()
        exposition.close()

    asyncio.run(scenario())


class ManySamples(Collector):
    """Shows the same two families each time, with so many samples together."""

    def __init__(self, samples: int) -> None:
        self.families = [GaugeMetricFamily(f"allin_test_{name}", "Test.", labels=["number"]) for name in "ab"]
        for number in range(samples):
            self.families[number % 2].add_metric([str(number)], number)

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def test_rendering_pauses_for_the_event_loop(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register(ManySamples(1000))
    pauses: list[float] = []
    monkeypatch.setattr("allin_backend.metrics.slices.time.sleep", pauses.append)

    async def scenario() -> list[bytes]:
        exposition = Exposition(registry, EventLoopLag())
        rendered = [await exposition.render() for _ in range(2)]
        exposition.close()
        return rendered

    # Pauses change nothing about the text, and take nothing from the collector.
    assert asyncio.run(scenario()) == [generate_latest(registry)] * 2
    assert len(pauses) == 2 * 10
    assert all(pause > 0 for pause in pauses)


def test_collecting_many_requests_pauses_too(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = BackendMetrics(registry, version="0", release="0")
    metrics.http.expect(product(contract.METHODS[:2], contract.ROUTES[:5], range(200, 205)))
    pauses: list[float] = []
    monkeypatch.setattr("allin_backend.metrics.slices.time.sleep", pauses.append)

    list(registry.collect())

    assert len(pauses) == len(metrics.http.cells) // 25 == 2


def test_content_type_is_the_classic_format(client: TestClient) -> None:
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})

    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert not re.search(r"_created[ {]", response.text)


def test_metrics_has_no_sub_paths(client: TestClient) -> None:
    assert client.get("/metrics/x", follow_redirects=False).status_code == 404
    assert client.get("/metrics/", follow_redirects=False).status_code == 404
