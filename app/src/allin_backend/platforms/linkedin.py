"""LinkedIn, members.

Authorization: learn.microsoft.com/linkedin/shared/authentication/authorization-code-flow
Posts: learn.microsoft.com/linkedin/marketing/community-management/shares/posts-api
Figures: learn.microsoft.com/linkedin/marketing/community-management/shares/social-metadata-api
Allowance: learn.microsoft.com/linkedin/shared/api-guide/concepts/rate-limits (a refusal is all that tells)

LinkedIn documents no address to revoke tokens: they end by themselves, or in the member's settings.
"""

from __future__ import annotations

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
    Nothing,
    Platform,
    Published,
    Send,
    decode,
    failure_of_status,
)
from allin_backend.platforms.errors import Failure, UnavailableError

API_VERSION: Final = "202606"
"""Month of the versioned API; LinkedIn serves each for a year."""
_VERSIONED: Final = {"LinkedIn-Version": API_VERSION, "X-Restli-Protocol-Version": "2.0.0"}


class _UserInfo(msgspec.Struct):
    sub: str
    name: str


class _Refusal(msgspec.Struct):
    message: str = ""
    code: str = ""


class _Comments(msgspec.Struct):
    count: int = 0


class _Reaction(msgspec.Struct):
    count: int = 0


class _SocialMetadata(msgspec.Struct, rename="camel"):
    comment_summary: _Comments | None = None
    reaction_summaries: dict[str, _Reaction] | None = None


class LinkedIn(Platform):
    """Speaks to LinkedIn's API."""

    name = "linkedin"
    text_limit = 3_000
    scopes = ("openid", "profile", "w_member_social", "r_member_social")
    client_auth = "client_secret_basic"
    denials = frozenset({"access_denied", "user_cancelled_login", "user_cancelled_authorize"})
    own_addresses = Addresses(
        authorize="https://www.linkedin.com/oauth/v2/authorization",
        token="https://www.linkedin.com/oauth/v2/accessToken",  # noqa: S106  # an address
        revoke=None,
        api="https://api.linkedin.com",
    )

    async def identity(self, send: Send) -> Identity:
        answer = await send(Call("identity", "GET", "/v2/userinfo", _UserInfo, idempotent=True))
        return Identity(answer.value.sub, answer.value.name)

    async def publish(self, send: Send, platform_user_id: str, text: str, idempotency_key: str) -> Published:
        post = {
            "author": f"urn:li:person:{platform_user_id}",
            "commentary": _escape(text),
            "visibility": "PUBLIC",
            "distribution": {
                "feedDistribution": "MAIN_FEED",
                "targetEntities": [],
                "thirdPartyDistributionChannels": [],
            },
            "lifecycleState": "PUBLISHED",
            "isReshareDisabledByAuthor": False,
        }
        answer = await send(
            Call(
                "publish",
                "POST",
                "/rest/posts",
                Nothing,
                json=post,
                headers={**_VERSIONED, **self.publish_headers(idempotency_key)},
                idempotent=self.publishes_once,
            )
        )
        urn = answer.headers.get("x-restli-id")
        if not urn:
            raise UnavailableError(self.name, "invalid_response", "no x-restli-id", outcome_unknown=True)
        return Published(urn, f"https://www.linkedin.com/feed/update/{urn}/")

    async def figures(self, send: Send, platform_post_id: str) -> Figures:
        path = f"/rest/socialMetadata/{quote(platform_post_id, safe='')}"
        answer = await send(Call("figures", "GET", path, _SocialMetadata, headers=_VERSIONED, idempotent=True))
        metadata = answer.value
        return Figures(
            likes=None
            if metadata.reaction_summaries is None
            else sum(reaction.count for reaction in metadata.reaction_summaries.values()),
            comments=None if metadata.comment_summary is None else metadata.comment_summary.count,
        )

    def api_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        refusal = decode(body, _Refusal)
        detail = refusal.message if refusal is not None else ""
        if failure := failure_of_status(status, headers, now, detail=detail):
            return failure
        return Failure("rejected", detail or f"status {status}") if status >= HTTPStatus.BAD_REQUEST else None


def _escape(text: str) -> str:
    """The text in LinkedIn's "little text" format, in which these characters would begin something else."""
    return "".join(f"\\{letter}" if letter in "\\|{}@[]()<>#*_~" else letter for letter in text)
