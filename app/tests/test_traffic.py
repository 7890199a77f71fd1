"""The traffic generator."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from allin_backend import traffic
from allin_backend.traffic import Tally, Traffic, is_loopback, main
from support import DEADLINE, running, running_backend


def send(app: Starlette, count: int, *, error_share: float) -> Traffic:
    """Send ``count`` requests straight into the application."""

    async def scenario() -> Traffic:
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                generator = Traffic(client, rate=5, error_share=error_share, seed=7)
                for _ in range(count):
                    await generator._send()
                return generator

    return asyncio.run(scenario())


def test_mix_reaches_every_route_and_is_refused_only_on_purpose(app: Starlette, registry: CollectorRegistry) -> None:
    generator = send(app, 400, error_share=0)

    assert set(generator.tally.answers) == {"2xx"}
    assert generator.tally.unanswered == 0
    for method, route, status in [
        ("GET", "/", "200"),
        ("GET", "/health", "200"),
        ("GET", "/api/v1/posts", "200"),
        ("GET", "/api/v1/posts/{post_id}", "200"),
        ("GET", "/api/v1/users/me", "200"),
        ("POST", "/api/v1/users", "201"),
        ("POST", "/api/v1/sessions", "201"),
        ("POST", "/api/v1/posts", "201"),
    ]:
        labels = {"method": method, "route": route, "status_code": status}
        assert (registry.get_sample_value("allin_http_requests_total", labels) or 0) > 0, labels


def test_error_share_makes_refusals_of_several_kinds(app: Starlette, registry: CollectorRegistry) -> None:
    generator = send(app, 60, error_share=1)

    assert dict(generator.tally.answers) == {"4xx": 60}
    for method, route, status in [
        ("GET", "unmatched", "404"),
        ("GET", "/api/v1/users/me", "401"),
        ("POST", "/api/v1/users", "422"),
    ]:
        labels = {"method": method, "route": route, "status_code": status}
        assert (registry.get_sample_value("allin_http_requests_total", labels) or 0) > 0, labels


def test_records_are_bounded(app: Starlette, monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry) -> None:
    monkeypatch.setattr(traffic, "_MOST_RECORDS", 5)
    generator = send(app, 300, error_share=0)

    assert len(generator._posts) <= 5
    assert len(generator._users) <= 5
    labels = {"method": "DELETE", "route": "/api/v1/posts/{post_id}", "status_code": "204"}
    assert (registry.get_sample_value("allin_http_requests_total", labels) or 0) > 0


def test_runs_for_its_duration_at_its_rate(tmp_path: Path) -> None:
    with (
        running_backend(tmp_path) as (_, port),
        running(
            "allin_backend.traffic", f"--url=http://127.0.0.1:{port}", "--rate=50", "--duration=2", "--error-share=0"
        ) as process,
    ):
        assert process.wait() == 0

    (line,) = process.lines
    answers = int(line.split("stopped: ")[1].split()[0])
    assert 10 <= answers <= 160  # 100 expected, at random; fewer on a busy machine
    assert "4xx" not in line
    assert "5xx" not in line


def test_backend_that_is_down_is_survived_and_noticed_when_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with running("allin_backend.traffic", f"--url=http://127.0.0.1:{port}", "--rate=50") as process:
        process.wait_for_line("no answer (ConnectError); trying again")
        with running_backend(tmp_path, ALLIN_PORT=str(port)):
            process.wait_for_line("answers again")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0

    assert len(process.lines) <= 4  # quiet: not a line for every failure
    assert "stopped" in process.lines[-1]


def test_failures_that_come_together_lengthen_the_pause_once() -> None:
    async def refuse(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0)
        raise httpx2.ConnectError("down")

    async def scenario() -> list[float]:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse), base_url="http://127.0.0.1") as client:
            generator = Traffic(client, rate=5, error_share=0)
            pauses = []
            for _ in range(6):
                await asyncio.gather(*(generator._send() for _ in range(5)))
                pauses.append(generator._down_for)
            return pauses

    assert asyncio.run(scenario()) == [1, 2, 4, 8, 15, 15]


def test_backend_that_is_down_is_asked_rarely() -> None:
    asked = 0

    async def refuse(_request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        raise httpx2.ConnectError("down")

    async def scenario() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse), base_url="http://127.0.0.1") as client:
            await Traffic(client, rate=200, error_share=0).run(duration=1.5)

    asyncio.run(scenario())
    assert 2 <= asked < 20  # 300 at the full rate


def test_slow_backend_gets_no_more_than_the_bound_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "_MOST_IN_FLIGHT", 3)
    active = most = 0

    async def hold(_request: httpx2.Request) -> httpx2.Response:
        nonlocal active, most
        active += 1
        most = max(most, active)
        try:
            await asyncio.Event().wait()
        finally:
            active -= 1
        raise AssertionError("never reached")

    async def scenario() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(hold), base_url="http://127.0.0.1") as client:
            generator = Traffic(client, rate=200, error_share=1)
            run = asyncio.create_task(generator.run())
            async with asyncio.timeout(DEADLINE):
                while generator.tally.skipped < 5:
                    await asyncio.sleep(0.001)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run

    asyncio.run(scenario())
    assert (most, active) == (3, 0)


def test_report_says_what_happened_and_starts_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(traffic, "_REPORT_INTERVAL", 0.01)

    async def scenario() -> None:
        async with httpx2.AsyncClient() as client:
            generator = Traffic(client, rate=5, error_share=0)
            first = generator.tally
            first.answers["2xx"] = 3
            report = asyncio.create_task(generator.report())
            async with asyncio.timeout(DEADLINE):
                while generator.tally is first:
                    await asyncio.sleep(0.001)
            report.cancel()

    asyncio.run(scenario())
    assert capsys.readouterr().out.startswith("allin-traffic: last minute: 3 2xx\n")


@pytest.mark.parametrize(
    ("tally", "line"),
    [
        (Tally(), "no answers"),
        (Tally(Counter({"4xx": 1, "2xx": 9}), 2, 3), "9 2xx, 1 4xx; 2 without answer; 3 not sent, too many in flight"),
    ],
)
def test_tally(tally: Tally, line: str) -> None:
    assert tally.line() == line


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "http://192.0.2.1:7000"],
        ["--url", "http://backend.example.com"],
        ["--url", "http://127.0.0.1@192.0.2.1"],
        ["--url", "127.0.0.1:7000"],
        ["--url", "ftp://127.0.0.1"],
        ["--url", "http://"],
        ["--url", "http://127.0.0.1:99999"],
        ["--url", "http://[::1"],
        ["--rate", "0"],
        ["--rate", "1000"],
        ["--rate", "x"],
        ["--rate", "nan"],
        ["--duration", "0"],
        ["--error-share", "1.1"],
        ["--error-share", "-0.1"],
    ],
)
def test_unusable_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "allin-traffic: error" in capsys.readouterr().err
