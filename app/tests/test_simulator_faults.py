"""The knobs: each fault as a client sees it, and what the control API does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from starlette.types import Message, Scope

from allin_simulator.app import create_simulator
from allin_simulator.settings import PLATFORMS, Knobs, Settings
from simulator_support import BASIC, Simulation, post_id, simulation

every_platform = pytest.mark.parametrize("platform", PLATFORMS)

# Everything that a backend asks of a platform, and what a person's browser does.
REQUESTS: dict[str, Callable[[Simulation, str], Awaitable[object]]] = {
    "authorize": lambda simulator, platform: simulator.authorize(platform),
    "token": lambda simulator, platform: simulator.refresh(platform, "x"),
    "revoke": lambda simulator, platform: simulator.post_oauth(platform, "revoke", token="x"),
    "identity": lambda simulator, platform: simulator.identity(platform, "x"),
    "publish": lambda simulator, platform: simulator.publish(platform, "x", "Good morning"),
    "figures": lambda simulator, platform: simulator.figures(platform, "x", "1"),
}


@every_platform
@pytest.mark.parametrize("request_name", REQUESTS)
def test_down_is_a_lost_connection(platform: str, request_name: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            await simulator.put(platform, down=True)
            with pytest.raises(httpx2.RemoteProtocolError):
                await REQUESTS[request_name](simulator, platform)
            assert (await simulator.stats(platform))["faults"] == {"down": 1}
            await simulator.put(platform)
            await REQUESTS[request_name](simulator, platform)

    asyncio.run(scenario())


@every_platform
@pytest.mark.parametrize("request_name", REQUESTS)
def test_no_answer_is_a_timeout(platform: str, request_name: str) -> None:
    async def scenario() -> None:
        async with simulation(Settings(hang_seconds=0)) as simulator:
            await simulator.put(platform, timeout_ratio=1)
            with pytest.raises(httpx2.ReadTimeout):
                await REQUESTS[request_name](simulator, platform)
            assert (await simulator.stats(platform))["faults"] == {"timeout": 1}

    asyncio.run(scenario())


def test_hanging_request_ends_when_its_client_leaves() -> None:
    """With the default of 60 seconds: the test would be cut off before."""
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/facebook/me",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
    }
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async def scenario() -> None:
        with pytest.raises(httpx2.ReadTimeout):
            await create_simulator(Settings(knobs={"facebook": Knobs(timeout_ratio=1)}))(scope, receive, send)

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_latency_and_jitter() -> None:
    async def scenario() -> list[float]:
        settings = Settings(knobs={"facebook": Knobs(latency_seconds=2, latency_jitter_seconds=1)})
        async with simulation(settings) as simulator:
            for _ in range(50):
                await simulator.identity("facebook", "x")
            await simulator.identity("twitter", "x")
            return simulator.clock.slept

    slept = asyncio.run(scenario())
    assert len(slept) == 50
    assert all(2 <= seconds < 3 for seconds in slept)
    assert max(slept) - min(slept) > 0.5


@pytest.mark.parametrize(
    ("status", "code", "oauth"),
    [
        (503, "INTERNAL_SERVER_ERROR", "temporarily_unavailable"),
        (500, "INTERNAL_SERVER_ERROR", "temporarily_unavailable"),
        (599, "INTERNAL_SERVER_ERROR", "temporarily_unavailable"),
        (429, "TOO_MANY_REQUESTS", "temporarily_unavailable"),
        (401, "INVALID_ACCESS_TOKEN", "invalid_request"),
        (418, "INVALID_PARAMETER", "invalid_request"),
    ],
)
def test_error_status(status: int, code: str, oauth: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("linkedin"))["access_token"]
            await simulator.put("linkedin", error_ratio=1, error_status=status)
            answer = await simulator.identity("linkedin", token)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers.get("retry-after") == ("900" if status == 429 else None)
            answer = await simulator.refresh("linkedin", "x")
            assert (answer.status_code, answer.json()["error"]) == (status, oauth)
            page = await simulator.http.get("/linkedin/oauth/authorize")
            assert page.status_code == status

    asyncio.run(scenario())


@every_platform
def test_accepted_post_that_is_answered_with_an_error(platform: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect(platform))["access_token"]
            await simulator.put(platform, accept_then_fail_ratio=1)
            assert (await simulator.identity(platform, token)).status_code == 200
            failed = await simulator.publish(platform, token, "Once", "key")
            assert failed.status_code == 500
            await simulator.put(platform)
            again = await simulator.publish(platform, token, "Once", "key")
            (post,) = await simulator.posts()
            assert post["requests"] == 2
            assert post_id(platform, again).endswith(post["id"])
            assert (await simulator.stats(platform))["faults"] == {"accept_then_fail": 1}

    asyncio.run(scenario())


@every_platform
def test_denied_tokens(platform: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            members = await simulator.connect(platform)
            await simulator.put(platform, deny_tokens=True)
            assert (await simulator.identity(platform, members["access_token"])).status_code == 401
            refused = await simulator.refresh(platform, members["refresh_token"])
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
            await simulator.put(platform)
            assert (await simulator.identity(platform, members["access_token"])).status_code == 200
            # The refresh token was refused, not used up.
            assert (await simulator.refresh(platform, members["refresh_token"])).status_code == 200

    asyncio.run(scenario())


async def _fates(simulator: Simulation, count: int = 40) -> list[int]:
    return [(await simulator.identity("facebook", "x")).status_code for _ in range(count)]


def test_same_seed_same_faults() -> None:
    async def fates(seed: int) -> list[int]:
        async with simulation(Settings(seed=seed, knobs={"facebook": Knobs(error_ratio=0.5)})) as simulator:
            first = await _fates(simulator)
            await simulator.http.post("/control/reset")
            assert await _fates(simulator) == first
            return first

    first = asyncio.run(fates(1))
    assert 8 < first.count(503) < 32
    assert asyncio.run(fates(1)) == first
    assert asyncio.run(fates(2)) != first


def test_another_knob_does_not_change_who_suffers() -> None:
    async def fates(**knobs: float) -> list[int]:
        async with simulation() as simulator:
            await simulator.put("facebook", error_ratio=0.3, **knobs)
            return await _fates(simulator)

    assert asyncio.run(fates(latency_jitter_seconds=1, accept_then_fail_ratio=0.5)) == asyncio.run(fates())


def test_ratios_are_shares_of_all_requests() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("twitter"))["access_token"]
            await simulator.put("twitter", error_ratio=0.5, accept_then_fail_ratio=0.5)
            for _ in range(400):
                await simulator.publish("twitter", token, "Good morning")
            faults = (await simulator.stats("twitter"))["faults"]
            assert faults["error"] + faults["accept_then_fail"] == 400
            assert 150 < faults["error"] < 250

    asyncio.run(scenario())


def test_knobs_are_told_and_set() -> None:
    async def scenario() -> None:
        at_start = Knobs(latency_seconds=0.25, rate_limit=5)
        async with simulation(Settings(knobs={"facebook": at_start})) as simulator:
            told = (await simulator.http.get("/control/platforms")).json()
            assert list(told) == list(PLATFORMS)
            assert (told["facebook"]["latency_seconds"], told["twitter"]["latency_seconds"]) == (0.25, 0)
            await simulator.put("facebook", error_ratio=0.5, rate_limit=7)
            one = (await simulator.http.get("/control/platforms/facebook")).json()
            assert (one["latency_seconds"], one["error_ratio"], one["rate_limit"]) == (0.25, 0.5, 7)
            # What is not named is as at the start, not as before.
            await simulator.put("facebook", down=True)
            one = (await simulator.http.get("/control/platforms/facebook")).json()
            assert (one["error_ratio"], one["rate_limit"], one["down"]) == (0, 5, True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b"\xff", ""),
        (b'{"latency": 1}', "unknown field `latency`"),
        (b'{"latency_seconds": -1}', "latency_seconds"),
        (b'{"error_ratio": 1.1}', "error_ratio"),
        (b'{"error_status": 200}', "error_status"),
        (b'{"down": 1}', "down"),
        (b'{"error_ratio": 0.5, "timeout_ratio": 0.6}', "add up to at most 1"),
    ],
)
def test_bad_knobs_change_nothing(body: bytes, part: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            await simulator.put("facebook", error_ratio=0.25)
            response = await simulator.http.put("/control/platforms/facebook", content=body)
            assert response.status_code == 400
            assert part in response.json()["error"]
            assert (await simulator.http.get("/control/platforms/facebook")).json()["error_ratio"] == 0.25

    asyncio.run(scenario())


def test_reset_is_as_at_the_start() -> None:
    async def scenario() -> None:
        async with simulation(Settings(knobs={"twitter": Knobs(rate_limit=2)})) as simulator:
            revoked = await simulator.connect("twitter")
            members = await simulator.connect("twitter")
            token = members["access_token"]
            await simulator.post_oauth("twitter", "revoke", token=revoked["access_token"])
            await simulator.publish("twitter", token, "First", "key")
            await simulator.publish("twitter", token, "First", "key")
            await simulator.put("twitter", deny_tokens=True)
            before = (await simulator.http.get("/control/posts")).json()
            assert before["published"] == len(before["posts"]) == 1
            assert (await simulator.http.post("/control/reset")).status_code == 204
            assert (await simulator.http.get("/control/posts")).json() == {"posts": [], "published": 0}
            empty = {"requests": {}, "faults": {}, "published": 0, "repeated": 0}
            assert (await simulator.http.get("/control/stats")).json() == dict.fromkeys(PLATFORMS, empty)
            # Knobs, rate limit, idempotency keys and revoked tokens too; accounts stay connected.
            answers = [await simulator.publish("twitter", token, "Second", "key") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [201, 201, 429]
            (post,) = await simulator.posts()
            assert (post["text"], post["requests"]) == ("Second", 2)
            assert (await simulator.identity("twitter", revoked["access_token"])).status_code == 200

    asyncio.run(scenario())


def test_stats_count_every_request() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("instagram"))["access_token"]
            post = post_id("instagram", await simulator.publish("instagram", token, "Good morning"))
            await simulator.figures("instagram", token, post)
            await simulator.identity("instagram", "x")
            assert await simulator.stats("instagram") == {
                "requests": {"authorize": 1, "token": 1, "create": 1, "publish": 1, "figures": 1, "identity": 1},
                "faults": {},
                "published": 1,
                "repeated": 0,
            }

    asyncio.run(scenario())


def test_memory_is_bounded() -> None:
    async def scenario() -> None:
        async with simulation(Settings(remembered=3)) as simulator:
            tokens = [(await simulator.connect("twitter", f"person-{number}"))["access_token"] for number in range(9)]
            for number, token in enumerate(tokens):
                await simulator.publish("twitter", token, "x" * 100, f"key-{number}")
            content = (await simulator.http.get("/control/posts")).json()
            assert [post["idempotency_key"] for post in content["posts"]] == ["key-8", "key-7", "key-6"]
            assert content["published"] == 9
            await simulator.publish("twitter", tokens[8], "Remembered", "key-8")
            await simulator.publish("twitter", tokens[0], "Forgotten", "key-0")
            stats = await simulator.stats("twitter")
            assert (stats["published"], stats["repeated"]) == (10, 1)

    asyncio.run(scenario())


def test_long_texts_are_shortened_in_memory() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("facebook"))["access_token"]
            await simulator.publish("facebook", token, "x" * 60_000)
            assert (await simulator.publish("facebook", token, "x", "k" * 201)).status_code == 400
            assert [len(post["text"]) for post in await simulator.posts()] == [500]

    asyncio.run(scenario())


def test_list_of_posts_is_for_a_platform_and_of_a_length() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            for platform in BASIC:
                token = (await simulator.connect(platform))["access_token"]
                for number in range(3):
                    await simulator.publish(platform, token, f"Post {number}")
            response = await simulator.http.get("/control/posts?platform=linkedin&limit=2")
            posts = response.json()["posts"]
            assert [(post["platform"], post["text"]) for post in posts] == [
                ("linkedin", "Post 2"),
                ("linkedin", "Post 1"),
            ]
            assert (await simulator.http.get("/control/posts?limit=-1")).status_code == 400

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["192.0.2.7", "testclient"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/control/posts"), ("POST", "/control/reset")])
def test_control_is_for_this_machine_only(host: str, method: str, path: str) -> None:
    async def scenario() -> int:
        transport = httpx2.ASGITransport(create_simulator(Settings()), client=(host, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://simulator.example.com") as client:
            return (await client.request(method, path)).status_code

    assert asyncio.run(scenario()) == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/control/platforms/myspace", 404),
        ("GET", "/myspace/me", 404),
        ("GET", "/facebook/nothing", 404),
        ("POST", "/facebook/me", 405),
        ("GET", "/facebook/me/", 404),
    ],
)
def test_there_is_nothing_else(method: str, path: str, status: int) -> None:
    async def scenario() -> int:
        async with simulation() as simulator:
            return (await simulator.http.request(method, path)).status_code

    assert asyncio.run(scenario()) == status
