"""What can go wrong with a platform. The classes of errors are those of ``allin_social_api_errors_total``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

LONGEST_DETAIL: Final = 300
"""Characters of a platform's own words that are kept."""
UNTOLD_WAIT_SECONDS: Final = 60.0
"""How long an allowance counts as used up where the platform refused and did not say for how long."""
LONGEST_WAIT_SECONDS: Final = 86_400.0
"""The longest window of any of the platforms: what claims to be longer is not believed."""


def cut(text: str, secrets: Iterable[str] = ()) -> str:
    """A platform's words on one line of at most ``LONGEST_DETAIL`` characters, with ``secrets`` blotted out.

    Platforms do quote a token that they refuse.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 10 * LONGEST_DETAIL]).split())
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"


@dataclass(frozen=True, slots=True)
class Failure:
    """How an adapter reads an answer that is none: its class, the platform's words, when to try again (Unix seconds).

    ``retry_at`` is ``None`` where the platform does not say.
    """

    error: str
    detail: str = ""
    retry_at: float | None = None


class PlatformError(Exception):
    """A request to a platform failed.

    ``error`` is one of ``contract.SOCIAL_ERRORS``; ``detail`` is short and holds no secret; ``retry_at`` is the time
    before which another request is pointless, if that is known. ``outcome_unknown``: the platform may have done what it
    was asked to do all the same. ``held_back``: the request was not sent at all.
    """

    def __init__(
        self,
        platform: str,
        error: str,
        detail: str = "",
        *,
        retry_at: datetime | None = None,
        outcome_unknown: bool = False,
        held_back: bool = False,
    ) -> None:
        super().__init__(f"{platform}: {error}" + (f": {detail}" if detail else ""))
        self.platform = platform
        self.error = error
        self.detail = detail
        self.retry_at = retry_at
        self.outcome_unknown = outcome_unknown
        self.held_back = held_back


class UnavailableError(PlatformError):
    """No answer, or none that can be used, through no fault of the request. Later it may succeed."""


class RateLimitedError(PlatformError):
    """The platform's allowance is used up; ``retry_at`` is always set."""

    def __init__(self, platform: str, detail: str = "", *, retry_at: datetime, held_back: bool = False) -> None:
        super().__init__(platform, "rate_limited", detail, retry_at=retry_at, held_back=held_back)
        self.retry_at: datetime = retry_at


class UnauthorizedError(PlatformError):
    """The platform does not take the token, code or refresh token (any more)."""

    def __init__(self, platform: str, detail: str = "") -> None:
        super().__init__(platform, "unauthorized", detail)


class RejectedError(PlatformError):
    """The platform refuses this request for good; ``detail`` is its reason."""

    def __init__(self, platform: str, detail: str = "") -> None:
        super().__init__(platform, "rejected", detail)


def from_failure(platform: str, failure: Failure, secrets: Iterable[str], *, now: float) -> PlatformError:
    """The exception for a failure that was read from an answer at ``now`` (Unix seconds)."""
    detail = cut(failure.detail, secrets)
    asked = failure.retry_at
    if asked is None and failure.error == "rate_limited":
        asked = now + UNTOLD_WAIT_SECONDS
    retry_at = None if asked is None else datetime.fromtimestamp(min(asked, now + LONGEST_WAIT_SECONDS), UTC)
    match failure.error:
        case "rate_limited":
            assert retry_at is not None  # noqa: S101  # for mypy
            return RateLimitedError(platform, detail, retry_at=retry_at)
        case "unauthorized":
            return UnauthorizedError(platform, detail)
        case "rejected":
            return RejectedError(platform, detail)
        case _:
            return UnavailableError(platform, failure.error, detail, retry_at=retry_at, outcome_unknown=True)
