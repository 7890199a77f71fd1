"""The configuration: environment variables, checked once and all at a time."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

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
    metrics_port: int
    database_password_file: Path | None
    cache_url: str = field(repr=False)  # may hold a password
    cache_password_file: Path | None
    cache_timeout_seconds: float
    cache_size: int
    token_keys_file: Path | None
    platforms_file: Path | None
    platforms_url: str
    oauth_redirect_url: str
    social_timeout_seconds: float
    publish_interval_seconds: float
    publish_deadline_seconds: float
    session_seconds: float
    request_header_limit_bytes: int
    rate_limit_per_minute: int
    sign_in_limit_per_minute: int
    trusted_proxies: tuple[str, ...]
    faults_file: Path | None


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
    if url.drivername == "postgresql+asyncpg":
        if not url.host or not url.database:
            raise ValueError(
                "must name the PostgreSQL server and the database, as in postgresql+asyncpg://user@host/name"
            )
        return url
    if url.drivername != "sqlite+aiosqlite":
        raise ValueError("must start with sqlite+aiosqlite:// or postgresql+asyncpg:// (no other driver is installed)")
    if url.host or not url.database or not PurePosixPath(url.database).is_absolute():
        raise ValueError("must name a file by its absolute path: four slashes, as in sqlite+aiosqlite:////path/to/file")
    return url


def _file(text: str) -> Path | None:
    if text and not PurePosixPath(text).is_absolute():
        raise ValueError("must be the absolute path of a file")
    return Path(text) if text else None


def _web_address(text: str) -> str:
    """An http or https address without query or fragment; a final slash is dropped."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username:
        raise ValueError("must be a web address, http:// or https://, without query, fragment or password")
    return text.rstrip("/")


def _optional_web_address(text: str) -> str:
    return _web_address(text) if text else ""


def _cache_url(text: str) -> str:
    if text == "memory:":
        return text
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("redis", "rediss") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"(/[0-9]{0,3})?", parts.path) or parts.query or parts.fragment:
        raise ValueError("must be memory: or the address of a Redis server, redis:// or rediss://")
    return text


