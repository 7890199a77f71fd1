"""Jobs go on after failures, and end when they are told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from allin_backend.background import Background, Job
from allin_backend.metrics.work import WorkMetrics
from support import DEADLINE


def runs(metrics: WorkMetrics, job: str, status: str) -> float:
    family = metrics.background_runs.family()
    (value,) = [s.value for s in family.samples if s.labels == {"task": job, "status": status}]
    return float(value)


async def reaches(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_job_runs_again_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def job() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError("no database")

    async def scenario() -> None:
        background = Background([Job("survey", 0.001, job)], metrics)
        background.start()
        await reaches(lambda: calls >= 5)
        await background.stop(DEADLINE)

    metrics = WorkMetrics()
    before = metrics.background_last_success.get("survey")
    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())

    assert runs(metrics, "survey", "error") == 2
    assert runs(metrics, "survey", "success") >= 3
    assert before is not None
    assert (metrics.background_last_success.get("survey") or 0) > before
    assert [record.fields["error"] for record in caplog.records] == ["ConnectionError: no database"] * 2  # type: ignore[attr-defined]


def test_a_failing_job_does_not_count_as_success() -> None:
    async def job() -> None:
        raise ValueError

    async def scenario() -> None:
        background = Background([Job("publish", 0.001, job)], metrics)
        background.start()
        await reaches(lambda: runs(metrics, "publish", "error") >= 2)
        await background.stop(DEADLINE)

    metrics = WorkMetrics()
    before = metrics.background_last_success.get("publish")
    asyncio.run(scenario())

    assert runs(metrics, "publish", "success") == 0
    assert metrics.background_last_success.get("publish") == before


def test_a_slow_job_does_not_hold_up_another() -> None:
    async def slow() -> None:
        await asyncio.Event().wait()

    async def quick() -> None:
        return

    async def scenario() -> None:
        background = Background([Job("publish", 0.001, slow), Job("survey", 0.001, quick)], metrics)
        background.start()
        await reaches(lambda: runs(metrics, "survey", "success") >= 2)
        await background.stop(0.01)

    metrics = WorkMetrics()
    asyncio.run(scenario())

    assert runs(metrics, "publish", "success") == 0


def test_a_job_with_more_to_do_runs_again_at_once() -> None:
    left = 3

    async def job() -> bool:
        nonlocal left
        left -= 1
        return left > 0

    async def scenario() -> None:
        background = Background([Job("publish", 3600.0, job)], metrics)
        background.start()
        await reaches(lambda: left == 0)
        await background.stop(DEADLINE)

    metrics = WorkMetrics()
    asyncio.run(scenario())

    assert runs(metrics, "publish", "success") == 3


@pytest.mark.parametrize(("grace", "finished"), [(DEADLINE, True), (0.01, False)])
def test_stop_lets_a_run_finish_within_the_grace(grace: float, finished: bool) -> None:
    done: list[str] = []

    async def scenario() -> None:
        started, release = asyncio.Event(), asyncio.Event()

        async def job() -> bool:
            started.set()
            await release.wait()
            done.append("finished")
            return True  # more to do, but nothing more may begin

        background = Background([Job("publish", 0.001, job)], WorkMetrics())
        background.start()
        await started.wait()
        background.drain()
        if finished:
            release.set()
        await background.stop(grace)

    asyncio.run(scenario())

    assert done == ["finished"] * finished


def test_stop_before_start_does_nothing() -> None:
    asyncio.run(asyncio.wait_for(Background([], WorkMetrics()).stop(1.0), DEADLINE))
