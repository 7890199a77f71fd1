"""The simulated platforms' OAuth."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser

import httpx2
import pytest

from allin_simulator.settings import PLATFORMS, Client, Settings
from simulator_support import CHALLENGE, REDIRECT, SCOPE, Clock, Simulation, simulation

every_platform = pytest.mark.parametrize("platform", PLATFORMS)
CLIENTS = {name: Client("the-client", "the-secret") for name in PLATFORMS}


async def _is_good(simulator: Simulation, platform: str, token: str) -> bool:
    return (await simulator.identity(platform, token)).status_code == 200


@every_platform
def test_connecting(platform: str) -> None:
    async def scenario() -> None:
        async with simulation(Settings(clients=CLIENTS)) as simulator:
            back = await simulator.authorize(platform)
            assert back == {"code": back["code"], "state": "the-state"}
            response = await simulator.redeem(platform, back["code"])
            assert response.status_code == 200
            assert response.headers["cache-control"] == "no-store"
            members = response.json()
            assert {name: members[name] for name in ("token_type", "expires_in", "scope")} == {
                "token_type": "bearer",
                "expires_in": 3600,
                "scope": SCOPE,
            }
            assert ("open_id" in members) == (platform == "tiktok")
            assert await _is_good(simulator, platform, members["access_token"])
            # Each token is good for one thing, on one platform.
            assert not await _is_good(simulator, platform, members["refresh_token"])
            elsewhere = PLATFORMS[PLATFORMS.index(platform) - 1]
            assert not await _is_good(simulator, elsewhere, members["access_token"])
            assert (await simulator.refresh(platform, members["access_token"])).status_code == 400

    asyncio.run(scenario())


def test_person_says_no() -> None:
    async def scenario() -> dict[str, str]:
        async with simulation() as simulator:
            return await simulator.authorize("facebook", decision="deny")

    back = asyncio.run(scenario())
    assert back == {"error": "access_denied", "error_description": "The person said no.", "state": "the-state"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"login_hint": "<b>"}, "invalid_request"),
        ({"scope": "x" * 1001}, "invalid_request"),
    ],
)
def test_refused_authorization_goes_back(changes: dict[str, str], error: str) -> None:
    async def scenario() -> dict[str, str]:
        async with simulation() as simulator:
            return await simulator.authorize("facebook", **changes)

    back = asyncio.run(scenario())
    assert (back["error"], back["state"]) == (error, "the-state")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "somebody-else"},
        {"client_id": ""},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "https://app.example.com/#there"},
        {"redirect_uri": "https://[/"},
        {"redirect_uri": ""},
        {"redirect_uri": "https://app.example.com/" + "x" * 2000},
    ],
)
def test_nobody_is_sent_to_a_doubtful_place(changes: dict[str, str]) -> None:
    async def scenario() -> httpx2.Response:
        query = {"client_id": "the-client", "redirect_uri": REDIRECT, "response_type": "code"}
        async with simulation(Settings(clients=CLIENTS)) as simulator:
            return await simulator.http.get("/facebook/oauth/authorize", params=query | changes)

    response = asyncio.run(scenario())
    assert response.status_code == 400
    assert "location" not in response.headers


class _Form(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.decisions: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        members = {name: text or "" for name, text in attrs}
        self.tags.add(tag)
        if tag == "input":
            self.fields[members["name"]] = members["value"]
        elif tag == "button":
            self.decisions.append(members["value"])


def test_page_asks_the_person() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            query = {
                "response_type": "code",
                "client_id": "the-client",
                "redirect_uri": REDIRECT,
                "scope": SCOPE,
                "state": '"><script>',
                "code_challenge": CHALLENGE,
                "code_challenge_method": "S256",
                "decision": "ask",
            }
            page = await simulator.http.get("/facebook/oauth/authorize", params=query)
            form = _Form(page.text)
            assert form.decisions == ["allow", "deny"]
            assert "script" not in form.tags
            del query["decision"]
            assert form.fields == query | {"login_hint": "alex"}
            back = await simulator.authorize("facebook", **form.fields, decision="allow")
            assert (await simulator.redeem("facebook", back["code"])).status_code == 200

    asyncio.run(scenario())


@every_platform
@pytest.mark.parametrize(
    "changes", [{"code_verifier": "wrong"}, {"code_verifier": ""}, {"redirect_uri": "https://app.example.com/other"}]
)
def test_wrong_verifier_uses_the_code_up(platform: str, changes: dict[str, str]) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            code = (await simulator.authorize(platform))["code"]
            response = await simulator.redeem(platform, code, **changes)
            assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
            assert (await simulator.redeem(platform, code)).status_code == 400

    asyncio.run(scenario())


@every_platform
def test_reused_code_is_refused_and_takes_the_tokens_back(platform: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            code = (await simulator.authorize(platform))["code"]
            token = (await simulator.redeem(platform, code)).json()["access_token"]
            assert await _is_good(simulator, platform, token)
            response = await simulator.redeem(platform, code)
            assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
            assert not await _is_good(simulator, platform, token)

    asyncio.run(scenario())


def test_code_ends_and_belongs_to_one_platform() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            code = (await simulator.authorize("facebook"))["code"]
            assert (await simulator.redeem("instagram", code)).status_code == 400
            simulator.clock.now += 60
            assert (await simulator.redeem("facebook", code)).status_code == 400

    asyncio.run(scenario())


@every_platform
def test_access_token_ends_and_is_refreshed(platform: str) -> None:
    async def scenario() -> None:
        async with simulation(Settings(token_seconds=100, refresh_seconds=1000)) as simulator:
            first = await simulator.connect(platform)
            simulator.clock.now += 100
            assert not await _is_good(simulator, platform, first["access_token"])
            response = await simulator.refresh(platform, first["refresh_token"])
            assert response.status_code == 200
            assert await _is_good(simulator, platform, response.json()["access_token"])
            simulator.clock.now += 900
            late = await simulator.refresh(platform, first["refresh_token"])
            assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")

    asyncio.run(scenario())


@every_platform
def test_refresh_tokens_rotate_where_they_do(platform: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            first = (await simulator.connect(platform))["refresh_token"]
            members = (await simulator.refresh(platform, first)).json()
            again = await simulator.refresh(platform, first)
            if platform in ("tiktok", "twitter"):
                assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
                assert (await simulator.refresh(platform, members["refresh_token"])).status_code == 200
            else:
                assert "refresh_token" not in members
                assert again.status_code == 200

    asyncio.run(scenario())


def test_twitter_gives_a_refresh_token_for_its_scope_only() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            code = (await simulator.authorize("twitter", scope="tweet.read"))["code"]
            assert "refresh_token" not in (await simulator.redeem("twitter", code)).json()

    asyncio.run(scenario())


@every_platform
@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revoking_takes_all_tokens_of_the_account_back(platform: str, kind: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            members = await simulator.connect(platform)
            other = await simulator.connect(platform)
            response = await simulator.post_oauth(platform, "revoke", token=members[kind])
            assert response.status_code == 200
            assert not await _is_good(simulator, platform, members["access_token"])
            assert (await simulator.refresh(platform, members["refresh_token"])).status_code == 400
            assert await _is_good(simulator, platform, other["access_token"])
            assert (await simulator.post_oauth(platform, "revoke", token="unknown")).status_code == 200

    asyncio.run(scenario())


@every_platform
def test_client_must_be_the_known_one(platform: str) -> None:
    async def scenario() -> None:
        async with simulation(Settings(clients=CLIENTS)) as simulator:
            members = await simulator.connect(platform)
            simulator.secret = "guessed"
            for response in (
                await simulator.redeem(platform, (await simulator.authorize(platform))["code"]),
                await simulator.refresh(platform, members["refresh_token"]),
                await simulator.post_oauth(platform, "revoke", token=members["access_token"]),
                await simulator.http.post(f"/{platform}/oauth/token", data={"grant_type": "refresh_token"}),
                await simulator.http.post(f"/{platform}/oauth/token", headers={"Authorization": "Basic !"}),
            ):
                assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
            assert await _is_good(simulator, platform, members["access_token"])

    asyncio.run(scenario())


def test_what_one_client_has_is_of_no_use_to_another() -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            members = await simulator.connect("facebook")
            code = (await simulator.authorize("facebook"))["code"]
            simulator.client = "another-client"
            assert (await simulator.redeem("facebook", code)).status_code == 400
            assert (await simulator.refresh("facebook", members["refresh_token"])).status_code == 400
            await simulator.post_oauth("facebook", "revoke", token=members["access_token"])
            assert await _is_good(simulator, "facebook", members["access_token"])
            simulator.client = "the-client"
            assert (await simulator.redeem("facebook", code)).status_code == 200

    asyncio.run(scenario())


def test_platform_that_is_not_in_the_clients_file_knows_nobody() -> None:
    async def scenario() -> None:
        async with simulation(Settings(clients={"facebook": CLIENTS["facebook"]})) as simulator:
            assert (await simulator.post_oauth("facebook", "revoke", token="x")).status_code == 200
            assert (await simulator.post_oauth("twitter", "revoke", token="x")).status_code == 401

    asyncio.run(scenario())


def test_other_grant_types_are_refused() -> None:
    async def scenario() -> httpx2.Response:
        async with simulation() as simulator:
            return await simulator.post_oauth("facebook", "token", grant_type="password")

    assert asyncio.run(scenario()).json()["error"] == "unsupported_grant_type"


@every_platform
def test_account_stays_connected_over_a_restart(platform: str) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with simulation(Settings(seed=1), clock) as simulator:
            members = await simulator.connect(platform)
        async with simulation(Settings(seed=2), clock) as simulator:
            assert await _is_good(simulator, platform, members["access_token"])
            assert (await simulator.refresh(platform, members["refresh_token"])).status_code == 200
        async with simulation(Settings(secret="another"), clock) as simulator:
            assert not await _is_good(simulator, platform, members["access_token"])

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["", ".", "x", "x.y", "é.é", "e30.e30", "{token}x", "x{token}", "{content}."])
def test_forged_token_is_refused(text: str) -> None:
    async def scenario() -> None:
        async with simulation() as simulator:
            token = (await simulator.connect("twitter"))["access_token"]
            forged = text.format(token=token, content=token.partition(".")[0])
            header = (b"Authorization", f"Bearer {forged}".encode())
            response = await simulator.http.get("/twitter/2/users/me", headers=[header])
            assert response.status_code == 401
            wrong_scheme = await simulator.http.get("/twitter/2/users/me", headers={"Authorization": f"Basic {token}"})
            assert wrong_scheme.status_code == 401

    asyncio.run(scenario())
