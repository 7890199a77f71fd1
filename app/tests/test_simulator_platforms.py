"""How each simulated platform speaks."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from allin_simulator import people
from allin_simulator.settings import PLATFORMS, Knobs, Settings
from simulator_support import NOW, Clock, post_id, read_figures, simulation, usage

every_platform = pytest.mark.parametrize("platform", PLATFORMS)


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("facebook", {"id": "{id}", "name": "Sam"}),
        ("instagram", {"id": "{id}", "username": "sam"}),
        ("linkedin", {"sub": "{id}", "name": "Sam"}),
        (
            "tiktok",
            {
                "data": {"user": {"open_id": "{id}", "display_name": "Sam"}},
                "error": {"code": "ok", "message": "", "log_id": ""},
            },
        ),
        ("twitter", {"data": {"id": "{id}", "name": "Sam", "username": "sam"}}),
    ],
)
def test_identity(platform: str, names: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect(platform, "sam"))["access_token"]
            response = await simulator.identity(platform, token)
            assert response.status_code == 200
            assert response.json() == _filled(names, people.user_id(platform, "sam"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("platform", "status", "pattern"),
    [
        ("facebook", 200, r"\d{17}_\d+"),
        ("instagram", 200, r"\d+"),
        ("linkedin", 201, r"urn:li:share:\d+"),
        ("tiktok", 200, r"p_pub_url~v2\.\d+"),
        ("twitter", 201, r"\d+"),
    ],
)
def test_publish(platform: str, status: int, pattern: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect(platform, "sam"))["access_token"]
            response = await simulator.publish(platform, token, "Good morning")
            assert response.status_code == status
            assert re.fullmatch(pattern, post_id(platform, response))
            if platform == "linkedin":
                assert response.content == b""
            (post,) = await simulator.posts()
            assert post == {
                "platform": platform,
                "id": post["id"],
                "person": "sam",
                "text": "Good morning",
                "idempotency_key": None,
                "requests": 1,
                "created_at": NOW,
            }
            assert post_id(platform, response).endswith(post["id"])

    asyncio.run(scenario())


@every_platform
def test_repeated_key_is_the_same_post(platform: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect(platform))["access_token"]
            other = (await simulator.connect(platform, "somebody-else"))["access_token"]
            first = await simulator.publish(platform, token, "Once", "key-1")
            again = await simulator.publish(platform, token, "Once", "key-1")
            await simulator.publish(platform, token, "Twice", "key-2")
            await simulator.publish(platform, other, "A person's keys are their own", "key-1")
            assert post_id(platform, again) == post_id(platform, first)
            assert again.status_code == first.status_code
            posts = {(post["person"], post["idempotency_key"]): post["requests"] for post in await simulator.posts()}
            assert posts == {("alex", "key-1"): 2, ("alex", "key-2"): 1, ("somebody-else", "key-1"): 1}
            stats = await simulator.stats(platform)
            assert (stats["published"], stats["repeated"]) == (3, 1)

    asyncio.run(scenario())


@every_platform
def test_figures_grow_and_are_always_the_same(platform: str) -> None:
    async def scenario() -> list[dict[str, int]]:
        async with simulation() as simulator:
            token = (await simulator.connect(platform))["access_token"]
            post = post_id(platform, await simulator.publish(platform, token, "Good morning"))
            seen = []
            for age in (0, 600, 3000):
                simulator.clock.now = NOW + age
                seen.append(dict(read_figures(platform, await simulator.figures(platform, token, post))))
            return seen

    at_once, soon, later = asyncio.run(scenario())
    assert set(at_once.values()) == {0}
    assert all(soon[name] <= later[name] for name in later)
    assert 0 < soon["likes"] < later["likes"]
    assert asyncio.run(scenario()) == [at_once, soon, later]


@every_platform
def test_forgotten_post_has_its_figures_and_an_invented_one_has_none(platform: str) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with simulation(clock=clock) as simulator:
            token = (await simulator.connect(platform))["access_token"]
            post = post_id(platform, await simulator.publish(platform, token, "Before the restart"))
            clock.now += 600
            before = read_figures(platform, await simulator.figures(platform, token, post))
        async with simulation(clock=clock) as simulator:
            assert read_figures(platform, await simulator.figures(platform, token, post)) == before
            digits = re.search(r"\d+$", post)
            assert digits is not None
            invented = post.replace(digits[0], str(int(digits[0]) ^ 1))
            response = await simulator.figures(platform, token, invented)
        if platform == "tiktok":
            assert response.json()["data"]["videos"] == []
        else:
            assert response.status_code == (404 if platform in ("linkedin", "twitter") else 400)

    asyncio.run(scenario())


# By platform: the answers to a bad token, a text that is too long, a used-up limit and a broken service.
ERRORS = {
    "facebook": (
        (401, {"error": {"type": "OAuthException", "code": 190}}),
        (400, {"error": {"type": "OAuthException", "code": 100}}),
        (429, {"error": {"type": "OAuthException", "code": 4}}),
        (503, {"error": {"type": "OAuthException", "code": 2}}),
    ),
    "instagram": (
        (401, {"error": {"type": "OAuthException", "code": 190}}),
        (400, {"error": {"type": "OAuthException", "code": 100}}),
        (429, {"error": {"type": "OAuthException", "code": 4}}),
        (503, {"error": {"type": "OAuthException", "code": 2}}),
    ),
    "linkedin": (
        (401, {"status": 401, "code": "INVALID_ACCESS_TOKEN"}),
        (400, {"status": 400, "code": "INVALID_PARAMETER"}),
        (429, {"status": 429, "code": "TOO_MANY_REQUESTS"}),
        (503, {"status": 503, "code": "INTERNAL_SERVER_ERROR"}),
    ),
    "tiktok": (
        (401, {"data": {}, "error": {"code": "access_token_invalid", "log_id": ""}}),
        (200, {"data": {}, "error": {"code": "invalid_params", "log_id": ""}}),
        (429, {"data": {}, "error": {"code": "rate_limit_exceeded", "log_id": ""}}),
        (503, {"data": {}, "error": {"code": "internal_error", "log_id": ""}}),
    ),
    "twitter": (
        (401, {"title": "Unauthorized", "type": "about:blank", "status": 401}),
        (400, {"title": "Bad Request", "type": "about:blank", "status": 400}),
        (429, {"title": "Too Many Requests", "type": "about:blank", "status": 429}),
        (503, {"title": "Service Unavailable", "type": "about:blank", "status": 503}),
    ),
}


@every_platform
def test_errors(platform: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect(platform))["access_token"]
            answers = [
                await simulator.identity(platform, "invented"),
                await simulator.publish(platform, token, "x" * 100_000),
            ]
            await simulator.put(platform, rate_limit=1)
            simulator.clock.now += 1000  # into the next window
            limited = (await simulator.connect(platform))["access_token"]
            await simulator.identity(platform, limited)
            answers.append(await simulator.identity(platform, limited))
            await simulator.put(platform, error_ratio=1)
            answers.append(await simulator.identity(platform, token))
            assert await simulator.posts() == []
        for response, (status, content) in zip(answers, ERRORS[platform], strict=True):
            assert response.status_code == status, response.text
            assert _without_messages(response.json()) == content

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("platform", "first", "last", "refused"),
    [
        (
            "facebook",
            {"call_count": 50, "total_time": 25, "total_cputime": 12},
            {"call_count": 100, "total_time": 50, "total_cputime": 25},
            {"call_count": 100, "total_time": 50, "total_cputime": 25},
        ),
        (
            "instagram",
            {
                "type": "instagram",
                "call_count": 50,
                "total_cputime": 12,
                "total_time": 25,
                "estimated_time_to_regain_access": 0,
            },
            {
                "type": "instagram",
                "call_count": 100,
                "total_cputime": 25,
                "total_time": 50,
                "estimated_time_to_regain_access": 0,
            },
            {
                "type": "instagram",
                "call_count": 100,
                "total_cputime": 25,
                "total_time": 50,
                "estimated_time_to_regain_access": 2,
            },
        ),
        ("linkedin", None, None, "90"),
        ("tiktok", None, None, None),
        (
            "twitter",
            {"limit": "2", "remaining": "1", "reset": str(int(NOW) + 100)},
            {"limit": "2", "remaining": "0", "reset": str(int(NOW) + 100)},
            {"limit": "2", "remaining": "0", "reset": str(int(NOW) + 100)},
        ),
    ],
)
def test_rate_limit(platform: str, first: object, last: object, refused: object) -> None:
    async def scenario() -> None:
        settings = Settings(knobs={platform: Knobs(rate_limit=2, rate_window_seconds=100)})
        async with simulation(settings) as simulator:
            token = (await simulator.connect(platform))["access_token"]
            # Facebook counts what a whole client asks for, the others each account.
            other = (await simulator.connect(platform))["access_token"]
            answers = [await simulator.identity(platform, token)]
            simulator.clock.now += 10
            answers += [await simulator.identity(platform, token) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert [usage(platform, answer) for answer in answers] == [first, last, refused]
            other_status = (await simulator.identity(platform, other)).status_code
            assert other_status == (429 if platform == "facebook" else 200)
            assert (await simulator.stats(platform))["faults"] == {"rate_limited": 2 if platform == "facebook" else 1}
            simulator.clock.now += 90
            assert (await simulator.identity(platform, token)).status_code == 200

    asyncio.run(scenario())


def test_twitter_counts_each_endpoint() -> None:
    async def scenario() -> None:
        async with simulation(Settings(knobs={"twitter": Knobs(rate_limit=1)})) as simulator:
            token = (await simulator.connect("twitter"))["access_token"]
            answers = [
                await simulator.identity("twitter", token),
                await simulator.publish("twitter", token, "Good morning"),
                await simulator.publish("twitter", token, "Good evening"),
            ]
            assert [answer.status_code for answer in answers] == [200, 201, 429]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("platform", "longest", "too_long"),
    [
        ("facebook", "x" * 63_206, "x" * 63_207),
        ("instagram", "x" * 2_200, "x" * 2_201),
        ("linkedin", r"\(" * 3_000, r"\(" * 3_001),
        ("tiktok", "\N{GRINNING FACE}" * 1_100, "\N{GRINNING FACE}" * 1_101),
        ("twitter", "\N{GRINNING FACE}" * 140, "\N{GRINNING FACE}" * 140 + "x"),
        ("twitter", "x" * 256 + " https://example.com/" + "y" * 300, "x" * 257 + " https://example.com/" + "y" * 300),
    ],
)
def test_length_is_counted_as_the_platform_does(platform: str, longest: str, too_long: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect(platform))["access_token"]
            await simulator.publish(platform, token, too_long)
            assert await simulator.posts() == []
            await simulator.publish(platform, token, longest)
            (post,) = await simulator.posts()
            assert post["text"][:10] == longest.replace("\\", "")[:10]

    asyncio.run(scenario())


def test_no_limit_no_word_of_one() -> None:
    async def scenario() -> None:
        async with simulation(Settings(knobs={"twitter": Knobs(rate_limit=0)})) as simulator:
            token = (await simulator.connect("twitter"))["access_token"]
            assert "x-rate-limit-limit" not in (await simulator.identity("twitter", token)).headers

    asyncio.run(scenario())


def test_instagram_container_is_published_once() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("instagram"))["access_token"]
            stranger = (await simulator.connect("instagram", "stranger"))["access_token"]

            async def publish(token: str, key: str | None = None) -> int:
                headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
                response = await simulator.http.post("/instagram/me/media_publish", data=form, headers=headers)
                return response.status_code

            headers = {"Authorization": f"Bearer {token}"}
            made = await simulator.http.post("/instagram/me/media", data={"caption": "Once"}, headers=headers)
            form = {"creation_id": made.json()["id"]}
            assert await publish(stranger, "key") == 400
            assert await publish(token, "key") == 200
            assert await publish(token, "key") == 200
            assert await publish(token) == 400
            assert await publish(token, "another") == 400
            assert len(await simulator.posts()) == 1
            await simulator.http.post("/control/reset")
            assert await publish(token, "key") == 400

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        ({}, {"LinkedIn-Version": "202606"}, 201),
        ({}, {}, 400),
        ({"author": "urn:li:person:1"}, {"LinkedIn-Version": "202606"}, 403),
        ({"lifecycleState": "DRAFT"}, {"LinkedIn-Version": "202606"}, 400),
        ({"visibility": "EVERYBODY"}, {"LinkedIn-Version": "202606"}, 400),
    ],
)
def test_linkedin_is_strict(changes: dict[str, str], headers: dict[str, str], status: int) -> None:
    async def scenario() -> int:
        async with simulation() as simulator:
            token = (await simulator.connect("linkedin"))["access_token"]
            post = {
                "author": f"urn:li:person:{people.user_id('linkedin', 'alex')}",
                "commentary": "Good morning",
                "visibility": "PUBLIC",
                "lifecycleState": "PUBLISHED",
            }
            response = await simulator.http.post(
                "/linkedin/rest/posts", json=post | changes, headers={"Authorization": f"Bearer {token}"} | headers
            )
            return response.status_code

    assert asyncio.run(scenario()) == status


def test_tiktok_says_what_became_of_a_post() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("tiktok"))["access_token"]
            publish_id = post_id("tiktok", await simulator.publish("tiktok", token, "Good morning"))
            response = await simulator.http.post(
                "/tiktok/v2/post/publish/status/fetch/",
                json={"publish_id": publish_id},
                headers={"Authorization": f"Bearer {token}"},
            )
            data = response.json()["data"]
            assert data["status"] == "PUBLISH_COMPLETE"
            (video_id,) = data["publicaly_available_post_id"]
            figures = await simulator.figures("tiktok", token, str(video_id))
            assert figures.json()["data"]["videos"][0]["id"] == str(video_id)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("platform", "path", "content"),
    [
        ("twitter", "/2/tweets", b"{"),
        ("twitter", "/2/tweets", b'["text"]'),
        ("twitter", "/2/tweets", b'{"text": 1}'),
        ("twitter", "/2/tweets", b'{"text": " "}'),
        ("facebook", "/me/feed", b"\xff=%"),
        ("tiktok", "/v2/post/publish/content/init/", b'{"post_info": []}'),
        ("tiktok", "/v2/video/query/", b'{"filters": {"video_ids": "1"}}'),
    ],
)
def test_bad_body_is_refused(platform: str, path: str, content: bytes) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            headers = {"Authorization": f"Bearer {(await simulator.connect(platform))['access_token']}"}
            response = await simulator.http.post(f"/{platform}{path}", content=content, headers=headers)
            assert response.status_code == (200 if platform == "tiktok" else 400)
            assert response.json().get("error", {"code": 400}) != {"code": "ok"}
            too_large = await simulator.http.post(f"/{platform}{path}", content=b" " * 300_000, headers=headers)
            assert too_large.status_code == 413
            assert await simulator.posts() == []

    asyncio.run(scenario())


def _filled(template: Any, identifier: str) -> Any:
    if isinstance(template, dict):
        return {name: _filled(part, identifier) for name, part in template.items()}
    return template.replace("{id}", identifier)


def _without_messages(content: Any) -> Any:
    if isinstance(content, dict):
        hidden = ("message", "detail")
        assert all(content[name] for name in hidden if name in content)
        return {name: _without_messages(part) for name, part in content.items() if name not in hidden}
    return content
