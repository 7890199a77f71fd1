"""What the platforms have in common, and what each of them has to say for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Literal

import msgspec
from starlette.responses import Response

from allin_simulator import people
from allin_simulator.limits import Usage
from allin_simulator.posts import Post, Posts
from allin_simulator.requests import read_form
from allin_simulator.tokens import Token

_LONGEST_KEY: Final = 200


class Reason(Enum):
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    BROKEN = "broken"


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818  # most are no errors of the simulator
    """A request is not answered as its sender wishes. Each platform says it in its own words."""

    reason: Reason
    status: int
    message: str
    retry_after: int = 0
    """Seconds; 0 where it is not known."""


def rejected(message: str, status: int = 400) -> Refusal:
    return Refusal(Reason.REJECTED, status, message)


def not_found() -> Refusal:
    return Refusal(Reason.NOT_FOUND, 404, "There is no such post.")


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a platform's API, with its token already found to be good."""

    token: Token
    now: float
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def user_id(self) -> str:
        return people.user_id(self.token.platform, self.token.person)

    @property
    def form(self) -> dict[str, str]:
        return read_form(self.body)

    @property
    def json(self) -> dict[str, Any]:
        """The body's JSON object.

        Raises:
            Refusal: it is none.
        """
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise rejected("The body must be a JSON object.") from None


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked of a platform. ``answer`` raises ``Refusal``."""

    name: str
    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Call], Response]
    publishes: bool = False


class Platform(ABC):
    """How one platform speaks. Knows nothing of faults; ``answer`` does all of its work at once, without awaiting."""

    name: ClassVar[str]
    text_limit: ClassVar[int]
    client_id_name: ClassVar[str] = "client_id"
    basic_authentication: ClassVar[bool] = False
    """Clients name themselves by HTTP Basic; otherwise in the form."""
    rotates_refresh_tokens: ClassVar[bool] = False
    """A refresh token is good once, and its answer has the next one."""
    refresh_scope: ClassVar[str | None] = None
    """The scope without which there is no refresh token."""

    def __init__(self, posts: Posts) -> None:
        self.posts = posts

    @abstractmethod
    def operations(self) -> list[Operation]: ...

    @abstractmethod
    def refuse(self, refusal: Refusal) -> Response: ...

    def usage_headers(self, usage: Usage, token: Token, now: float) -> dict[str, str]:  # noqa: ARG002
        """What the platform says of the account's limit; most say something."""
        return {}

    def allowance(self, token: Token, operation: str) -> str:  # noqa: ARG002
        """Which requests share a rate limit: by default all of one connected account."""
        return token.grant

    def length(self, text: str) -> int:
        """The length of a text as the platform counts it."""
        return len(text)

    def token_members(self, token: Token, refresh_seconds: float) -> dict[str, object]:  # noqa: ARG002
        """What the answer with a token has besides the standard's members."""
        return {}

    def forget(self) -> None:  # noqa: B027  # most have nothing of their own
        """Drop what is remembered besides the posts."""

    def publish(self, call: Call, text: object) -> Post:
        """Publish ``text``, or find the post that the same idempotency key made.

        Raises:
            Refusal: it is not a text, or too long.
        """
        return self.posts.publish(self.name, call.token.person, self.check(text), idempotency_key(call), call.now)

    def check(self, text: object) -> str:
        """``text``, if it can be published.

        Raises:
            Refusal: it is not a text, or too long.
        """
        if not isinstance(text, str) or not text.strip():
            raise rejected("The post has no text.")
        if (length := self.length(text)) > self.text_limit:
            raise rejected(f"The text has {length} characters; at most {self.text_limit} are possible.")
        return text

    def number(self, text: str) -> int:
        """The number in a post's id.

        Raises:
            Refusal: it has none.
        """
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise not_found()
        return int(text)


def idempotency_key(call: Call) -> str | None:
    """The key of a request that makes a post, if it has one.

    Raises:
        Refusal: it is longer than a key can be; keys are remembered.
    """
    key = call.headers.get("idempotency-key")
    if key is not None and len(key) > _LONGEST_KEY:
        raise rejected("The Idempotency-Key is too long.")
    return key
