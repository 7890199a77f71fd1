"""The traffic generator."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from collections import Counter
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from allin_backend import paths
from allin_backend.app import create_app
from allin_backend.metrics.contract import CACHE_TYPES, PLATFORMS
from allin_backend.security.encryption import make_key
from allin_backend.traffic import crowd
from allin_backend.traffic import people as people_module
from allin_backend.traffic.cli import main
from allin_backend.traffic.crowd import Crowd, Pace, Tally
from allin_backend.traffic.people import is_loopback
from allin_backend.traffic.shape import daily, flat
from allin_simulator.app import create_simulator
from allin_simulator.settings import Settings as SimulatorSettings
from support import DEADLINE, make_settings, running, running_backend


def test_runs_for_its_duration_at_its_rate(tmp_path: Path) -> None:
    with (
        running_backend(tmp_path) as (_, port),
        running(
            "allin_backend.traffic",
            f"--url=http://127.0.0.1:{port}",
            "--rate=50",
            "--shape=flat",
            "--duration=2",
            "--error-share=0",
        ) as process,
    ):
        assert process.wait() == 0

    (line,) = process.lines
    answers = int(line.split("stopped: ")[1].split()[0])
    assert 10 <= answers <= 500  # 100 steps expected, at random, of one to five requests; fewer on a busy machine
    assert set(re.findall(r"[0-9]xx", line)) == {"2xx"}


def test_backend_that_is_down_is_survived_and_noticed_when_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with running("allin_backend.traffic", f"--url=http://127.0.0.1:{port}", "--rate=50", "--shape=flat") as process:
        process.wait_for_line("no answer (ConnectError); trying again")
        with running_backend(tmp_path, ALLIN_PORT=str(port)):
            process.wait_for_line("answers again")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0

    assert len(process.lines) <= 4  # quiet: not a line for every failure
    assert "stopped" in process.lines[-1]


SIMULATOR = "http://127.0.0.1:7080"


def send(directory: Path, registry: CollectorRegistry, steps: int, *, error_share: float, size: int = 4) -> Crowd:
    """Have people take steps on a backend and simulated platforms, all in this process."""
    keys, file = directory / "keys", directory / "platforms.json"
    keys.write_text(make_key(), encoding="utf-8")
    clients = {name: {"client_id": "traffic", "client_secret": "secret"} for name in PLATFORMS}
    file.write_text(json.dumps(clients), encoding="utf-8")
    settings = make_settings(
        directory,
        ALLIN_TOKEN_KEYS_FILE=str(keys),
        ALLIN_PLATFORMS_FILE=str(file),
        ALLIN_PLATFORMS_URL=SIMULATOR,
        ALLIN_PUBLISH_INTERVAL_SECONDS="0.05",
        ALLIN_RATE_LIMIT_PER_MINUTE="0",
        ALLIN_SIGN_IN_LIMIT_PER_MINUTE="0",
    )
    platforms = httpx2.ASGITransport(create_simulator(SimulatorSettings()))
    app = create_app(settings, registry, platforms_http=platforms)

    async def scenario() -> Crowd:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), mounts={SIMULATOR: platforms}, base_url="http://127.0.0.1"
            ) as http,
        ):
            people = Crowd(http, Pace(5, error_share), size=size, seed=7)
            for _ in range(steps):
                await people.step()
            return people

    return asyncio.run(scenario())


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum over all series with these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_people_use_every_route_and_are_refused_only_where_they_say_no(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_module, "_DUE_SECONDS", (0.0, 0.05))
    monkeypatch.setattr(people_module, "MOST_POSTS", 5)

    crowd_after = send(tmp_path, registry, 700, error_share=0)

    answers = crowd_after.tally.answers
    assert answers["5xx"] == crowd_after.tally.unanswered == 0
    # A permission that was not given, a post that had gone out before it could be taken back.
    refused = [
        counted(registry, "allin_http_requests_total", route=paths.CALLBACK, status_code="422"),
        counted(registry, "allin_http_requests_total", route=paths.SCHEDULE, status_code="409"),
    ]
    assert answers["4xx"] == sum(refused) < 30
    for route in set(paths.MEASURED) - {paths.READY, paths.OPENAPI}:
        assert counted(registry, "allin_http_requests_total", route=route) > 0, route
    for cache_type in CACHE_TYPES:
        assert counted(registry, "allin_cache_hits_total", cache_type=cache_type) > 0, cache_type
    for name in ("posts_scheduled", "posts_published", "social_api_calls", "oauth_operations"):
        assert counted(registry, f"allin_{name}_total") > 0, name
    assert counted(registry, "allin_posts_failed_total") == 0
    assert all(len(person.posts) <= 6 for person in crowd_after.people)


def test_mistakes_are_refusals_of_several_kinds(tmp_path: Path, registry: CollectorRegistry) -> None:
    crowd_after = send(tmp_path, registry, 60, error_share=1)

    assert dict(crowd_after.tally.answers) == {"4xx": 60}
    for status in ("400", "401", "404", "422"):
        assert counted(registry, "allin_http_requests_total", status_code=status) > 0, status
    assert counted(registry, "allin_sign_ins_total", status="wrong_credentials") > 0


def test_people_are_known_again_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        registry = CollectorRegistry()
        answers = send(tmp_path, registry, 30, error_share=0, size=1).tally.answers
        assert answers["5xx"] == 0
    # Signing up again is refused, signing in is not.
    assert counted(registry, "allin_http_requests_total", route=paths.USERS, status_code="409") == 1
    assert counted(registry, "allin_sign_ins_total", status="success") >= 1


def client(answer: object) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://127.0.0.1")  # type: ignore[arg-type]


def test_failures_that_come_together_lengthen_the_pause_once() -> None:
    async def refuse(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0)
        raise httpx2.ConnectError("down")

    async def scenario() -> list[float]:
        async with client(refuse) as http:
            people = Crowd(http, Pace(5), size=10)
            pauses = []
            for _ in range(6):
                await asyncio.gather(*(people.step() for _ in range(5)))
                pauses.append(people.pause)
            return pauses

    assert asyncio.run(scenario()) == [1, 2, 4, 8, 15, 15]


def test_backend_that_is_down_is_asked_rarely() -> None:
    asked = 0

    async def refuse(_request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        raise httpx2.ConnectError("down")

    async def scenario() -> None:
        async with client(refuse) as http:
            await Crowd(http, Pace(200), size=50).run(duration=1.5)

    asyncio.run(scenario())
    assert 2 <= asked < 20  # 300 at the full rate


def test_slow_backend_gets_no_more_than_the_bound_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "MOST_IN_FLIGHT", 3)
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
        async with client(hold) as http:
            people = Crowd(http, Pace(200), size=50)
            run = asyncio.create_task(people.run())
            async with asyncio.timeout(DEADLINE):
                while people.tally.skipped < 5:
                    await asyncio.sleep(0.001)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run

    asyncio.run(scenario())
    assert (most, active) == (3, 0)


def test_one_person_does_one_thing_at_a_time() -> None:
    async def scenario() -> tuple[int, int]:
        release = asyncio.Event()
        asked = 0

        async def hold(_request: httpx2.Request) -> httpx2.Response:
            nonlocal asked
            asked += 1
            await release.wait()
            return httpx2.Response(503)

        async with client(hold) as http:
            people = Crowd(http, Pace(5), size=2)
            steps = [asyncio.create_task(people.step()) for _ in range(5)]
            async with asyncio.timeout(DEADLINE):
                while asked < 2 or people.tally.skipped < 3:
                    await asyncio.sleep(0.001)
            during = asked
            release.set()
            await asyncio.gather(*steps)
            return during, people.tally.skipped

    assert asyncio.run(scenario()) == (2, 3)


def test_report_says_what_happened_and_starts_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "REPORT_INTERVAL", 0.01)

    async def scenario() -> None:
        async with httpx2.AsyncClient() as http:
            people = Crowd(http, Pace(5), size=1)
            first = people.tally
            first.answers["2xx"] = 3
            report = asyncio.create_task(people.report())
            async with asyncio.timeout(DEADLINE):
                while people.tally is first:
                    await asyncio.sleep(0.001)
            report.cancel()

    asyncio.run(scenario())
    assert capsys.readouterr().out.startswith("allin-traffic: last minute: 3 2xx\n")


def test_people_of_a_real_platform_are_not_made_up() -> None:
    """Somebody who would be sent to a platform that is not on this machine goes no further."""
    asked: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        path = request.url.path
        if path.endswith("/platforms"):
            return httpx2.Response(200, json={"items": [{"name": "twitter"}]})
        if path.endswith("/authorizations"):
            return httpx2.Response(201, json={"url": "https://twitter.example.com/authorize?state=s", "state": "s"})
        if path.endswith("/accounts"):
            return httpx2.Response(200, json={"items": []})
        return httpx2.Response(201, json={"token": "t", "id": 1})

    async def scenario() -> None:
        async with client(answer) as http:
            person = Crowd(http, Pace(5), size=1, seed=1).people[0]
            for _ in range(50):
                await person._connect()

    asyncio.run(scenario())
    assert not [url for url in asked if "example.com" in url]
    assert sum("authorizations" in url for url in asked) == 1


def test_daily_shape_is_one_on_average_and_least_at_night() -> None:
    values = {hour / 4: daily(hour / 96) for hour in range(96)}

    assert sum(values.values()) / len(values) == pytest.approx(1.0)
    assert min(values.values()) > 0
    assert 0 <= min(values, key=values.__getitem__) <= 5
    assert all(values[hour] > 1.2 for hour in (9.0, 13.0, 19.0))
    assert sum(flat(part / 10) for part in range(10)) == 10


def test_pace_follows_the_hour_of_a_day_of_any_length() -> None:
    pace = Pace(10, shape=daily, day=240)

    night, noon = 20.0, 120.0  # two in the morning and noon, where an hour is ten seconds
    assert pace.now(night) == pytest.approx(10 * daily(2 / 24))
    assert pace.now(7 * 240 + noon) == pytest.approx(10 * daily(12 / 24))
    assert pace.now(night) < pace.now(noon) / 5


def test_the_first_people_come_most_often_and_everybody_stays_for_a_while() -> None:
    people = Crowd(httpx2.AsyncClient(), Pace(5), size=10, seed=3)

    steps = [person for person in (people._somebody() for _ in range(6000)) if person is not None]

    counts = Counter(people.people.index(person) for person in steps)
    assert len(counts) == 10
    assert counts[0] > 3 * counts[9]
    stayed = sum(one is other for one, other in pairwise(steps)) / len(steps)
    assert 0.85 < stayed < 0.98  # 11 of 12 steps, where one person is here at a time


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
        ["--people", "0"],
        ["--people", "x"],
        ["--shape", "round"],
        ["--day", "1"],
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
