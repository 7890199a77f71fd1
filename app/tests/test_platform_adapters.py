"""How each platform is spoken to, and how its answers are read."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from allin_backend.metrics.contract import PLATFORMS
from allin_backend.platforms.base import Figures, Identity, Platform, Published, RateLimit
from allin_backend.platforms.errors import Failure, UnavailableError
from allin_backend.platforms.registry import ADAPTERS
from platform_support import START, TOKEN, Bench, adapter, reply

KEY = "0123456789abcdef0123456789abcdef"


def ask(bench: Bench, platform: Platform, what: str, *arguments: str) -> Any:
    """Call the adapter's ``what`` with a ``send`` that goes through the bench's client."""

    async def send(call: Any) -> Any:
        return await bench.client.send(platform, call, access_token=TOKEN)

    return asyncio.run(getattr(platform, what)(send, *arguments))


def form(request: httpx2.Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


def test_there_is_an_adapter_for_each_platform_of_the_contract() -> None:
    assert tuple(ADAPTERS) == PLATFORMS


@pytest.mark.parametrize("name", PLATFORMS)
def test_own_addresses_are_used_without_a_gateway(name: str) -> None:
    platform = adapter(name, gateway="")
    addresses = platform.addresses

    assert addresses == platform.own_addresses
    used = [addresses.authorize, addresses.token, addresses.api, *filter(None, [addresses.revoke])]
    assert all(address.startswith("https://") for address in used)
    assert not platform.publishes_once


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_gateway_takes_everything(name: str) -> None:
    platform = adapter(name, gateway="http://127.0.0.1:7080")
    addresses = platform.addresses

    root = f"http://127.0.0.1:7080/{name}"
    assert addresses.api == root
    assert [addresses.authorize, addresses.token, addresses.revoke] == [
        f"{root}/oauth/authorize",
        f"{root}/oauth/token",
        f"{root}/oauth/revoke",
    ]
    assert platform.publishes_once


IDENTITIES = {
    "facebook": ("/me", {"fields": "id,name"}, {"id": "7", "name": "Ada"}),
    "instagram": ("/me", {"fields": "id,username"}, {"id": "7", "username": "Ada"}),
    "linkedin": ("/v2/userinfo", {}, {"sub": "7", "name": "Ada", "locale": "en"}),
    "tiktok": (
        "/v2/user/info/",
        {"fields": "open_id,display_name"},
        {"data": {"user": {"open_id": "7", "display_name": "Ada"}}, "error": {"code": "ok"}},
    ),
    "twitter": ("/2/users/me", {}, {"data": {"id": "7", "username": "Ada", "name": "Ada L."}}),
}


@pytest.mark.parametrize("name", PLATFORMS)
def test_identity(name: str) -> None:
    path, params, body = IDENTITIES[name]
    bench = Bench(reply(body=body))

    assert ask(bench, adapter(name), "identity") == Identity("7", "Ada")

    (request,) = bench.remote.requests
    assert (request.method, request.url.path, dict(request.url.params)) == ("GET", f"/{name}{path}", params)
    assert bench.calls(name, "identity") == (1, 0)


def test_publish_on_facebook() -> None:
    bench = Bench(reply(body={"id": "7_1"}))

    published = ask(bench, adapter("facebook"), "publish", "7", "hello", KEY)

    assert published == Published("7_1", "https://www.facebook.com/7_1")
    (request,) = bench.remote.requests
    assert (request.method, request.url.path, form(request)) == ("POST", "/facebook/me/feed", {"message": "hello"})
    assert request.headers["idempotency-key"] == KEY


def test_publish_on_instagram_takes_two_steps() -> None:
    bench = Bench(reply(body={"id": "c1"}), reply(body={"id": "p1"}))

    assert ask(bench, adapter("instagram"), "publish", "7", "hello", KEY) == Published("p1", None)

    container, publication = bench.remote.requests
    assert (container.url.path, form(container)) == ("/instagram/me/media", {"caption": "hello"})
    assert (publication.url.path, form(publication)) == ("/instagram/me/media_publish", {"creation_id": "c1"})
    # The steps make different things: with one key the second would be taken for a repetition of the first.
    assert publication.headers["idempotency-key"] == KEY
    assert container.headers["idempotency-key"] not in ("", KEY)


def test_publish_on_linkedin() -> None:
    bench = Bench(reply(201, headers={"x-restli-id": "urn:li:share:1"}))

    published = ask(bench, adapter("linkedin"), "publish", "7", "hello (all) of #you", KEY)

    assert published == Published("urn:li:share:1", "https://www.linkedin.com/feed/update/urn:li:share:1/")
    (request,) = bench.remote.requests
    post = json.loads(request.content)
    assert (request.method, request.url.path) == ("POST", "/linkedin/rest/posts")
    assert post["author"] == "urn:li:person:7"
    assert post["commentary"] == "hello \\(all\\) of \\#you"
    assert (post["visibility"], post["lifecycleState"]) == ("PUBLIC", "PUBLISHED")
    assert request.headers["idempotency-key"] == KEY
    assert len(request.headers["linkedin-version"]) == 6


def test_a_post_on_linkedin_without_its_id_is_an_unknown_outcome() -> None:
    with pytest.raises(UnavailableError) as caught:
        ask(Bench(reply(201)), adapter("linkedin"), "publish", "7", "hello", KEY)

    assert (caught.value.error, caught.value.outcome_unknown) == ("invalid_response", True)


def test_publish_on_tiktok() -> None:
    bench = Bench(reply(body={"data": {"publish_id": "v1"}, "error": {"code": "ok"}}))

    assert ask(bench, adapter("tiktok"), "publish", "7", "hello", KEY) == Published("v1", None)

    (request,) = bench.remote.requests
    assert (request.method, request.url.path) == ("POST", "/tiktok/v2/post/publish/content/init/")
    assert json.loads(request.content)["post_info"]["description"] == "hello"
    assert request.headers["idempotency-key"] == KEY


def test_publish_on_twitter() -> None:
    bench = Bench(reply(201, {"data": {"id": "1", "text": "hello"}}))

    assert ask(bench, adapter("twitter"), "publish", "7", "hello", KEY) == Published("1", "https://x.com/i/status/1")

    (request,) = bench.remote.requests
    assert (request.method, request.url.path, json.loads(request.content)) == (
        "POST",
        "/twitter/2/tweets",
        {"text": "hello"},
    )
    assert request.headers["idempotency-key"] == KEY


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_post_is_sent_again_only_where_the_key_is_kept(name: str) -> None:
    """The platforms themselves know no key: a second request would make a second post."""
    for gateway, requests in (("", 1), ("https://gateway.example.com", 3)):
        bench = Bench(reply(500))
        with pytest.raises(UnavailableError):
            ask(bench, adapter(name, gateway), "publish", "7", "hello", KEY)
        assert len(bench.remote.requests) == requests


def insights(**values: object) -> dict[str, object]:
    return {"data": [{"name": name, "values": [{"value": value}]} for name, value in values.items()]}


FIGURES = {
    "facebook": (
        "/7_1/insights",
        insights(
            post_impressions=100,
            post_reactions_like_total=9,
            post_activity_by_action_type={"like": 9, "comment": 2, "share": 1},
        ),
    ),
    "instagram": ("/7_1/insights", insights(views=100, likes=9, comments=2, shares=1)),
    "linkedin": (
        "/rest/socialMetadata/7_1",
        {"reactionSummaries": {"LIKE": {"count": 6}, "PRAISE": {"count": 3}}, "commentSummary": {"count": 2}},
    ),
    "tiktok": (
        "/v2/video/query/",
        {
            "data": {
                "videos": [
                    {"id": "other", "view_count": 1},
                    {"id": "7_1", "view_count": 100, "like_count": 9, "comment_count": 2, "share_count": 1},
                ]
            },
            "error": {"code": "ok"},
        },
    ),
    "twitter": (
        "/2/tweets/7_1",
        {"data": {"public_metrics": {"impression_count": 100, "like_count": 9, "reply_count": 2, "retweet_count": 1}}},
    ),
}


@pytest.mark.parametrize("name", PLATFORMS)
def test_figures(name: str) -> None:
    path, body = FIGURES[name]
    bench = Bench(reply(body=body))

    figures = ask(bench, adapter(name), "figures", "7_1")

    assert figures == (Figures(None, 9, 2, None) if name == "linkedin" else Figures(100, 9, 2, 1))
    assert bench.remote.paths == [f"/{name}{path}"]


NOTHING_KNOWN = {
    "facebook": insights(post_activity_by_action_type=[]),
    "instagram": {"data": [{"name": "views", "values": []}, {"name": "likes", "values": [{"value": "many"}]}]},
    "linkedin": {},
    "tiktok": {"data": {"videos": []}, "error": {"code": "ok"}},
    "twitter": {"data": {"public_metrics": {}}},
}


@pytest.mark.parametrize("name", PLATFORMS)
def test_figures_that_a_platform_does_not_tell(name: str) -> None:
    assert ask(Bench(reply(body=NOTHING_KNOWN[name])), adapter(name), "figures", "7_1") == Figures()


@pytest.mark.parametrize("name", [name for name in PLATFORMS if name != "tiktok"])
def test_an_id_stays_within_its_part_of_the_path(name: str) -> None:
    bench = Bench(reply(body=FIGURES[name][1]))

    ask(bench, adapter(name), "figures", "1/../../me?x=1#")

    assert b"1%2F..%2F..%2Fme%3Fx%3D1%23" in bench.remote.requests[0].url.raw_path


def graph_error(code: int) -> dict[str, object]:
    return {"error": {"message": "No.", "type": "OAuthException", "code": code}}


def tiktok_error(code: str) -> dict[str, object]:
    return {"data": {}, "error": {"code": code, "message": "No.", "log_id": "1"}}


@pytest.mark.parametrize(
    ("name", "status", "headers", "body", "expected"),
    [
        ("facebook", 400, {}, graph_error(100), Failure("rejected", "No. (code 100)")),
        ("facebook", 400, {}, graph_error(190), Failure("unauthorized", "No. (code 190)")),
        ("facebook", 401, {}, graph_error(190), Failure("unauthorized", "No. (code 190)")),
        ("facebook", 400, {}, graph_error(32), Failure("rate_limited", "No. (code 32)")),
        ("facebook", 429, {}, graph_error(4), Failure("rate_limited", "No. (code 4)")),
        ("facebook", 400, {}, graph_error(2), Failure("server_error", "No. (code 2)")),
        ("facebook", 500, {}, graph_error(100), Failure("server_error", "No. (code 100)")),
        ("facebook", 200, {}, {"id": "1"}, None),
        ("facebook", 403, {}, {}, Failure("rejected", "status 403")),
        (
            "instagram",
            429,
            {"x-business-use-case-usage": '{"7":[{"call_count":100,"estimated_time_to_regain_access":5}]}'},
            graph_error(4),
            Failure("rate_limited", "No. (code 4)", START + 300),
        ),
        ("linkedin", 429, {"retry-after": "7"}, {"message": "No."}, Failure("rate_limited", "No.", START + 7)),
        ("linkedin", 429, {"retry-after": "soon"}, {"message": "No."}, Failure("rate_limited", "No.")),
        ("linkedin", 401, {}, {"status": 401, "message": "No.", "code": "X"}, Failure("unauthorized", "No.")),
        ("linkedin", 422, {}, {"status": 422, "message": "No.", "code": "X"}, Failure("rejected", "No.")),
        ("linkedin", 503, {"retry-after": "7"}, {}, Failure("server_error", "status 503", START + 7)),
        ("linkedin", 201, {}, None, None),
        ("tiktok", 200, {}, tiktok_error("ok"), None),
        ("tiktok", 200, {}, tiktok_error("invalid_params"), Failure("rejected", "invalid_params: No.")),
        ("tiktok", 401, {}, tiktok_error("access_token_invalid"), Failure("unauthorized", "access_token_invalid: No.")),
        ("tiktok", 429, {}, tiktok_error("rate_limit_exceeded"), Failure("rate_limited", "rate_limit_exceeded: No.")),
        ("tiktok", 200, {}, tiktok_error("rate_limit_exceeded"), Failure("rate_limited", "rate_limit_exceeded: No.")),
        ("tiktok", 200, {}, tiktok_error("internal_error"), Failure("server_error", "internal_error: No.")),
        ("tiktok", 502, {}, tiktok_error("odd"), Failure("server_error", "odd: No.")),
        ("tiktok", 404, {}, None, Failure("rejected", "status 404")),
        ("twitter", 403, {}, {"title": "Forbidden", "detail": "Duplicate."}, Failure("rejected", "Duplicate.")),
        ("twitter", 401, {}, {"title": "Unauthorized"}, Failure("unauthorized", "Unauthorized")),
        (
            "twitter",
            429,
            {"x-rate-limit-reset": str(int(START) + 60)},
            {"title": "Too Many Requests"},
            Failure("rate_limited", "Too Many Requests", START + 60),
        ),
        ("twitter", 200, {}, {"data": {}}, None),
    ],
)
def test_failures(name: str, status: int, headers: dict[str, str], body: Any, expected: Failure | None) -> None:
    answer = reply(status, body, headers)

    assert adapter(name).api_failure(status, answer.headers, answer.content, START) == expected


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"access_token": "x"}, None),
        (400, {"error": "invalid_grant", "error_description": "secret"}, Failure("unauthorized", "invalid_grant")),
        (200, {"error": "invalid_grant"}, Failure("unauthorized", "invalid_grant")),
        (401, {"error": "invalid_client"}, Failure("rejected", "invalid_client")),
        (400, {"error": "<b>secret</b>"}, Failure("rejected", "status 400")),
        (400, None, Failure("rejected", "status 400")),
        (401, {"unknown": 1}, Failure("rejected", "status 401")),
        (500, {"error": "invalid_grant"}, Failure("server_error", "status 500")),
        (429, None, Failure("rate_limited", "status 429")),
    ],
)
def test_failures_of_the_token_address(name: str, status: int, body: Any, expected: Failure | None) -> None:
    """Our own client's trouble (invalid_client) must never look as if a person's permission had ended."""
    answer = reply(status, body)

    assert adapter(name).oauth_failure(status, answer.headers, answer.content, START) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (190, Failure("unauthorized", "code 190")),
        (100, Failure("unauthorized", "code 100")),
        (101, Failure("rejected", "code 101")),
        (2, Failure("server_error", "code 2")),
    ],
)
def test_failures_of_the_token_address_in_the_words_of_meta(code: int, expected: Failure) -> None:
    answer = reply(400, graph_error(code))

    assert adapter("facebook").oauth_failure(400, answer.headers, answer.content, START) == expected


@pytest.mark.parametrize(
    ("name", "headers", "expected"),
    [
        (
            "facebook",
            {"x-app-usage": '{"call_count":28,"total_time":3,"total_cputime":5}'},
            RateLimit(used_ratio=0.28),
        ),
        ("facebook", {"x-app-usage": "28%"}, None),
        ("facebook", {}, None),
        (
            "instagram",
            {"x-business-use-case-usage": '{"7":[{"type":"x","call_count":50,"total_time":60}]}'},
            RateLimit(used_ratio=0.6),
        ),
        ("instagram", {"x-business-use-case-usage": "{}"}, None),
        ("linkedin", {"retry-after": "7"}, None),
        ("tiktok", {}, None),
        (
            "twitter",
            {"x-rate-limit-limit": "40", "x-rate-limit-remaining": "10", "x-rate-limit-reset": "1800000900"},
            RateLimit(40, 10, 1_800_000_900, 0.75),
        ),
        ("twitter", {"x-rate-limit-limit": "0", "x-rate-limit-remaining": "0"}, RateLimit(0, 0)),
        ("twitter", {"x-rate-limit-remaining": "-1"}, None),
        ("twitter", {}, None),
    ],
)
def test_allowances(name: str, headers: dict[str, str], expected: RateLimit | None) -> None:
    assert adapter(name).rate_limit(httpx2.Headers(headers), START) == expected


@pytest.mark.parametrize(
    ("name", "text", "length"),
    [
        ("facebook", "añ😀", 3),
        ("tiktok", "añ😀", 4),
        ("twitter", "abc", 3),
        ("twitter", "añ😀", 4),
        ("twitter", "日本", 4),
        ("twitter", "see https://example.com/a/very/long/address/that/goes/on/and/on now", 31),
    ],
)
def test_texts_are_counted_as_the_platform_counts(name: str, text: str, length: int) -> None:
    assert adapter(name).text_length(text) == length
