"""The configuration: every bad value is named, with what to write instead."""

from __future__ import annotations

import dataclasses

import pytest

from allin_backend import __version__
from allin_backend.settings import VARIABLES, ConfigurationError, Settings, load


def problems(**variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(variables)
    return caught.value.problems


def test_defaults() -> None:
    settings = load({"PATH": "/bin", "HOME": "/root"})

    assert (settings.environment, settings.host, settings.port) == ("dev", "127.0.0.1", 7000)
    assert settings.database_url.database == "/var/lib/allin-backend/allin.db"
    assert settings.release == __version__
    assert settings.log_level == "info"
    assert settings.request_body_limit_bytes == 1_048_576
    assert settings.shutdown_grace_seconds == 20


@pytest.mark.parametrize(
    ("name", "text", "field", "expected"),
    [
        ("ALLIN_ENVIRONMENT", "production-2", "environment", "production-2"),
        ("ALLIN_HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104
        ("ALLIN_HOST", "::1", "host", "::1"),
        ("ALLIN_HOST", "backend.example.com", "host", "backend.example.com"),
        ("ALLIN_PORT", "65535", "port", 65535),
        ("ALLIN_PORT", "0", "port", 0),
        ("ALLIN_LOG_LEVEL", "debug", "log_level", "debug"),
        ("ALLIN_RELEASE", "v1.2.3-rc.1+build_5", "release", "v1.2.3-rc.1+build_5"),
        ("ALLIN_READY_TIMEOUT_SECONDS", "0.5", "ready_timeout_seconds", 0.5),
        ("ALLIN_REQUEST_BODY_LIMIT_BYTES", "1024", "request_body_limit_bytes", 1024),
    ],
)
def test_good_values(name: str, text: str, field: str, expected: object) -> None:
    assert getattr(load({name: text}), field) == expected


BAD = {
    "ALLIN_ENVIRONMENT": ["", "Prod", "a b", "-x", "x" * 33],
    "ALLIN_HOST": ["", "127.0.0.1:7000", "http://x", "999.1.1.1", "a b", "-x", "x" * 64, "a..b", "[::1]"],
    "ALLIN_PORT": ["", "-1", "65536", "http", "7000.0", " 7000", "7_000", "\u0667000", "9" * 5000],
    "ALLIN_DATABASE_URL": [
        "",
        "allin.db",
        "sqlite:////var/lib/x.db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///relative.db",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite://host/x.db",
        "postgresql://user@host/db",
        "postgresql+asyncpg:///db",
        "postgresql+asyncpg://user@host",
        "://",
        "sqlite+aiosqlite://host:port/x",
    ],
    "ALLIN_DATABASE_POOL_SIZE": ["", "0", "101", "x"],
    "ALLIN_DATABASE_TIMEOUT_SECONDS": ["", "0", "301", "x", "nan", "inf", "1e3"],
    "ALLIN_READY_TIMEOUT_SECONDS": ["", "0", "61", "-1"],
    "ALLIN_LOG_LEVEL": ["", "INFO", "verbose", "20"],
    "ALLIN_RELEASE": ["", "a b", "x" * 129, 'a"b', "a\nb", "-a"],
    "ALLIN_REQUEST_BODY_LIMIT_BYTES": ["", "1023", "1073741825", "1M"],
    "ALLIN_KEEP_ALIVE_SECONDS": ["", "0", "3601"],
    "ALLIN_SHUTDOWN_GRACE_SECONDS": ["", "0", "3601", "20s"],
    "ALLIN_METRICS_PORT": ["", "-1", "65536", "x"],
    "ALLIN_DATABASE_PASSWORD_FILE": ["password", "./password"],
    "ALLIN_CACHE_URL": ["", "memory", "redis:", "redis://", "http://host:6379", "redis://host:port", "redis://h/x"],
    "ALLIN_CACHE_PASSWORD_FILE": ["password"],
    "ALLIN_CACHE_TIMEOUT_SECONDS": ["", "0", "11"],
    "ALLIN_CACHE_SIZE": ["", "0", "x"],
    "ALLIN_TOKEN_KEYS_FILE": ["keys"],
    "ALLIN_PLATFORMS_FILE": ["platforms.json"],
    "ALLIN_PLATFORMS_URL": ["127.0.0.1:7080", "ftp://host", "http://", "http://h/?q", "http://u:p@h", "http://h:x"],
    "ALLIN_OAUTH_REDIRECT_URL": ["", "/oauth/callback", "https://h/#f"],
    "ALLIN_SOCIAL_TIMEOUT_SECONDS": ["", "0", "31"],
    "ALLIN_PUBLISH_INTERVAL_SECONDS": ["", "0", "61"],
    "ALLIN_PUBLISH_DEADLINE_SECONDS": ["", "59"],
    "ALLIN_SESSION_SECONDS": ["", "59"],
    "ALLIN_REQUEST_HEADER_LIMIT_BYTES": ["", "1023", "1048577"],
    "ALLIN_RATE_LIMIT_PER_MINUTE": ["", "-1", "x"],
    "ALLIN_SIGN_IN_LIMIT_PER_MINUTE": ["", "-1", "x"],
    "ALLIN_TRUSTED_PROXIES": ["proxy.example.com", "10.0.0.1/8", "*"],
    "ALLIN_FAULTS_FILE": ["faults.json"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_bad_value_is_named_with_an_example(name: str, text: str) -> None:
    (problem,) = problems(**{name: text})
    example = next(variable.example for variable in VARIABLES if variable.name == name)

    assert problem.startswith(name)
    assert f"{name}={example}" in problem


def test_every_variable_has_bad_values_in_the_table() -> None:
    assert sorted(BAD) == sorted(variable.name for variable in VARIABLES)


def test_every_example_and_default_is_accepted() -> None:
    for variable in VARIABLES:
        variable.read(variable.example)
    load({variable.name: variable.default for variable in VARIABLES})


def test_every_field_has_a_variable() -> None:
    assert [variable.field for variable in VARIABLES] == [field.name for field in dataclasses.fields(Settings)]


def test_all_problems_come_at_once() -> None:
    found = problems(ALLIN_PORT="x", ALLIN_HOST="a b", ALLIN_PROT="7000")

    assert [problem.split("=")[0].split()[0] for problem in found] == ["ALLIN_HOST", "ALLIN_PORT", "ALLIN_PROT"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [("ALLIN_PROT", "ALLIN_PORT"), ("ALLIN_DB_URL", "ALLIN_DATABASE_URL"), ("ALLIN_LOGLEVEL", "ALLIN_LOG_LEVEL")],
)
def test_unknown_variable_names_the_closest_known_one(name: str, closest: str) -> None:
    (problem,) = problems(**{name: "x"})

    assert problem.startswith(name)
    assert closest in problem


def test_password_is_in_no_message_and_no_representation() -> None:
    secret = {"ALLIN_DATABASE_URL": "postgresql://u:hunter2@host/db", "ALLIN_CACHE_URL": "redis://:hunter2@host/x"}
    for name, text in secret.items():
        (problem,) = problems(**{name: text})
        assert "hunter2" not in problem
    good = {
        "ALLIN_DATABASE_URL": "postgresql+asyncpg://u:hunter2@host/db",
        "ALLIN_CACHE_URL": "redis://:hunter2@host/1",
    }
    assert "hunter2" not in repr(load(good))


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"ALLIN_PLATFORMS_FILE": "/p.json"}, ["ALLIN_PLATFORMS_FILE", "ALLIN_TOKEN_KEYS_FILE"]),
        ({"ALLIN_FAULTS_FILE": "/f.json", "ALLIN_ENVIRONMENT": "production"}, ["ALLIN_FAULTS_FILE"]),
        ({"ALLIN_FAULTS_FILE": "/f.json", "ALLIN_ENVIRONMENT": "prod-eu"}, ["ALLIN_FAULTS_FILE"]),
        ({"ALLIN_METRICS_PORT": "7000"}, ["ALLIN_METRICS_PORT"]),
        (
            {"ALLIN_CACHE_URL": "redis://:p@h", "ALLIN_CACHE_PASSWORD_FILE": "/p"},
            ["ALLIN_CACHE_URL", "ALLIN_CACHE_PASSWORD_FILE"],
        ),
    ],
)
def test_values_that_contradict_each_other_are_named(variables: dict[str, str], names: list[str]) -> None:
    (problem,) = problems(**variables)

    assert all(name in problem for name in names)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load({}).port = 1  # type: ignore[misc]
