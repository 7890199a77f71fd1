"""The configuration: environment variables, checked once and all at a time."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from allin_backend import __version__

PREFIX: Final = "ALLIN_"


class ConfigurationError(Exception):
    """The configuration cannot be used. ``problems`` has one sentence for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decides. Built by ``load``; durations are in seconds, sizes in bytes."""

    environment: str
    host: str
    port: int
    database_url: URL = field(repr=False)  # may hold a password
    database_pool_size: int
    database_timeout_seconds: float
    ready_timeout_seconds: float
    log_level: str
    release: str
    request_body_limit_bytes: int
    keep_alive_seconds: int
    shutdown_grace_seconds: int


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: the field it fills, its default, an example for messages, and how its text is read.

    ``read`` raises ``ValueError`` with a phrase that completes "NAME ...". Messages do not repeat a ``secret`` value.
    """

    name: str
    field: str
    default: str
    example: str
    meaning: str
    read: Callable[[str], Any]
    secret: bool = False


def _text(pattern: str, phrase: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(phrase)
        return text

    return read


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        # int() alone would also take "1_000" and " 7000 ".
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return float(text)

    return read


def _choice(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return read


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    label = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    # A name made of digits and dots only is a mistyped address.
    if len(text) > 253 or not re.fullmatch(rf"{label}(\.{label})*", text) or re.fullmatch(r"[0-9.]+", text):
        raise ValueError("must be an IP address or a host name, without a port")
    return text


def _database_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL") from None
    # Other asynchronous drivers follow with their packages in the lock file.
    if url.drivername != "sqlite+aiosqlite":
        raise ValueError("must start with sqlite+aiosqlite:// (no other database driver is installed)")
    if url.host or not url.database or not PurePosixPath(url.database).is_absolute():
        raise ValueError("must name a file by its absolute path: four slashes, as in sqlite+aiosqlite:////path/to/file")
    return url


VARIABLES: Final = (
    Variable(
        "ALLIN_ENVIRONMENT",
        "environment",
        "dev",
        "production",
        "name of the environment, for the log",
        _text(r"[a-z0-9][a-z0-9-]{0,31}", "must be lower-case letters, digits and hyphens, at most 32"),
    ),
    Variable("ALLIN_HOST", "host", "127.0.0.1", "127.0.0.1", "address to listen on", _host),
    Variable("ALLIN_PORT", "port", "7000", "7000", "port to listen on; 0 takes a free one", _integer(0, 65535)),
    Variable(
        "ALLIN_DATABASE_URL",
        "database_url",
        "sqlite+aiosqlite:////var/lib/allin-backend/allin.db",
        "sqlite+aiosqlite:////var/lib/allin-backend/allin.db",
        "the database",
        _database_url,
        secret=True,
    ),
    Variable("ALLIN_DATABASE_POOL_SIZE", "database_pool_size", "5", "5", "open database connections", _integer(1, 100)),
    Variable(
        "ALLIN_DATABASE_TIMEOUT_SECONDS",
        "database_timeout_seconds",
        "5",
        "5",
        "longest wait for a free connection, and for a lock",
        _seconds(0.1, 300),
    ),
    Variable(
        "ALLIN_READY_TIMEOUT_SECONDS",
        "ready_timeout_seconds",
        "2",
        "2",
        "longest time /ready waits for the database",
        _seconds(0.1, 60),
    ),
    Variable(
        "ALLIN_LOG_LEVEL",
        "log_level",
        "info",
        "info",
        "least important level that is logged",
        _choice("debug", "info", "warning", "error"),
    ),
    Variable(
        "ALLIN_RELEASE",
        "release",
        __version__,
        "2026.11.1",
        "release shown by /ready and allin_build_info",
        _text(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", "must be letters, digits and . _ + -, at most 128"),
    ),
    Variable(
        "ALLIN_REQUEST_BODY_LIMIT_BYTES",
        "request_body_limit_bytes",
        "1048576",
        "1048576",
        "largest accepted request body",
        _integer(1024, 1024**3),
    ),
    Variable(
        "ALLIN_KEEP_ALIVE_SECONDS",
        "keep_alive_seconds",
        "75",
        "75",
        "how long an idle connection stays open; longer than the proxy's own limit",
        _integer(1, 3600),
    ),
    Variable(
        "ALLIN_SHUTDOWN_GRACE_SECONDS",
        "shutdown_grace_seconds",
        "20",
        "20",
        "how long requests may still run after SIGTERM",
        _integer(1, 3600),
    ),
)


def load(environ: Mapping[str, str]) -> Settings:
    """Build the settings from environment variables.

    Raises:
        ConfigurationError: with every problem found, not only the first.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        text = environ.get(variable.name, variable.default)
        try:
            values[variable.field] = variable.read(text)
        except ValueError as error:
            shown = "" if variable.secret and text else f"={text!r}"
            problems.append(
                f"{variable.name}{shown} {error}; write for example {variable.name}={variable.example},"
                " or leave the variable out for its default"
            )
    known = [variable.name for variable in VARIABLES]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            closest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            problems.append(f"{name} is not known to this version; the closest name is {closest}. Correct or remove it")
    if problems:
        raise ConfigurationError(problems)
    return Settings(**values)
