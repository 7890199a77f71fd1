"""What several test modules share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from prometheus_client import CollectorRegistry
from sqlalchemy.engine import URL, make_url
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Scope

from allin_backend.database.engine import Database
from allin_backend.database.migrate import migrate
from allin_backend.settings import Settings, load

SOURCE: Final = Path(__file__).parent.parent / "src"
DEADLINE: Final = 120.0
"""Seconds after which a test that waits for something fails. Long, as machines are shared and slow at times."""
PASSWORD: Final = "correct horse battery staple"


def database_url(directory: Path) -> str:
    return f"sqlite+aiosqlite:///{directory}/test.db"


@functools.cache
def _migrated() -> bytes:
    """An empty SQLite database with the present schema, made once."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(migrate(make_url(database_url(Path(directory))), timeout=DEADLINE))
        return (Path(directory) / "test.db").read_bytes()


def make_database(directory: Path) -> str:
    """The URL of a migrated database in ``directory``, which is made if there is none yet."""
    path = directory / "test.db"
    if not path.exists():
        path.write_bytes(_migrated())
    return database_url(directory)


def make_settings(directory: Path, **variables: str) -> Settings:
    """Settings with a migrated database, unless ``variables`` name another."""
    return load({"ALLIN_DATABASE_URL": make_database(directory)} | variables)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def http_scope(path: str, method: str = "GET", headers: dict[str, str] | None = None, spec: str = "2.3") -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), text.encode()) for name, text in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7000),
    }


def sign_up(client: TestClient, email: str = "ann@example.com") -> dict[str, str]:
    """The headers of a new user who has signed in."""
    user = {"email": email, "password": PASSWORD}
    created = client.post("/api/v1/users", json=user | {"name": "Ann"})
    assert created.status_code == 201, created.text
    session = client.post("/api/v1/sessions", json=user)
    assert session.status_code == 201, session.text
    return {"Authorization": f"Bearer {session.json()['token']}"}


def is_problem(response: Any, status: int) -> str:
    """Assert an RFC 9457 problem of this status and return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["detail"])


@dataclass
class Caller:
    """One HTTP request made at the ASGI level, where a test decides what the server does.

    After ``gone_after`` messages the client leaves: with ``send_raises`` the server then raises in ``send``, otherwise
    it says so through ``receive`` only.
    """

    scope: Scope
    body: list[bytes] = field(default_factory=lambda: [b""])
    gone_after: int | None = None
    send_raises: bool = False
    sent: list[Message] = field(default_factory=list)
    chunks_read: int = 0

    async def run(self, app: ASGIApp) -> list[Message]:
        chunks = list(self.body)
        gone = asyncio.Event()
        if self.gone_after == 0:
            gone.set()

        async def receive() -> Message:
            if chunks and not gone.is_set():
                chunk = chunks.pop(0)
                self.chunks_read += 1
                return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if gone.is_set() and self.send_raises:
                raise OSError("the client is gone")
            self.sent.append(message)
            if self.gone_after is not None and len(self.sent) >= self.gone_after:
                gone.set()

        await app(self.scope, receive, send)
        return self.sent

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


class Process:
    """A running command of this package, with its output read line by line."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("ALLIN_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=inherited | {"PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"} | (env or {}),
        )
        self.lines: list[str] = []
        self._unread: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))
            self._unread.put(self.lines[-1])
        self._unread.put(None)

    def wait_for_line(self, part: str) -> str:
        """The next line that contains ``part``."""
        end = monotonic() + DEADLINE
        while True:
            try:
                line = self._unread.get(timeout=max(0.0, end - monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line with {part!r}; the output was:\n" + "\n".join(self.lines))
            if part in line:
                return line

    def wait(self) -> int:
        """The exit code, when the process has ended by itself."""
        code = self.popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()


@contextlib.contextmanager
def running(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Process]:
    process = Process(*arguments, env=env)
    try:
        yield process
    finally:
        process.close()


@contextlib.contextmanager
def running_backend(directory: Path, **variables: str) -> Iterator[tuple[Process, int]]:
    """A backend on a free port, and the port."""
    env = {"ALLIN_DATABASE_URL": make_database(directory), "ALLIN_PORT": "0", **variables}
    with running("allin_backend", "serve", env=env) as process:
        started: dict[str, Any] = json.loads(process.wait_for_line('"message":"serving"'))
        yield process, started["port"]


def with_database(
    url: URL,
    scenario: Callable[[Database], Awaitable[None]],
    *,
    pool_size: int = 3,
    timeout: float = DEADLINE,
    password_file: Path | None = None,
) -> None:
    """Run a scenario with a database, which is closed afterwards. Fails if it takes longer than ``DEADLINE``."""

    async def run() -> None:
        database = Database(
            url, pool_size=pool_size, timeout=timeout, instrument=lambda _engine: None, password_file=password_file
        )
        try:
            async with asyncio.timeout(DEADLINE):
                await scenario(database)
        finally:
            await database.stop()

    asyncio.run(run())
