"""What the simulator is told: its options, and the knobs of each platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

PLATFORMS: Final = ("facebook", "instagram", "linkedin", "tiktok", "twitter")

_Seconds = Annotated[float, Meta(ge=0, le=60)]
_Ratio = Annotated[float, Meta(ge=0, le=1)]


class SettingsError(Exception):
    """A setting cannot be used; the text says which and what it must be."""


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one platform behaves. The three ratios share out the requests, so they add up to at most 1."""

    latency_seconds: _Seconds = 0.0
    latency_jitter_seconds: _Seconds = 0.0
    """Up to this is added to the latency, evenly spread."""
    error_ratio: _Ratio = 0.0
    error_status: Annotated[int, Meta(ge=400, le=599)] = 503
    timeout_ratio: _Ratio = 0.0
    """Share of the requests that never get an answer."""
    accept_then_fail_ratio: _Ratio = 0.0
    """Share of the posts that are published, but whose request is answered with 500."""
    rate_limit: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 10_000
    """Requests in a window; 0: no limit, and no word of one. Facebook counts the whole client's, Twitter an account's
    for each operation, the others all of an account's."""
    rate_window_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 900.0
    down: bool = False
    """Connections are closed without an answer."""
    deny_tokens: bool = False
    """Every access and refresh token is refused."""

    def __post_init__(self) -> None:
        if self.error_ratio + self.timeout_ratio + self.accept_then_fail_ratio > 1:
            raise ValueError("error_ratio, timeout_ratio and accept_then_fail_ratio must add up to at most 1")

    def changed(self, changes: Mapping[str, object]) -> Knobs:
        """These knobs with some other values.

        Raises:
            SettingsError: an unknown knob, or a value out of its range.
        """
        try:
            return msgspec.convert(msgspec.to_builtins(self) | dict(changes), Knobs)
        except msgspec.ValidationError as error:
            raise SettingsError(str(error)) from None


class Client(msgspec.Struct, frozen=True):
    """An application that the platform knows."""

    client_id: str
    client_secret: str


def _no_knobs() -> dict[str, Knobs]:
    return {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations are in seconds."""

    seed: int = 0
    """Decides which requests fail, and by how much latency varies."""
    secret: str = field(default="allin-simulator", repr=False)
    """Signs tokens and ids: simulators with the same one accept each other's."""
    clients: Mapping[str, Client] | None = None
    """By platform; ``None`` accepts every client."""
    token_seconds: float = 3600
    refresh_seconds: float = 30 * 86_400
    hang_seconds: float = 60
    """A request that gets no answer is given up after this."""
    remembered: int = 10_000
    """Posts, tokens and accounts of which something is kept; older ones are forgotten."""
    knobs: Mapping[str, Knobs] = field(default_factory=_no_knobs)
    """By platform, where they are not the defaults."""


def read_clients(path: Path) -> dict[str, Client]:
    """The file of the backend's ALLIN_PLATFORMS_FILE.

    Raises:
        SettingsError: the file cannot be read, or is not what it must be.
    """
    try:
        return msgspec.convert(_read(path), dict[str, Client])
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {error}") from None


def read_knobs(path: Path, base: Knobs) -> dict[str, Knobs]:
    """A JSON object with the knobs of some platforms; what it does not name is as in ``base``.

    Raises:
        SettingsError: the file cannot be read, or is not what it must be.
    """
    knobs = {}
    for platform, changes in _read(path).items():
        try:
            knobs[platform] = base.changed(changes)
        except SettingsError as error:
            raise SettingsError(f"{path}: {platform}: {error}") from None
    return knobs


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """A JSON object with an object for each of some platforms."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    for name in content:
        if name not in PLATFORMS:
            raise SettingsError(f"{path}: {name!r} is not one of {', '.join(PLATFORMS)}")
    return content
