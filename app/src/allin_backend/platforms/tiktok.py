"""TikTok.

Authorization: developers.tiktok.com/doc/oauth-user-access-token-management
Posts: developers.tiktok.com/doc/content-posting-api-reference-photo-post
Figures: developers.tiktok.com/doc/tiktok-api-v2-video-query
Errors: developers.tiktok.com/doc/tiktok-api-v2-error-handling (in the body, also of answers with status 200)

TikTok itself wants pictures with each post; it refuses one that has a description only.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from allin_backend.platforms.base import (
    Addresses,
    Call,
    Figures,
    Headers,
    Identity,
    Platform,
    Published,
    Send,
    decode,
    failure_of_status,
)
from allin_backend.platforms.errors import Failure

_UNAUTHORIZED: Final = frozenset({"access_token_invalid", "scope_not_authorized"})


class _User(msgspec.Struct):
    open_id: str
    display_name: str


class _UserData(msgspec.Struct):
    user: _User


class _UserAnswer(msgspec.Struct):
    data: _UserData


class _PublishData(msgspec.Struct):
    publish_id: str


class _PublishAnswer(msgspec.Struct):
    data: _PublishData


class _Video(msgspec.Struct):
    id: str
    view_count: int | None = None
    like_count: int | None = None
    comment_count: int | None = None
    share_count: int | None = None


class _VideoData(msgspec.Struct):
    videos: list[_Video] = []


class _VideoAnswer(msgspec.Struct):
    data: _VideoData


class _Error(msgspec.Struct):
    code: str
    message: str = ""


class _ErrorAnswer(msgspec.Struct):
    error: _Error


class TikTok(Platform):
    """Speaks to TikTok's API."""

    name = "tiktok"
    text_limit = 2_200  # of a film; a picture may have more
    scopes = ("user.info.basic", "video.publish", "video.list")
    scope_separator = ","
    client_auth = "client_key_post"
    revokes = "access_token"
    authorize_params = ("client_key",)
    own_addresses = Addresses(
        authorize="https://www.tiktok.com/v2/auth/authorize/",
        token="https://open.tiktokapis.com/v2/oauth/token/",  # noqa: S106  # an address
        revoke="https://open.tiktokapis.com/v2/oauth/revoke/",
        api="https://open.tiktokapis.com",
    )

    def text_length(self, text: str) -> int:
        # TikTok counts units of UTF-16.
        return len(text.encode("utf-16-le", "surrogatepass")) // 2

    async def identity(self, send: Send) -> Identity:
        params = {"fields": "open_id,display_name"}
        answer = await send(Call("identity", "GET", "/v2/user/info/", _UserAnswer, params=params, idempotent=True))
        user = answer.value.data.user
        return Identity(user.open_id, user.display_name)

    async def publish(self, send: Send, platform_user_id: str, text: str, idempotency_key: str) -> Published:
        post = {
            "media_type": "PHOTO",
            "post_mode": "DIRECT_POST",
            "post_info": {"description": text, "privacy_level": "PUBLIC_TO_EVERYONE"},
            "source_info": {"source": "PULL_FROM_URL", "photo_images": [], "photo_cover_index": 0},
        }
        answer = await send(
            Call(
                "publish",
                "POST",
                "/v2/post/publish/content/init/",
                _PublishAnswer,
                json=post,
                headers=self.publish_headers(idempotency_key),
                idempotent=self.publishes_once,
            )
        )
        return Published(answer.value.data.publish_id, None)

    async def figures(self, send: Send, platform_post_id: str) -> Figures:
        answer = await send(
            Call(
                "figures",
                "POST",
                "/v2/video/query/",
                _VideoAnswer,
                params={"fields": "id,view_count,like_count,comment_count,share_count"},
                json={"filters": {"video_ids": [platform_post_id]}},
                idempotent=True,  # a question, although it is a POST
            )
        )
        for video in answer.value.data.videos:
            if video.id == platform_post_id:
                return Figures(video.view_count, video.like_count, video.comment_count, video.share_count)
        return Figures()

    def api_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        answer = decode(body, _ErrorAnswer)
        if answer is None or answer.error.code == "ok":
            if failure := failure_of_status(status, headers, now):
                return failure
            return Failure("rejected", f"status {status}") if status >= HTTPStatus.BAD_REQUEST else None
        code = answer.error.code
        detail = f"{code}: {answer.error.message}"
        if code == "rate_limit_exceeded":
            limited = failure_of_status(HTTPStatus.TOO_MANY_REQUESTS, headers, now, detail=detail)
            assert limited is not None  # noqa: S101  # for mypy
            return limited
        if code in _UNAUTHORIZED:
            return Failure("unauthorized", detail)
        if code == "internal_error":
            return Failure("server_error", detail)
        return failure_of_status(status, headers, now, detail=detail) or Failure("rejected", detail)
