"""The Graph API of Meta, which Facebook and Instagram share."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec

from allin_backend.platforms.base import Call, Headers, Platform, Send, decode, failure_of_status
from allin_backend.platforms.errors import Failure

# developers.facebook.com/docs/graph-api/guides/error-handling and .../overview/rate-limiting
_TEMPORARY: Final = frozenset({1, 2})
_LIMITED: Final = frozenset({4, 17, 32, 341, 613, 80001, 80002, 80004, 80006})
_SESSION_ENDED: Final = frozenset({102, 190})
_WRONG_PARAMETER: Final = 100


class Created(msgspec.Struct):
    """The answer to whatever makes an object."""

    id: str


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


class _Value(msgspec.Struct):
    value: Any = None


class _Metric(msgspec.Struct):
    name: str
    values: list[_Value] = []


class _Insights(msgspec.Struct):
    data: list[_Metric]


class GraphPlatform(Platform):
    """A platform with the Graph API."""

    def api_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        refusal = decode(body, _Refusal)
        if refusal is not None:
            error = refusal.error
            detail = f"{error.message} (code {error.code})"
            if error.code in _LIMITED:
                return Failure("rate_limited", detail, self._regained_at(headers, now))
            if error.code in _SESSION_ENDED:
                return Failure("unauthorized", detail)
            if error.code in _TEMPORARY:
                return Failure("server_error", detail)
            return failure_of_status(status, headers, now, detail=detail) or Failure("rejected", detail)
        if failure := failure_of_status(status, headers, now):
            return failure
        return Failure("rejected", f"status {status}") if status >= HTTPStatus.BAD_REQUEST else None

    def oauth_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        refusal = decode(body, _Refusal)
        if refusal is None:
            return super().oauth_failure(status, headers, body, now)
        code = refusal.error.code
        if failure := failure_of_status(status, headers, now, unauthorized=False):
            return failure
        if code in _TEMPORARY:
            return Failure("server_error", f"code {code}")
        # A code or a token that is used or has ended comes as a wrong parameter too.
        kind = "unauthorized" if code in _SESSION_ENDED or code == _WRONG_PARAMETER else "rejected"
        return Failure(kind, f"code {code}")

    def _regained_at(self, headers: Headers, now: float) -> float | None:
        allowance = self.rate_limit(headers, now)
        return None if allowance is None else allowance.reset_at

    async def insights(self, send: Send, platform_post_id: str, *names: str) -> dict[str, Any]:
        """The values of a post's metrics by their names on the platform, as far as it has them."""
        path = f"/{quote(platform_post_id, safe='')}/insights"
        answer = await send(
            Call("figures", "GET", path, _Insights, params={"metric": ",".join(names)}, idempotent=True)
        )
        return {metric.name: metric.values[0].value for metric in answer.value.data if metric.values}


def whole(value: Any) -> int | None:
    """A metric's value where it is a whole number."""
    return value if isinstance(value, int) else None
