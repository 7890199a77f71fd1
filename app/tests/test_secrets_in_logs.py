"""No line of the log, at any level, has a secret in it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from allin_backend.database.users import UserStore
from allin_backend.logs import JsonFormatter, set_levels
from allin_backend.metrics.contract import PLATFORMS
from allin_backend.security.encryption import TokenCipher
from allin_backend.security.tokens import digest
from social_support import CLIENT_SECRET, Social, social

PASSWORD = "canary-password"


class Lines(logging.Handler):
    """Keeps what the service would write."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the service writes at its most talkative level."""
    loggers = [logging.getLogger(), logging.getLogger("allin_backend")]
    before = [logger.level for logger in loggers]
    handler = Lines()
    loggers[0].addHandler(handler)
    set_levels("debug")
    yield handler.lines
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_no_secret_is_logged(
    tmp_path: Path, registry: CollectorRegistry, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"password": PASSWORD, "client secret": CLIENT_SECRET}
    with social(tmp_path, registry, ALLIN_LOG_LEVEL="debug") as target:
        _live(target, secrets)
        _collect(tmp_path, secrets)
        _fail(target, tmp_path, secrets, monkeypatch)

    assert len([line for line in lines if '"message":"request"' in line]) > 20
    assert any("Traceback" in line for line in lines)
    for name, secret in secrets.items():
        assert len(secret) > 10, name
        assert [line for line in lines if secret in line] == [], name


def _live(target: Social, secrets: dict[str, str]) -> None:
    """All that a user does when nothing goes wrong."""
    http = target.http
    user = {"email": "ann@example.com", "password": PASSWORD}
    http.post("/api/v1/users", json=user | {"name": "Ann"})
    secrets["bearer token"] = http.post("/api/v1/sessions", json=user).json()["token"]
    secrets["digest of the token"] = digest(secrets["bearer token"])
    http.headers["Authorization"] = f"Bearer {secrets['bearer token']}"
    accounts = []
    for platform in PLATFORMS:
        begun = http.post(f"/api/v1/platforms/{platform}/authorizations").json()
        brought = target.permit(begun["url"])
        secrets[f"state of {platform}"], secrets[f"code of {platform}"] = brought["state"], brought["code"]
        accounts.append(http.post(f"/api/v1/platforms/{platform}/callback", json=brought).json()["id"])
    body = {"text": "hello", "account_ids": accounts, "publish_at": datetime.now(UTC).isoformat()}
    path = http.post("/api/v1/posts", json=body).headers["location"]
    target.publish()
    assert len(http.get(f"{path}/figures").json()["items"]) == len(PLATFORMS)


def _collect(directory: Path, secrets: dict[str, str]) -> None:
    """What the database keeps of the secrets, and what is behind that."""
    cipher = TokenCipher.from_file(directory / "keys")
    secrets["key"] = (directory / "keys").read_text().strip()
    with closing(sqlite3.connect(directory / "test.db")) as connection:
        rows = connection.execute("SELECT platform, access_token, refresh_token FROM accounts").fetchall()
        ((secrets["password hash"],),) = connection.execute("SELECT password_hash FROM users").fetchall()
    for platform, *encrypted in rows:
        for kind, text in zip(("access", "refresh"), encrypted, strict=True):
            if text is not None:
                secrets[f"{kind} token of {platform}"] = cipher.decrypt(text)
                secrets[f"encrypted {kind} token of {platform}"] = text


def _fail(target: Social, directory: Path, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can go wrong with a secret at hand."""
    http = target.http
    secrets["wrong password"] = "canary-wrong-password"
    secrets["wrong state"], secrets["wrong code"] = "canary-wrong-state", "canary-wrong-code"
    http.post("/api/v1/sessions", json={"email": "ann@example.com", "password": secrets["wrong password"]})
    http.post("/api/v1/users", json={"email": "x", "name": "x", "password": secrets["wrong password"]})
    http.post("/api/v1/sessions", content=f'{{"password": "{secrets["wrong password"]}')
    for path in ("/api/v1/platforms/twitter/callback", "/api/v1/platforms/nowhere/callback"):
        http.post(path, json={"state": secrets["wrong state"], "code": secrets["wrong code"]})
        http.get(f"{path}?code={secrets['wrong code']}&state={secrets['wrong state']}")
    for knobs in ({"down": True}, {"down": False, "deny_tokens": True}):
        for platform in PLATFORMS:
            target.turn(platform, **knobs)
        begun = http.post("/api/v1/platforms/facebook/authorizations").json()
        http.post("/api/v1/platforms/facebook/callback", json={"state": begun["state"], "code": secrets["wrong code"]})
        body = {"text": "more", "account_ids": [1, 2, 3, 4, 5], "publish_at": datetime.now(UTC).isoformat()}
        http.post("/api/v1/posts", json=body)
        target.publish()

    async def broken(*arguments: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(UserStore, "create", broken)
        user = {"email": "bob@example.com", "name": "Bob", "password": PASSWORD}
        assert http.post("/api/v1/users", json=user).status_code == 500
    with closing(sqlite3.connect(directory / "test.db")) as connection:
        connection.execute("ALTER TABLE users RENAME TO gone")
    assert http.post("/api/v1/users", json=user).status_code == 503
