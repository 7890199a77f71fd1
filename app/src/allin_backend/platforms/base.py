"""What all platforms have in common: the words in which adapters and client talk, and the adapters' base."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from allin_backend.platforms.errors import Failure

T = TypeVar("T")
Headers = Mapping[str, str]
"""Response headers by their name, in any case."""


class Nothing(msgspec.Struct):
    """Stands for an answer whose body does not matter."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to a platform's API, without address and token, and the kind of its JSON answer.

    ``idempotent``: sending it twice does the same as sending it once.
    """

    endpoint: str
    method: str
    path: str
    answer: type[T]
    params: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A successful answer."""

    value: T
    headers: Headers


class Send(Protocol):
    """Sends a call with an account's token, again where that is safe."""

    async def __call__(self, call: Call[T], /) -> Answer[T]:
        """The platform's answer.

        Raises:
            PlatformError: there was none.
        """


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a platform is. ``api`` is put before the path of a call; ``revoke`` is ``None`` where there is none."""

    authorize: str
    token: str
    revoke: str | None
    api: str


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What an answer says about the platform's allowance; ``None`` for what it does not say. ``reset_at``: Unix s."""

    limit: float | None = None
    remaining: float | None = None
    reset_at: float | None = None
    used_ratio: float | None = None

    @property
    def used_up(self) -> bool:
        """Whether nothing is left until ``reset_at``."""
        return self.reset_at is not None and (
            (self.remaining is not None and self.remaining <= 0)
            or (self.used_ratio is not None and self.used_ratio >= 1)
        )


class Identity(msgspec.Struct, frozen=True):
    """Whose account it is: the platform's id, and the name that people know."""

    platform_user_id: str
    handle: str


class Published(msgspec.Struct, frozen=True):
    """A post on the platform; ``url`` is ``None`` where the platform does not tell it."""

    platform_post_id: str
    url: str | None


class Figures(msgspec.Struct, frozen=True):
    """A post's figures; ``None`` for what the platform does not tell."""

    impressions: int | None = None
    likes: int | None = None
    comments: int | None = None
    shares: int | None = None


_OAUTH_CODE: Final = re.compile(r"[a-z_]{1,40}")


class _OAuthRefusal(msgspec.Struct):
    error: str


class Platform(ABC):
    """An adapter: speaks as one platform does. Holds no state and sends nothing itself.

    Without ``gateway`` it uses the platform's own addresses. A gateway (or the simulator) takes everything under
    ``{gateway}/{name}``, and keeps the promise of the ``Idempotency-Key`` header: a post is made once for each key.
    """

    name: ClassVar[str]
    text_limit: ClassVar[int]
    """Longest text, as ``text_length`` counts it."""
    scopes: ClassVar[tuple[str, ...]]
    scope_separator: ClassVar[str] = " "
    own_addresses: ClassVar[Addresses]
    client_auth: ClassVar[str] = "client_secret_post"
    """How the client shows who it is at the token address: a method that Authlib knows, or ``client_key_post``."""
    revokes: ClassVar[str] = "refresh_token"
    """Which token, revoked, ends the whole permission; the other one where there is no such token."""
    denials: ClassVar[frozenset[str]] = frozenset({"access_denied"})
    """The error codes that a person comes back with who said no."""
    authorize_params: ClassVar[tuple[str, ...]] = ()
    """Further parameters of the authorization page that take the client's id."""
    limited_by_account: ClassVar[bool] = True
    """Whether each account has an allowance for each endpoint, or the whole application has one."""

    def __init__(self, client_id: str, client_secret: str, gateway: str = "") -> None:
        self.client_id: Final = client_id
        self.client_secret: Final = client_secret
        self.publishes_once: Final = bool(gateway)
        """Whether a repeated ``Idempotency-Key`` makes no second post. None of the platforms itself has that header."""
        root = f"{gateway}/{self.name}"
        self.addresses: Final = (
            Addresses(f"{root}/oauth/authorize", f"{root}/oauth/token", f"{root}/oauth/revoke", root)
            if gateway
            else self.own_addresses
        )

    def text_length(self, text: str) -> int:
        """The length of a text as the platform counts it."""
        return len(text)

    def withdrawal(self) -> Call[Nothing] | None:
        """The call that takes the permission back, on a platform that has no address to revoke tokens."""
        return None

    @abstractmethod
    async def identity(self, send: Send) -> Identity:
        """Whose token it is."""

    @abstractmethod
    async def publish(self, send: Send, platform_user_id: str, text: str, idempotency_key: str) -> Published:
        """Make a post."""

    @abstractmethod
    async def figures(self, send: Send, platform_post_id: str) -> Figures:
        """The figures of a post."""

    def rate_limit(self, headers: Headers, now: float) -> RateLimit | None:
        """What an answer's headers say about the allowance; ``now`` in Unix seconds. Never raises."""
        return None

    @abstractmethod
    def api_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        """How an answer of the API failed; ``None`` if it did not."""

    def oauth_failure(self, status: int, headers: Headers, body: bytes, now: float) -> Failure | None:
        """How an answer of the token or the revocation address failed (RFC 6749); ``None`` if it did not.

        Of the platform's words only the error code is used: the others may quote what was sent.
        """
        if failure := failure_of_status(status, headers, now, unauthorized=False):
            return failure
        try:
            code = msgspec.json.decode(body, type=_OAuthRefusal).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None if status < HTTPStatus.BAD_REQUEST else Failure("rejected", f"status {status}")
        if code == "invalid_grant":
            return Failure("unauthorized", code)
        return Failure("rejected", code if _OAUTH_CODE.fullmatch(code) else f"status {status}")

    def publish_headers(self, idempotency_key: str) -> dict[str, str]:
        """The headers of a request that makes a post."""
        return {"Idempotency-Key": idempotency_key}


def failure_of_status(
    status: int, headers: Headers, now: float, *, detail: str = "", unauthorized: bool = True
) -> Failure | None:
    """What a status alone says: too many requests, an error of the platform, an answer that cannot be one.

    ``None`` for success and for the other refusals; 401 is among those if not ``unauthorized``.
    """
    detail = detail or f"status {status}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Failure("rate_limited", detail, retry_after(headers, now))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure("server_error", detail, retry_after(headers, now))
    if status == HTTPStatus.UNAUTHORIZED and unauthorized:
        return Failure("unauthorized", detail)
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES and status < HTTPStatus.BAD_REQUEST:
        return Failure("invalid_response", detail)
    return None


def retry_after(headers: Headers, now: float) -> float | None:
    """The end (Unix seconds) of the wait that a ``Retry-After`` header asks for, in its form with seconds."""
    seconds = number(headers.get("retry-after"))
    return None if seconds is None else now + seconds


def number(text: str | None) -> float | None:
    """A header's whole number that is not negative; ``None`` if it is none."""
    if text is None or not re.fullmatch(r"[0-9]{1,12}", text.strip()):
        return None
    return float(text)


def decode(body: bytes, kind: type[T]) -> T | None:
    """A JSON body as a ``kind``; ``None`` if it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
