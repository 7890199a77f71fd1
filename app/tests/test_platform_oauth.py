"""Connecting accounts and keeping their tokens good, against the simulator and a real database."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from allin_backend.database.accounts import ACTIVE, NEEDS_RECONNECT, Account, AccountStore
from allin_backend.database.engine import DatabaseUnavailableError
from allin_backend.metrics import contract
from allin_backend.metrics.contract import PLATFORMS
from allin_backend.platforms.errors import PlatformError, RejectedError, UnauthorizedError, UnavailableError
from allin_backend.platforms.oauth import (
    AUTHORIZATION_SECONDS,
    DeniedError,
    InvalidStateError,
    RefusedError,
)
from allin_backend.platforms.registry import ADAPTERS, UnknownPlatformError
from allin_backend.security.tokens import digest
from platform_support import START, sample
from world import GATEWAY, REDIRECT, world

KEY = "0123456789abcdef0123456789abcdef"
ROTATING = ("tiktok", "twitter")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_account_is_connected_used_and_disconnected(tmp_path: Path, platform: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            process = here.first
            account = await here.connect(platform)
            secrets = await here.secrets(account)

            assert (account.platform, account.state, account.handle.lower()) == (platform, ACTIVE, "alex")
            assert account.scopes == " ".join(ADAPTERS[platform].scopes)
            assert account.token_expires_at == datetime.fromtimestamp(START + 3600, UTC)
            assert secrets.refresh_token is not None
            # Both are stored encrypted; the simulator's tokens have a dot, an encrypted text has none.
            assert "." not in secrets.access_token + secrets.refresh_token
            assert "." in here.cipher.decrypt(secrets.access_token)

            published = await process.service.publish(secrets, "hello", KEY)
            figures = await process.service.figures(secrets, published.platform_post_id)
            again = await process.service.publish(secrets, "hello", KEY)

            assert again == published
            assert [(post["platform"], post["text"]) for post in await here.posts()] == [(platform, "hello")]
            assert figures.likes is not None
            assert await process.oauth.revoke(secrets)
            with pytest.raises(UnauthorizedError):
                await process.service.figures(secrets, published.platform_post_id)
            assert (await here.secrets(account)).state == NEEDS_RECONNECT
            assert process.outcomes("authorize", platform) == {"success": 1}
            assert process.outcomes("callback", platform) == {"success": 1}
            assert process.outcomes("revoke", platform) == {"success": 1}
            assert process.outcomes("refresh", platform) == {"error": 1}

    asyncio.run(test())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_page_of_the_platform(tmp_path: Path, platform: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            begun = await here.first.oauth.authorize(here.user, platform)

            url = urlsplit(begun.url)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            assert url._replace(query="").geturl() == f"{GATEWAY}/{platform}/oauth/authorize"
            assert query["state"] == begun.state
            assert query["redirect_uri"] == REDIRECT
            assert query["code_challenge_method"] == "S256"
            assert len(query["code_challenge"]) == 43
            assert query.get("client_key") == ("the-client" if platform == "tiktok" else None)
            assert begun.expires_at == here.time.clock.now() + timedelta(seconds=AUTHORIZATION_SECONDS)
            # Neither the state nor the verifier is in the database as it is.
            stored = await here.states.take(digest(begun.state), here.user, here.time.clock.now())
            assert stored is not None
            verifier = here.cipher.decrypt(stored.code_verifier)
            assert verifier not in stored.code_verifier
            assert 43 <= len(verifier) <= 128

    asyncio.run(test())


def test_a_state_is_good_once_for_its_user_and_its_platform_in_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            oauth = here.first.oauth

            async def begin() -> dict[str, str]:
                return await here.visit((await oauth.authorize(here.user, "twitter")).url)

            async def refused(user: int, platform: str, back: dict[str, str]) -> None:
                with pytest.raises(InvalidStateError):
                    await oauth.callback(user, platform, back["state"], code=back["code"])

            used = await begin()
            await oauth.callback(here.user, "twitter", used["state"], code=used["code"])
            await refused(here.user, "twitter", used)
            await refused(here.other_user, "twitter", await begin())
            await refused(here.user, "linkedin", await begin())
            await refused(here.user, "twitter", {"state": "made-up", "code": "x"})
            late = await begin()
            here.time.advance(AUTHORIZATION_SECONDS)
            await refused(here.user, "twitter", late)

            assert here.first.outcomes("callback") == {"success": 1, "error": 4}
            assert here.first.outcomes("callback", "linkedin") == {"error": 1}
            assert len(await here.accounts.list(here.user)) == 1
            assert await here.accounts.list(here.other_user) == []

    asyncio.run(test())


def test_of_two_callbacks_with_one_state_one_connects(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            back = await here.visit((await here.first.oauth.authorize(here.user, "twitter")).url)

            async def callback() -> Account:
                return await here.first.oauth.callback(here.user, "twitter", back["state"], code=back["code"])

            outcomes = await asyncio.gather(callback(), callback(), return_exceptions=True)

            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Account", "InvalidStateError"]

    asyncio.run(test())


def test_a_person_may_say_no(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            begun = await here.first.oauth.authorize(here.user, "twitter")
            back = await here.visit(begun.url, decision="deny")

            with pytest.raises(DeniedError):
                await here.first.oauth.callback(here.user, "twitter", back["state"], error=back["error"])
            with pytest.raises(InvalidStateError):  # used up
                await here.first.oauth.callback(here.user, "twitter", back["state"], code="x")
            begun = await here.first.oauth.authorize(here.user, "linkedin")
            with pytest.raises(DeniedError):
                await here.first.oauth.callback(here.user, "linkedin", begun.state, error="user_cancelled_login")

            assert here.first.outcomes("callback") == {"denied": 1, "error": 1}
            assert here.first.outcomes("callback", "linkedin") == {"denied": 1}

    asyncio.run(test())


@pytest.mark.parametrize(
    ("code", "error"), [("made-up", None), (None, "server_error"), (None, "<script>"), (None, None), ("", "")]
)
def test_what_a_platform_says_is_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str | None, error: str | None
) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            begun = await here.first.oauth.authorize(here.user, "twitter")

            with pytest.raises(RefusedError) as caught:
                await here.first.oauth.callback(here.user, "twitter", begun.state, code=code, error=error)

            assert str(caught.value) == "twitter did not connect the account; begin again."
            assert caught.value.__cause__ is None
            assert here.first.outcomes("callback") == {"error": 1}
            assert "<script>" not in str([vars(record) for record in caplog.records])

    with caplog.at_level(logging.DEBUG):
        asyncio.run(test())


def test_a_platform_that_is_down_is_not_the_persons_fault(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            back = await here.visit((await here.first.oauth.authorize(here.user, "twitter")).url)
            await here.knobs("twitter", down=True)

            with pytest.raises(UnavailableError):
                await here.first.oauth.callback(here.user, "twitter", back["state"], code=back["code"])

            assert here.remote.count("/oauth/token") == 1, "a code is good once"

    asyncio.run(test())


def test_platforms_that_are_not_set_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            for name in ("myspace", ""):
                with pytest.raises(UnknownPlatformError):
                    await here.first.oauth.authorize(here.user, name)
                with pytest.raises(UnknownPlatformError):
                    await here.first.oauth.callback(here.user, name, "state", code="x")

    asyncio.run(test())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_token_that_has_ended_is_renewed_before_it_is_used(tmp_path: Path, platform: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect(platform)
            old = await here.secrets(account)
            here.time.advance(3600)
            here.remote.requests.clear()

            await here.first.service.publish(old, "hello", KEY)

            assert here.remote.count("/oauth/token") == 1
            errors = sample(
                here.first.metrics,
                contract.SOCIAL_ERRORS_TOTAL,
                platform=platform,
                endpoint="publish",
                error="unauthorized",
            )
            assert errors == 0
            new = await here.secrets(account)
            assert new.access_token != old.access_token
            assert (new.refresh_token != old.refresh_token) == (platform in ROTATING)
            assert new.token_expires_at == datetime.fromtimestamp(START + 7200, UTC)
            assert here.first.outcomes("refresh", platform) == {"success": 1}
            # Nobody asks again with the old ones in hand.
            await here.first.service.publish(old, "hello", KEY)
            assert here.remote.count("/oauth/token") == 1

    asyncio.run(test())


def test_a_token_that_the_platform_refuses_is_renewed_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path, token_seconds=60) as here:
            account = await here.connect()
            await here.accounts.update_tokens(
                account.id,
                access_token=here.cipher.encrypt("not-a-token-any-more"),
                refresh_token=None,
                token_expires_at=None,
            )

            published = await here.first.service.publish(await here.secrets(account), "hello", KEY)

            assert published.platform_post_id
            assert here.first.outcomes("refresh") == {"success": 1}
            assert (await here.secrets(account)).state == ACTIVE

    asyncio.run(test())


def test_a_fresh_token_that_is_refused_marks_nothing(tmp_path: Path) -> None:
    """A platform whose check of tokens is broken must not cost everybody their accounts."""

    async def refuse(request: httpx2.Request) -> httpx2.Response | None:
        return httpx2.Response(401) if request.url.path == "/twitter/2/tweets" else None

    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect()
            here.remote.before = refuse

            with pytest.raises(UnauthorizedError):
                await here.first.service.publish(await here.secrets(account), "hello", KEY)

            assert here.remote.count("/2/tweets") == 2
            assert (await here.secrets(account)).state == ACTIVE

    asyncio.run(test())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_account_whose_refresh_is_refused_must_be_connected_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, platform: str
) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect(platform)
            secrets = await here.secrets(account)
            await here.knobs(platform, deny_tokens=True)

            with pytest.raises(UnauthorizedError):
                await here.first.service.publish(secrets, "hello", KEY)

            assert (await here.secrets(account)).state == NEEDS_RECONNECT
            assert here.first.outcomes("refresh", platform) == {"error": 1}
            here.remote.requests.clear()
            with pytest.raises(UnauthorizedError):
                await here.first.oauth.refresh(account.id)
            assert here.remote.requests == []
            await here.knobs(platform, deny_tokens=False)
            assert (await here.connect(platform)).id == account.id
            assert (await here.secrets(account)).state == ACTIVE
            for token in (secrets.access_token, secrets.refresh_token or ""):
                assert here.cipher.decrypt(token) not in str([vars(record) for record in caplog.records])

    with caplog.at_level(logging.DEBUG):
        asyncio.run(test())


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ReadTimeout(""),
        httpx2.Response(500),
        httpx2.Response(429),
        httpx2.Response(401, json={"error": "invalid_client"}),
        httpx2.Response(200, json={"token_type": "bearer"}),
        httpx2.Response(200, json={"access_token": ""}),
    ],
)
def test_a_refresh_that_fails_otherwise_marks_nothing(tmp_path: Path, answer: Exception | httpx2.Response) -> None:
    async def fail(_request: httpx2.Request) -> httpx2.Response | None:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect()
            before = await here.secrets(account)
            here.remote.before = fail
            here.remote.requests.clear()

            with pytest.raises(PlatformError) as caught:
                await here.first.oauth.refresh(account.id)

            assert not isinstance(caught.value, UnauthorizedError)
            assert len(here.remote.requests) == 1, "a refresh token may be good once"
            assert await here.secrets(account) == before
            assert here.first.outcomes("refresh") == {"error": 1}

    asyncio.run(test())


def test_accounts_without_a_refresh_token(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            end = here.time.clock.now() + timedelta(seconds=10)
            account = await here.accounts.connect(
                here.user,
                "linkedin",
                "7",
                handle="Ann",
                scopes="",
                access_token=here.cipher.encrypt("ended"),
                refresh_token=None,
                token_expires_at=end,
            )

            with pytest.raises(UnauthorizedError):
                await here.first.service.figures(await here.secrets(account), "urn:li:share:1")

            assert here.remote.count("urn:li:share:1") == 1, "it is used to its last moment"
            assert here.remote.count("/oauth/token") == 0
            assert (await here.secrets(account)).state == NEEDS_RECONNECT
            assert here.first.outcomes("refresh", "linkedin") == {}

    asyncio.run(test())


def test_an_account_that_is_gone(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            with pytest.raises(UnauthorizedError):
                await here.first.oauth.refresh(4711)

    asyncio.run(test())


def test_one_refresh_at_a_time_for_an_account(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect()
            old = await here.secrets(account)
            here.remote.requests.clear()

            renewed = await asyncio.gather(
                *(here.first.oauth.refresh(account.id, instead_of=old.access_token) for _ in range(20))
            )

            assert here.remote.count("/oauth/token") == 1
            assert set(renewed) == {await here.secrets(account)}
            assert here.first.outcomes("refresh") == {"success": 1}
            await here.first.oauth.refresh(account.id)
            assert here.remote.count("/oauth/token") == 2

    asyncio.run(test())


def test_a_refresh_goes_on_when_its_callers_leave(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect()
            old = await here.secrets(account)
            arrived, go_on = asyncio.Event(), asyncio.Event()

            async def hold(_request: httpx2.Request) -> None:
                arrived.set()
                await go_on.wait()

            here.remote.before = hold
            caller = asyncio.create_task(here.first.oauth.refresh(account.id))
            await asyncio.wait_for(arrived.wait(), 10)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            go_on.set()

            await here.first.oauth.close()

            assert (await here.secrets(account)).access_token != old.access_token
            assert here.first.outcomes("refresh") == {"success": 1}

    asyncio.run(test())


def test_two_processes_refresh_the_same_account(tmp_path: Path) -> None:
    """The platform gives a new refresh token to one of them; the other must find that one's tokens, not give up."""

    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect("twitter")
            old = await here.secrets(account)
            second = here.process()
            both_are_there = asyncio.Barrier(2)

            async def meet(_request: httpx2.Request) -> None:
                await both_are_there.wait()

            here.remote.before = meet
            first_got, second_got = await asyncio.wait_for(
                asyncio.gather(here.first.oauth.refresh(account.id), second.oauth.refresh(account.id)), 10
            )

            assert here.remote.count("/oauth/token") == 3  # one to connect
            assert first_got == second_got == await here.secrets(account)
            assert first_got.access_token != old.access_token
            assert first_got.state == ACTIVE
            outcomes = [here.first.outcomes("refresh"), second.outcomes("refresh")]
            assert sorted(outcomes, key=len) == [{}, {"success": 1}]

    asyncio.run(test())


