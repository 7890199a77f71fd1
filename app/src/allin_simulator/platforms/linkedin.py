"""LinkedIn."""

from __future__ import annotations

import re
from http import HTTPStatus

from starlette.responses import Response

from allin_simulator.platforms.base import Call, Operation, Platform, Reason, Refusal, not_found, rejected
from allin_simulator.requests import json_response

_POST = "urn:li:share:"


class LinkedIn(Platform):
    name = "linkedin"
    text_limit = 3_000
    basic_authentication = True

    def operations(self) -> list[Operation]:
        return [
            Operation("identity", "GET", "/v2/userinfo", self._identity),
            Operation("publish", "POST", "/rest/posts", self._publish, publishes=True),
            Operation("figures", "GET", "/rest/socialMetadata/{urn}", self._figures),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        code = {
            Reason.UNAUTHORIZED: "INVALID_ACCESS_TOKEN",
            Reason.RATE_LIMITED: "TOO_MANY_REQUESTS",
            Reason.REJECTED: "INVALID_PARAMETER",
            Reason.NOT_FOUND: "NOT_FOUND",
            Reason.BROKEN: "INTERNAL_SERVER_ERROR",
        }[refusal.reason]
        # The only word of a limit on this platform.
        headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
        return json_response(
            {"status": refusal.status, "code": code, "message": refusal.message}, refusal.status, headers
        )

    def _identity(self, call: Call) -> Response:
        return json_response({"sub": call.user_id, "name": call.token.person.title()})

    def _publish(self, call: Call) -> Response:
        _require_version(call)
        content = call.json
        if content.get("author") != f"urn:li:person:{call.user_id}":
            raise rejected("author must be the person whose token this is.", HTTPStatus.FORBIDDEN)
        if content.get("lifecycleState") != "PUBLISHED":
            raise rejected("lifecycleState must be PUBLISHED.")
        if content.get("visibility") not in ("PUBLIC", "CONNECTIONS"):
            raise rejected("visibility must be PUBLIC or CONNECTIONS.")
        commentary = content.get("commentary")
        # In this platform's "little text", a backslash stands before characters that could begin something else.
        text = re.sub(r"\\(.)", r"\1", commentary, flags=re.DOTALL) if isinstance(commentary, str) else None
        post = self.publish(call, text)
        return Response(status_code=HTTPStatus.CREATED, headers={"x-restli-id": f"{_POST}{post.number}"})

    def _figures(self, call: Call) -> Response:
        _require_version(call)
        urn = call.path["urn"]
        figures = self.posts.figures(self.name, self.number(urn.removeprefix(_POST)), call.now)
        if figures is None:
            raise not_found()
        like = {"reactionType": "LIKE", "count": figures.likes}
        comments = {"count": figures.comments, "topLevelCount": figures.comments}
        return json_response(
            {"entity": urn, "reactionSummaries": {"LIKE": like}, "commentSummary": comments, "commentsState": "OPEN"}
        )


def _require_version(call: Call) -> None:
    version = call.headers.get("linkedin-version", "")
    if not (len(version) == 6 and version.isascii() and version.isdigit()):
        raise rejected("A version must be present: the header LinkedIn-Version, as in 202606.")
