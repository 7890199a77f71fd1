"""Instagram, professional accounts.

Authorization: developers.facebook.com/docs/instagram-platform/instagram-api-with-instagram-login/business-login
Posts: developers.facebook.com/docs/instagram-platform/content-publishing (first a container, then its publication)
Figures: developers.facebook.com/docs/instagram-platform/reference/instagram-media/insights
Allowance: developers.facebook.com/docs/graph-api/overview/rate-limiting (``X-Business-Use-Case-Usage``)

Instagram itself wants a picture or a film in each container; it refuses one that has a caption only.
Tokens can be revoked by the person alone, in Instagram's settings.
"""

from __future__ import annotations

import msgspec

from allin_backend.platforms.base import Addresses, Call, Figures, Headers, Identity, Published, RateLimit, Send, decode
from allin_backend.platforms.graph import Created, GraphPlatform, whole


class _Me(msgspec.Struct):
    id: str
    username: str


class _Usage(msgspec.Struct):
    call_count: float = 0
    total_time: float = 0
    total_cputime: float = 0
    estimated_time_to_regain_access: float = 0


class Instagram(GraphPlatform):
    """Speaks to Instagram's Graph API."""

    name = "instagram"
    text_limit = 2_200
    scopes = ("instagram_business_basic", "instagram_business_content_publish", "instagram_business_manage_insights")
    scope_separator = ","
    own_addresses = Addresses(
        authorize="https://www.instagram.com/oauth/authorize",
        token="https://api.instagram.com/oauth/access_token",  # noqa: S106  # an address
        revoke=None,
        api="https://graph.instagram.com/v25.0",
    )

    async def identity(self, send: Send) -> Identity:
        answer = await send(Call("identity", "GET", "/me", _Me, params={"fields": "id,username"}, idempotent=True))
        return Identity(answer.value.id, answer.value.username)

    async def publish(self, send: Send, platform_user_id: str, text: str, idempotency_key: str) -> Published:
        container = await self._create(send, "/me/media", {"caption": text}, f"{idempotency_key}-container")
        form = {"creation_id": container}
        return Published(await self._create(send, "/me/media_publish", form, idempotency_key), None)

    async def _create(self, send: Send, path: str, form: dict[str, str], idempotency_key: str) -> str:
        headers = self.publish_headers(idempotency_key)
        call = Call("publish", "POST", path, Created, form=form, headers=headers, idempotent=self.publishes_once)
        return (await send(call)).value.id

    async def figures(self, send: Send, platform_post_id: str) -> Figures:
        metrics = ("views", "likes", "comments", "shares")
        values = await self.insights(send, platform_post_id, *metrics)
        return Figures(*(whole(values.get(metric)) for metric in metrics))

    def rate_limit(self, headers: Headers, now: float) -> RateLimit | None:
        # {"<account>": [{"call_count": per cent, ..., "estimated_time_to_regain_access": minutes}, ...]}
        accounts = decode(headers.get("x-business-use-case-usage", "").encode(), dict[str, list[_Usage]])
        usages = [usage for account in (accounts or {}).values() for usage in account]
        if not usages:
            return None
        used = max(max(usage.call_count, usage.total_time, usage.total_cputime) for usage in usages)
        minutes = max(usage.estimated_time_to_regain_access for usage in usages)
        return RateLimit(used_ratio=used / 100, reset_at=now + 60 * minutes if minutes > 0 else None)