def test_the_slower_process_waits_for_the_quicker_ones_tokens(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect("twitter")
            stored = asyncio.Event()

            class SlowAccounts(AccountStore):
                async def update_tokens(self, *arguments: Any, **values: Any) -> bool:
                    await stored.wait()
                    return await super().update_tokens(*arguments, **values)

            slow = here.process(accounts=SlowAccounts(here.database))
            winner = asyncio.create_task(slow.oauth.refresh(account.id))
            async with asyncio.timeout(10):
                while here.remote.count("/oauth/token") < 2:
                    await asyncio.sleep(0)

            async def look_twice(seconds: float) -> None:
                here.time.slept.append(seconds)
                if len(here.time.slept) == 3:
                    stored.set()
                    await winner

            object.__setattr__(here.first.client.clock, "sleep", look_twice)
            found = await here.first.oauth.refresh(account.id)

            assert found == await winner == await here.secrets(account)
            assert found.state == ACTIVE
            assert here.first.outcomes("refresh") == {}

    asyncio.run(test())


def test_both_processes_may_succeed(tmp_path: Path) -> None:
    """A platform that does not rotate gives both new tokens: the ones that are stored are the ones that are used."""

    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect("linkedin")
            second = here.process()
            both_are_there = asyncio.Barrier(2)

            async def meet(_request: httpx2.Request) -> None:
                await both_are_there.wait()

            here.remote.before = meet
            got = await asyncio.wait_for(
                asyncio.gather(here.first.oauth.refresh(account.id), second.oauth.refresh(account.id)), 10
            )

            assert set(got) == {await here.secrets(account)}

    asyncio.run(test())


def test_new_tokens_outlive_a_database_that_is_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect("twitter")
            old = await here.secrets(account)
            failures = 3

            class ShakyAccounts(AccountStore):
                async def update_tokens(self, *arguments: Any, **values: Any) -> bool:
                    nonlocal failures
                    if failures:
                        failures -= 1
                        raise DatabaseUnavailableError("away")
                    return await super().update_tokens(*arguments, **values)

            process = here.process(accounts=ShakyAccounts(here.database))

            renewed = await process.oauth.refresh(account.id)

            assert await here.secrets(account) == renewed
            assert renewed.refresh_token != old.refresh_token
            failures = 100
            with pytest.raises(DatabaseUnavailableError):
                await process.oauth.refresh(account.id)
            assert process.outcomes("refresh") == {"success": 1, "error": 1}

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "revoked"),
    [
        (httpx2.Response(200), True),
        (httpx2.Response(400, json={"error": "invalid_grant"}), True),
        (httpx2.Response(400, json={"error": "unsupported_token_type"}), False),
        (httpx2.Response(503), False),
        (httpx2.ConnectError(""), False),
    ],
)
def test_revoking_never_raises(tmp_path: Path, answer: Exception | httpx2.Response, revoked: bool) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect()

            async def reply(_request: httpx2.Request) -> httpx2.Response | None:
                if isinstance(answer, Exception):
                    raise answer
                return answer

            here.remote.before = reply
            assert await here.first.oauth.revoke(await here.secrets(account)) is revoked
            assert here.first.outcomes("revoke") == {"success" if revoked else "error": 1}

    asyncio.run(test())