def _networks(text: str) -> tuple[str, ...]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        try:
            ipaddress.ip_network(name)
        except ValueError:
            raise ValueError("must be IP addresses or networks, separated by commas") from None
    return tuple(names)


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
        "longest time that anything asked of the database may take",
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
    Variable(
        "ALLIN_METRICS_PORT",
        "metrics_port",
        "0",
        "7001",
        "port on which this process alone answers /metrics, where several share the service's port; 0: none",
        _integer(0, 65535),
    ),
    Variable(
        "ALLIN_DATABASE_PASSWORD_FILE",
        "database_password_file",
        "",
        "/etc/allin-backend-secrets/database-password",
        "file whose first line is the database's password",
        _file,
    ),
    Variable(
        "ALLIN_CACHE_URL",
        "cache_url",
        "memory:",
        "redis://127.0.0.1:6379/0",
        "the cache: memory: for one in each process, or a Redis server",
        _cache_url,
        secret=True,
    ),
    Variable(
        "ALLIN_CACHE_PASSWORD_FILE",
        "cache_password_file",
        "",
        "/etc/allin-backend-secrets/cache-password",
        "file whose first line is the Redis server's password",
        _file,
    ),
    Variable(
        "ALLIN_CACHE_TIMEOUT_SECONDS",
        "cache_timeout_seconds",
        "0.25",
        "0.25",
        "longest wait for Redis; a request then goes on without the cache",
        _seconds(0.01, 10),
    ),
    Variable(
        "ALLIN_CACHE_SIZE",
        "cache_size",
        "10000",
        "10000",
        "most entries of the cache in memory",
        _integer(1, 10_000_000),
    ),
    Variable(
        "ALLIN_TOKEN_KEYS_FILE",
        "token_keys_file",
        "",
        "/etc/allin-backend-secrets/token-keys",
        "file with the keys that encrypt the platforms' tokens, one a line, the first for new ones",
        _file,
    ),
    Variable(
        "ALLIN_PLATFORMS_FILE",
        "platforms_file",
        "",
        "/etc/allin-backend-secrets/platforms.json",
        "file with the client id and secret of each social platform; without it no account can be connected",
        _file,
    ),
    Variable(
        "ALLIN_PLATFORMS_URL",
        "platforms_url",
        "",
        "http://127.0.0.1:7080",
        "gateway or simulator in front of all platforms; empty: their own addresses",
        _optional_web_address,
    ),
    Variable(
        "ALLIN_OAUTH_REDIRECT_URL",
        "oauth_redirect_url",
        "http://127.0.0.1:3000/oauth/callback",
        "https://app.example.com/oauth/callback",
        "page of the platform to which a social platform sends people back",
        _web_address,
    ),
    Variable(
        "ALLIN_SOCIAL_TIMEOUT_SECONDS",
        "social_timeout_seconds",
        "10",
        "10",
        "longest wait for one answer of a social platform",
        _seconds(0.1, 30),
    ),
    Variable(
        "ALLIN_PUBLISH_INTERVAL_SECONDS",
        "publish_interval_seconds",
        "1",
        "1",
        "how often due posts are looked for",
        _seconds(0.05, 60),
    ),
    Variable(
        "ALLIN_PUBLISH_DEADLINE_SECONDS",
        "publish_deadline_seconds",
        "86400",
        "86400",
        "how long after its time a post may still be published",
        _seconds(60, 999_999),
    ),
    Variable(
        "ALLIN_SESSION_SECONDS",
        "session_seconds",
        "604800",
        "604800",
        "how long a person stays signed in",
        _seconds(60, 999_999),
    ),
    Variable(
        "ALLIN_REQUEST_HEADER_LIMIT_BYTES",
        "request_header_limit_bytes",
        "16384",
        "16384",
        "largest accepted sum of a request's headers",
        _integer(1024, 1024**2),
    ),
    Variable(
        "ALLIN_RATE_LIMIT_PER_MINUTE",
        "rate_limit_per_minute",
        "600",
        "600",
        "requests a minute that one person, or one address without a session, may make in each process; 0: no limit",
        _integer(0, 1_000_000),
    ),
    Variable(
        "ALLIN_SIGN_IN_LIMIT_PER_MINUTE",
        "sign_in_limit_per_minute",
        "10",
        "10",
        "attempts a minute to sign in to one user, in each process; 0: no limit",
        _integer(0, 1_000_000),
    ),
    Variable(
        "ALLIN_TRUSTED_PROXIES",
        "trusted_proxies",
        "",
        "127.0.0.1",
        "addresses of reverse proxies whose X-Forwarded-For tells the client's address, separated by commas",
        _networks,
    ),
    Variable(
        "ALLIN_FAULTS_FILE",
        "faults_file",
        "",
        "/run/allin-backend/faults.json",
        "file that injects faults for a demonstration or a test; refused in production",
        _file,
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
    if not problems:
        problems = _contradictions(values)
    if problems:
        raise ConfigurationError(problems)
    return Settings(**values)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong although each value by itself is right."""
    problems: list[str] = []
    if values["platforms_file"] and not values["token_keys_file"]:
        problems.append(
            "ALLIN_PLATFORMS_FILE needs ALLIN_TOKEN_KEYS_FILE, because the platforms' tokens are kept encrypted;"
            " write a key with: allin-backend make-token-key"
        )
    if values["cache_password_file"] and urlsplit(values["cache_url"]).password is not None:
        problems.append(
            "ALLIN_CACHE_URL and ALLIN_CACHE_PASSWORD_FILE both give a password; take it out of the address"
        )
    if values["faults_file"] and values["environment"].startswith("prod"):
        problems.append(
            "ALLIN_FAULTS_FILE would break this service on purpose and is refused where ALLIN_ENVIRONMENT begins with"
            " prod; remove it"
        )
    if values["metrics_port"] and values["metrics_port"] == values["port"]:
        problems.append(
            "ALLIN_METRICS_PORT must differ from ALLIN_PORT; write ALLIN_METRICS_PORT=0 for no port of its own"
        )
    return problems
