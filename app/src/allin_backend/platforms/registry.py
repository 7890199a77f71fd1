"""Which platforms this deployment has, from a file with the client id and secret of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from allin_backend.platforms.base import Platform
from allin_backend.platforms.facebook import Facebook
from allin_backend.platforms.instagram import Instagram
from allin_backend.platforms.linkedin import LinkedIn
from allin_backend.platforms.tiktok import TikTok
from allin_backend.platforms.twitter import Twitter
from allin_backend.secret_files import read_text
from allin_backend.settings import ConfigurationError

ADAPTERS: Final[Mapping[str, type[Platform]]] = {
    adapter.name: adapter for adapter in (Facebook, Instagram, LinkedIn, TikTok, Twitter)
}
_VARIABLE: Final = "ALLIN_PLATFORMS_FILE"
_MEMBERS: Final = ("client_id", "client_secret")


class UnknownPlatformError(Exception):
    """There is no such platform, or this deployment has no client for it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the platform {name!r} is not set up here")
        self.name = name


class Platforms(Mapping[str, Platform]):
    """The platforms that can be used, by name, in the order of the contract."""

    def __init__(self, platforms: Mapping[str, Platform]) -> None:
        self._platforms: Final = {name: platforms[name] for name in ADAPTERS if name in platforms}

    def named(self, name: str) -> Platform:
        """The platform with this name.

        Raises:
            UnknownPlatformError: there is none, or it is not set up here.
        """
        try:
            return self._platforms[name]
        except KeyError:
            raise UnknownPlatformError(name) from None

    def __getitem__(self, name: str) -> Platform:
        return self._platforms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._platforms)

    def __len__(self) -> int:
        return len(self._platforms)


def load_platforms(file: Path | None, gateway: str = "") -> Platforms:
    """The platforms that ``file`` names; none without a file. ``gateway``: see ``Platform``.

    Raises:
        ConfigurationError: with everything that is wrong in the file. Its values are not repeated.
    """
    if file is None:
        return Platforms({})
    try:
        entries = msgspec.json.decode(read_text(_VARIABLE, file))
    except msgspec.DecodeError as error:
        problems = [f"is not JSON: {error}"]
    else:
        problems = list(_check(entries))
    if problems:
        raise ConfigurationError([f"{_VARIABLE}={str(file)!r}: {problem}" for problem in problems])
    return Platforms(
        {name: ADAPTERS[name](entry["client_id"], entry["client_secret"], gateway) for name, entry in entries.items()}
    )


def _check(entries: Any) -> Iterator[str]:
    if not isinstance(entries, dict):
        yield "must be an object with a member for each platform"
        return
    for name, entry in entries.items():
        if name not in ADAPTERS:
            yield f"{name!r} is no platform; there are {', '.join(ADAPTERS)}"
        elif not isinstance(entry, dict):
            yield f"{name} must be an object with client_id and client_secret"
        else:
            yield from _check_client(name, entry)


def _check_client(name: str, entry: dict[str, Any]) -> Iterator[str]:
    for member in _MEMBERS:
        value = entry.get(member)
        # What a header can carry: two of the platforms take both in one.
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            yield f"{name}.{member} must be a text of ASCII characters, as the platform gave it"
    for member in entry:
        if member not in _MEMBERS:
            yield f"{name}.{member!r} is not known; there are {' and '.join(_MEMBERS)}"