def test_revoking_at_the_platforms_own_addresses(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            own = here.process(gateway="")

            async def reply(_request: httpx2.Request) -> httpx2.Response | None:
                return httpx2.Response(200, json={"success": True})

            for platform in PLATFORMS:
                here.remote.before = None
                secrets = await here.secrets(await here.connect(platform))
                here.remote.before = reply
                here.remote.requests.clear()
                revoked = await own.oauth.revoke(secrets)

                sent = [(request.method, str(request.url)) for request in here.remote.requests]
                expected = {
                    "facebook": [("DELETE", "https://graph.facebook.com/v25.0/me/permissions")],
                    "tiktok": [("POST", "https://open.tiktokapis.com/v2/oauth/revoke/")],
                    "twitter": [("POST", "https://api.x.com/2/oauth2/revoke")],
                }.get(platform, [])
                assert (revoked, sent) == (bool(expected), expected)
                assert own.outcomes("revoke", platform) == ({"success": 1} if expected else {})

    asyncio.run(test())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_clients_show_who_they_are_as_the_platform_wants_it(tmp_path: Path, platform: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            await here.connect(platform)

            (request,) = (request for request in here.remote.requests if request.url.path.endswith("/oauth/token"))
            form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
            assert form["grant_type"] == "authorization_code"
            assert len(form["code_verifier"]) == 64
            names = {name: form[name] for name in ("client_id", "client_key", "client_secret") if name in form}
            match platform:
                case "linkedin" | "twitter":
                    assert names == {}
                    assert request.headers["authorization"].startswith("Basic ")
                case "tiktok":
                    assert names == {"client_key": "the-client", "client_secret": "the-secret"}
                case _:
                    assert names == {"client_id": "the-client", "client_secret": "the-secret"}
            assert request.headers["accept-encoding"] == "identity"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ({"expires_in": 60}, 60.0),
        ({"expires_in": "60"}, 60.0),
        ({"expires_in": 1e300}, 10 * 365 * 86_400.0),
        ({"expires_in": 0}, None),
        ({"expires_in": -1}, None),
        ({"expires_in": "soon"}, None),
        ({"expires_in": "nan"}, None),
        ({"expires_at": [], "expires_in": 60}, 60.0),
        ({}, None),
    ],
)
def test_how_long_a_token_lives(tmp_path: Path, answer: dict[str, object], end: float | None) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            account = await here.connect()

            async def reply(_request: httpx2.Request) -> httpx2.Response | None:
                return httpx2.Response(200, json={"access_token": "new", "token_type": "bearer", **answer})

            here.remote.before = reply
            renewed = await here.first.oauth.refresh(account.id)

            expected = None if end is None else here.time.clock.now() + timedelta(seconds=end)
            assert renewed.token_expires_at == expected
            assert renewed == await here.secrets(account)

    asyncio.run(test())


