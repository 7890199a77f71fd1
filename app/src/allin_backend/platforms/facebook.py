"""Facebook Pages.

Authorization: developers.facebook.com/docs/facebook-login/guides/advanced/manual-flow
Posts: developers.facebook.com/docs/pages-api/posts
Figures: developers.facebook.com/docs/graph-api/reference/insights
Allowance: developers.facebook.com/docs/graph-api/overview/rate-limiting (header ``X-App-Usage``)

Facebook lets applications post to Pages only: the account must be a Page, for which ``/me`` stands with its token.
"""

from __future__ import annotations

import msgspec

from allin_backend.platforms.base import (
    Addresses,
    Call,
    Figures,
    Headers,
    Identity,
    Nothing,
    Published,
    RateLimit,
    Send,
    decode,
)
from allin_backend.platforms.graph import Created, GraphPlatform, whole


class _Me(msgspec.Struct):
    id: str
    name: str


class _Usage(msgspec.Struct):
    call_count: float = 0
    total_time: float = 0
    total_cputime: float = 0


class Facebook(GraphPlatform):
    """Speaks to Facebook's Graph API."""

    name = "facebook"
    text_limit = 63_206
    scopes = ("pages_show_list", "pages_manage_posts", "pages_read_engagement", "read_insights")
    scope_separator = ","
    limited_by_account = False
    own_addresses = Addresses(
        authorize="https://www.facebook.com/v25.0/dialog/oauth",
        token="https://graph.facebook.com/v25.0/oauth/access_token",  # noqa: S106  # an address
        revoke=None,
        api="https://graph.facebook.com/v25.0",
    )

    def withdrawal(self) -> Call[Nothing] | None:
        return Call("revoke", "DELETE", "/me/permissions", Nothing, idempotent=True)

    async def identity(self, send: Send) -> Identity:
        answer = await send(Call("identity", "GET", "/me", _Me, params={"fields": "id,name"}, idempotent=True))
        return Identity(answer.value.id, answer.value.name)

    async def publish(self, send: Send, platform_user_id: str, text: str, idempotency_key: str) -> Published:
        answer = await send(
            Call(
                "publish",
                "POST",
                "/me/feed",
                Created,
                form={"message": text},
                headers=self.publish_headers(idempotency_key),
                idempotent=self.publishes_once,
            )
        )
        return Published(answer.value.id, f"https://www.facebook.com/{answer.value.id}")

    async def figures(self, send: Send, platform_post_id: str) -> Figures:
        metrics = ("post_impressions", "post_reactions_like_total", "post_activity_by_action_type")
        values = await self.insights(send, platform_post_id, *metrics)
        impressions, likes, actions = (values.get(metric) for metric in metrics)
        if not isinstance(actions, dict):
            actions = {}
        return Figures(whole(impressions), whole(likes), whole(actions.get("comment")), whole(actions.get("share")))

    def rate_limit(self, headers: Headers, now: float) -> RateLimit | None:
        # In per cent of the allowance; whichever is used up first counts.
        usage = decode(headers.get("x-app-usage", "").encode(), _Usage)
        if usage is None:
            return None
        return RateLimit(used_ratio=max(usage.call_count, usage.total_time, usage.total_cputime) / 100)
