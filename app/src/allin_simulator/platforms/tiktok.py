"""TikTok."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from allin_simulator import people
from allin_simulator.platforms.base import Call, Operation, Platform, Reason, Refusal, rejected
from allin_simulator.requests import json_response
from allin_simulator.tokens import Token

_PUBLISH_ID = "p_pub_url~v2."
_FIELDS = ("id", "title", "view_count", "like_count", "comment_count", "share_count")


class TikTok(Platform):
    name = "tiktok"
    text_limit = 2_200
    client_id_name = "client_key"
    rotates_refresh_tokens = True

    def operations(self) -> list[Operation]:
        return [
            Operation("identity", "GET", "/v2/user/info/", self._identity),
            Operation("publish", "POST", "/v2/post/publish/content/init/", self._publish, publishes=True),
            Operation("status", "POST", "/v2/post/publish/status/fetch/", self._status),
            Operation("figures", "POST", "/v2/video/query/", self._figures),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        code = {
            Reason.UNAUTHORIZED: "access_token_invalid",
            Reason.RATE_LIMITED: "rate_limit_exceeded",
            Reason.REJECTED: "invalid_params",
            Reason.NOT_FOUND: "invalid_publish_id",
            Reason.BROKEN: "internal_error",
        }[refusal.reason]
        # What is wrong with the content of a request is said with status 200: only the code tells.
        status = HTTPStatus.OK if refusal.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND) else refusal.status
        return json_response({"data": {}, "error": {"code": code, "message": refusal.message, "log_id": ""}}, status)

    def length(self, text: str) -> int:
        return len(text.encode("utf-16-le", "surrogatepass")) // 2

    def token_members(self, token: Token, refresh_seconds: float) -> dict[str, object]:
        return {"open_id": people.user_id(self.name, token.person), "refresh_expires_in": int(refresh_seconds)}

    def _identity(self, call: Call) -> Response:
        known = {"open_id": call.user_id, "display_name": call.token.person.title()}
        wanted = call.query.get("fields", "open_id,display_name").split(",")
        return _ok({"user": {name: known[name] for name in wanted if name in known}})

    def _publish(self, call: Call) -> Response:
        information = call.json.get("post_info")
        if not isinstance(information, dict):
            raise rejected("post_info must be an object.")
        post = self.publish(call, information.get("description") or information.get("title"))
        return _ok({"publish_id": f"{_PUBLISH_ID}{post.number}"})

    def _status(self, call: Call) -> Response:
        number = self.number(str(call.json.get("publish_id")).removeprefix(_PUBLISH_ID))
        # The platform's own spelling.
        return _ok({"status": "PUBLISH_COMPLETE", "publicaly_available_post_id": [number]})

    def _figures(self, call: Call) -> Response:
        filters = call.json.get("filters")
        identifiers = filters.get("video_ids") if isinstance(filters, dict) else None
        if not isinstance(identifiers, list) or not 1 <= len(identifiers) <= 20:
            raise rejected("filters.video_ids must have 1 to 20 ids.")
        wanted = [name for name in call.query.get("fields", "").split(",") if name in _FIELDS]
        if not wanted:
            raise rejected(f"fields must name some of {', '.join(_FIELDS)}.")
        videos = []
        # Ids that are not there are left out of the answer.
        for identifier in map(str, identifiers):
            number = self.number(identifier.removeprefix(_PUBLISH_ID))
            if (figures := self.posts.figures(self.name, number, call.now)) is not None:
                post = self.posts.get(self.name, number)
                video = {
                    "id": identifier,
                    "title": post.text if post else "",
                    "view_count": figures.impressions,
                    "like_count": figures.likes,
                    "comment_count": figures.comments,
                    "share_count": figures.shares,
                }
                videos.append({name: video[name] for name in wanted})
        return _ok({"videos": videos, "has_more": False})


def _ok(data: dict[str, object]) -> Response:
    return json_response({"data": data, "error": {"code": "ok", "message": "", "log_id": ""}})
