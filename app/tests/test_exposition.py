"""How /metrics is rendered."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.testclient import TestClient

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


def test_content_type_is_the_classic_format(client: TestClient) -> None:
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})

    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert not re.search(r"_created[ {]", response.text)


def test_metrics_has_no_sub_paths(client: TestClient) -> None:
    assert client.get("/metrics/x", follow_redirects=False).status_code == 404
    assert client.get("/metrics/", follow_redirects=False).status_code == 404
