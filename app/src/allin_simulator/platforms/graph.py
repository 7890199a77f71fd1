"""Facebook and Instagram, which share an API's manners."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import msgspec
from starlette.responses import Response

from allin_simulator import people
from allin_simulator.limits import Usage
from allin_simulator.platforms.base import (
    Call,
    Operation,
    Platform,
    Reason,
    Refusal,
    idempotency_key,
    not_found,
    rejected,
)
from allin_simulator.posts import Figures, Posts
from allin_simulator.recent import Recent
from allin_simulator.requests import json_response
from allin_simulator.tokens import Token

_CODES = {
    Reason.UNAUTHORIZED: 190,
    Reason.RATE_LIMITED: 4,
    Reason.REJECTED: 100,
    Reason.NOT_FOUND: 100,
    Reason.BROKEN: 2,
}


class Graph(Platform):
    """What both do alike."""

    fields: ClassVar[tuple[str, ...]]
    """What a person's account can be asked for."""

    def refuse(self, refusal: Refusal) -> Response:
        kind = "GraphMethodException" if refusal.reason is Reason.NOT_FOUND else "OAuthException"
        error = {"message": refusal.message, "type": kind, "code": _CODES[refusal.reason]}
        # A post that is not there is a bad parameter, not a missing page.
        status = 400 if refusal.reason is Reason.NOT_FOUND else refusal.status
        return json_response({"error": error}, status)

    def identity(self, call: Call) -> Response:
        known = {"id": call.user_id, "name": call.token.person.title(), "username": call.token.person}
        wanted = call.query.get("fields", "id").split(",")
        if unknown := [name for name in wanted if name not in self.fields]:
            raise rejected(f"Tried accessing nonexisting field ({unknown[0]}).")
        return json_response({name: known[name] for name in ["id", *wanted]})

    def insights(self, call: Call) -> Response:
        number = self.number(call.path["id"].rpartition("_")[2])
        figures = self.posts.figures(self.name, number, call.now)
        if figures is None:
            raise not_found()
        known = self.metrics(figures)
        wanted = call.query.get("metric", "").split(",")
        if unknown := [name for name in wanted if name not in known]:
            raise rejected(f"metric[0] must be one of {', '.join(known)}; it is {unknown[0]!r}.")
        data = [
            {"name": name, "period": "lifetime", "values": [{"value": known[name]}], "id": f"{number}/insights/{name}"}
            for name in wanted
        ]
        return json_response({"data": data})

    def metrics(self, figures: Figures) -> dict[str, object]:
        raise NotImplementedError


class Facebook(Graph):
    name = "facebook"
    text_limit = 63_206
    fields = ("id", "name")

    def operations(self) -> list[Operation]:
        return [
            Operation("identity", "GET", "/me", self.identity),
            Operation("publish", "POST", "/me/feed", self._publish, publishes=True),
            Operation("figures", "GET", "/{id}/insights", self.insights),
        ]

    def usage_headers(self, usage: Usage, token: Token, now: float) -> dict[str, str]:  # noqa: ARG002
        percent = usage.used_percent
        content = {"call_count": percent, "total_time": percent // 2, "total_cputime": percent // 4}
        return {"X-App-Usage": msgspec.json.encode(content).decode()}

    def allowance(self, token: Token, operation: str) -> str:  # noqa: ARG002
        return token.client_id

    def metrics(self, figures: Figures) -> dict[str, object]:
        actions = {"like": figures.likes, "comment": figures.comments, "share": figures.shares}
        return {
            "post_impressions": figures.impressions,
            "post_reactions_like_total": figures.likes,
            "post_activity_by_action_type": actions,
        }

    def _publish(self, call: Call) -> Response:
        post = self.publish(call, call.form.get("message"))
        return json_response({"id": f"{call.user_id}_{post.number}"})


@dataclass(slots=True)
class _Container:
    """The first of the two steps to a post."""

    person: str
    caption: str
    published: bool = False
    key: str | None = None
    """The idempotency key that it was published with."""


class Instagram(Graph):
    name = "instagram"
    text_limit = 2_200
    fields = ("id", "name", "username")

    def __init__(self, posts: Posts, remembered: int) -> None:
        super().__init__(posts)
        self._containers: Recent[str, _Container] = Recent(remembered)
        self._made = 0

    def operations(self) -> list[Operation]:
        return [
            Operation("identity", "GET", "/me", self.identity),
            Operation("create", "POST", "/me/media", self._create),
            Operation("publish", "POST", "/me/media_publish", self._publish, publishes=True),
            Operation("figures", "GET", "/{id}/insights", self.insights),
        ]

    def usage_headers(self, usage: Usage, token: Token, now: float) -> dict[str, str]:
        percent = usage.used_percent
        content = {
            people.user_id(self.name, token.person): [
                {
                    "type": "instagram",
                    "call_count": percent,
                    "total_cputime": percent // 4,
                    "total_time": percent // 2,
                    "estimated_time_to_regain_access": math.ceil((usage.reset_at - now) / 60) * usage.exceeded,
                }
            ]
        }
        return {"X-Business-Use-Case-Usage": msgspec.json.encode(content).decode()}

    def metrics(self, figures: Figures) -> dict[str, object]:
        return {
            "impressions": figures.impressions,
            "views": figures.impressions,
            "likes": figures.likes,
            "comments": figures.comments,
            "shares": figures.shares,
        }

    def forget(self) -> None:
        self._containers.clear()

    def _create(self, call: Call) -> Response:
        container = _Container(call.token.person, self.check(call.form.get("caption")))
        self._made += 1
        # The time keeps numbers apart that were given before and after a restart.
        identifier = f"{int(call.now * 1000)}{self._made % 10_000:04}"
        self._containers.put(identifier, container)
        return json_response({"id": identifier})

    def _publish(self, call: Call) -> Response:
        container = self._containers.get(call.form.get("creation_id", ""))
        if container is None or container.person != call.token.person:
            raise rejected("Media ID is not available.")
        key = idempotency_key(call)
        if container.published and (key is None or key != container.key):
            raise rejected("The media has already been published.")
        post = self.publish(call, container.caption)
        container.published, container.key = True, key
        return json_response({"id": str(post.number)})