def test_an_identity_that_cannot_be_kept(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            back = await here.visit((await here.first.oauth.authorize(here.user, "twitter")).url)

            async def reply(request: httpx2.Request) -> httpx2.Response | None:
                if request.url.path.endswith("/users/me"):
                    return httpx2.Response(200, json={"data": {"id": "7" * 256, "username": "x"}})
                return None

            here.remote.before = reply
            with pytest.raises(RefusedError):
                await here.first.oauth.callback(here.user, "twitter", back["state"], code=back["code"])

    asyncio.run(test())


def test_rejections_of_posts_reach_the_caller(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            secrets = await here.secrets(await here.connect())

            with pytest.raises(RejectedError) as caught:
                await here.first.service.publish(secrets, "x" * 281, KEY)

            assert "281 characters" in caught.value.detail

    asyncio.run(test())


def test_the_steps_of_a_post_share_the_budget(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as here:
            secrets = await here.secrets(await here.connect("instagram"))
            here.remote.requests.clear()

            async def slow(_request: httpx2.Request) -> None:
                here.time.advance(4.0)

            here.remote.before = slow
            await here.first.service.publish(secrets, "hello", KEY, budget=9)

            timeouts = [request.extensions["allin"].timeout for request in here.remote.requests]
            assert timeouts == [9.0, 5.0]
            here.remote.requests.clear()
            with pytest.raises(UnavailableError) as caught:
                await here.first.service.publish(secrets, "hello", KEY, budget=4)
            assert caught.value.held_back
            assert len(here.remote.requests) == 1

    asyncio.run(test())
