"""X, formerly Twitter.

Authorization: docs.x.com/resources/fundamentals/authentication/oauth-2-0/user-access-token
Posts: docs.x.com/x-api/posts/creation-of-a-post
Figures: docs.x.com/x-api/fundamentals/metrics
Allowance: docs.x.com/x-api/fundamentals/rate-limits (for each person and endpoint)
Length of a post: docs.x.com/resources/fundamentals/counting-characters
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec

from allin_backend.platforms.base import (
    Addresses,
    Call,
    Figures,
    Headers,
    Identity,
    Platform,
    Published,
    RateLimit,
    Send,
    decode,
    failure_of_status,
    number,
)
from allin_backend.platforms.errors import Failure

_LINK: Final = re.compile(r"https?://\S+")
_LINK_LENGTH: Final = 23
# The ranges of characters that count as one; all others count as two.
_LIGHT: Final = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))


class _User(msgspec.Struct):
    id: str
    username: str


class _UserAnswer(msgspec.Struct):
    data: _User


class _Post(msgspec.Struct):
    id: str


class _PostAnswer(msgspec.Struct):
    data: _Post


class _PublicMetrics(msgspec.Struct):
    impression_count: int | None = None
    like_count: int | None = None
    reply_count: int | None = None
    retweet_count: int | None = None


class _PostMetrics(msgspec.Struct):
    public_metrics: _PublicMetrics


class _MetricsAnswer(msgspec.Struct):
    data: _PostMetrics


class _Refusal(msgspec.Struct):
    title: str = ""
    detail: str = ""


class Twitter(Platform):
    """Speaks to version 2 of X's API."""

    name = "twitter"
    text_limit = 280
    scopes = ("tweet.read", "tweet.write", "users.read", "offline.access")
    client_auth = "client_secret_basic"
    own_addresses = Addresses(
        authorize="https://x.com/i/oauth2/authorize",
        token="https://api.x.com/2/oauth2/token",  # noqa: S106  # an address
        revoke="https://api.x.com/2/oauth2/revoke",
        api="https://api.x.com",
    )

    def text_length(self, text: str) -> int:
        rest, links = _LINK.subn("", text)
        return links * _LINK_LENGTH + sum(1 if _is_light(letter) else 2 for letter in rest)

    async def identity(self, send: Send) -> Identity:
        answer = await send(Call("identity", "GET", "/2/users/me", _UserAnswer, idempotent=True))
        return Identity(answer.value.data.id, answer.value.data.username)

    async def publish(self, send: Send, platform_user_id: str, text: str, idempotency_key: str) -> Published:
        answer = await send(
            Call(
                "publish",
                "POST",
                "/2/tweets",
                _PostAnswer,
                json={"text": text},
                headers=self.publish_headers(idempotency_key),
                idempotent=self.publishes_once,
            )
        )
        identifier = answer.value.data.id
        return Published(identifier, f"https://x.com/i/status/{identifier}")

    async def figures(self, send: Send, platform_post_id: str) -> Figures:
        path = f"/2/tweets/{quote(platform_post_id, safe='')}"
        params = {"tweet.fields": "public_metrics"}
        answer = await send(Call("figures", "GET", path, _MetricsAnswer, params=params, idempotent=True))
        metrics = answer.value.data.public_metrics
        return Figures(metrics.impression_count, metrics.like_count, metrics.reply_count, metrics.retweet_count)

    def rate_limit(self, headers: Headers, now: float) -> RateLimit | None:
        limit, remaining, reset_at = (
            number(headers.get(f"x-rate-limit-{name}")) for name in ("limit", "remaining", "reset")
        )
        if limit is None and remaining is None and reset_at is None:
            return None
        used = 1 - remaining / limit if limit and remaining is not None else None
        return RateLimit(limit, remaining, reset_at, used)

    def api_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        refusal = decode(body, _Refusal)
        detail = "" if refusal is None else refusal.detail or refusal.title
        if failure := failure_of_status(status, headers, now, detail=detail):
            if failure.error == "rate_limited" and failure.retry_at is None:
                return Failure("rate_limited", failure.detail, number(headers.get("x-rate-limit-reset")))
            return failure
        return Failure("rejected", detail or f"status {status}") if status >= HTTPStatus.BAD_REQUEST else None


def _is_light(letter: str) -> bool:
    return any(low <= ord(letter) <= high for low, high in _LIGHT)
