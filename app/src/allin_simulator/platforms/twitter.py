"""Twitter."""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from http.client import responses
from typing import Final

from starlette.responses import Response

from allin_simulator.limits import Usage
from allin_simulator.platforms.base import Call, Operation, Platform, Refusal, not_found
from allin_simulator.requests import json_response
from allin_simulator.tokens import Token

_LINK: Final = re.compile(r"https?://\S+")
_LINK_LENGTH: Final = 23  # whatever it is, as the platform shortens it


class Twitter(Platform):
    name = "twitter"
    text_limit = 280
    basic_authentication = True
    rotates_refresh_tokens = True
    refresh_scope = "offline.access"

    def operations(self) -> list[Operation]:
        return [
            Operation("identity", "GET", "/2/users/me", self._identity),
            Operation("publish", "POST", "/2/tweets", self._publish, publishes=True),
            Operation("figures", "GET", "/2/tweets/{id}", self._figures),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        title = responses.get(refusal.status, "Error")
        content = {"title": title, "detail": refusal.message, "type": "about:blank", "status": refusal.status}
        return json_response(content, refusal.status)

    def allowance(self, token: Token, operation: str) -> str:
        return f"{token.grant} {operation}"

    def length(self, text: str) -> int:
        rest, links = _LINK.subn("", text)
        return links * _LINK_LENGTH + sum(1 if _counts_once(ord(letter)) else 2 for letter in rest)

    def usage_headers(self, usage: Usage, token: Token, now: float) -> dict[str, str]:  # noqa: ARG002
        return {
            "x-rate-limit-limit": str(usage.limit),
            "x-rate-limit-remaining": str(usage.remaining),
            "x-rate-limit-reset": str(math.ceil(usage.reset_at)),
        }

    def _identity(self, call: Call) -> Response:
        person = call.token.person
        return json_response({"data": {"id": call.user_id, "name": person.title(), "username": person}})

    def _publish(self, call: Call) -> Response:
        post = self.publish(call, call.json.get("text"))
        return json_response({"data": {"id": str(post.number), "text": post.text}}, HTTPStatus.CREATED)

    def _figures(self, call: Call) -> Response:
        number = self.number(call.path["id"])
        figures = self.posts.figures(self.name, number, call.now)
        if figures is None:
            raise not_found()
        post = self.posts.get(self.name, number)
        data: dict[str, object] = {"id": str(number), "text": post.text if post else ""}
        if "public_metrics" in call.query.get("tweet.fields", "").split(","):
            data["public_metrics"] = {
                "retweet_count": figures.shares,
                "reply_count": figures.comments,
                "like_count": figures.likes,
                "quote_count": 0,
                "bookmark_count": 0,
                "impression_count": figures.impressions,
            }
        return json_response({"data": data})


def _counts_once(code: int) -> bool:
    """Whether a character is one of the documented ranges that count once: Latin to Georgian, and punctuation."""
    return code <= 4351 or 8192 <= code <= 8205 or 8208 <= code <= 8223 or 8242 <= code <= 8247
