"""A Redis server of a test's own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from support import DEADLINE

# Below the ports that the system gives to outgoing connections, so that a port stays free while its server is down.
PORTS: Final = range(20_000, 32_000)


class RedisServer:
    """Runs between ``start`` and ``kill``, always on the same port of the loopback interface. Keeps nothing on disk."""

    def __init__(self, binary: str, directory: Path) -> None:
        self._binary: Final = binary
        self._directory: Final = directory
        self._log: Final = directory / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        """Returns when the server answers. ``options`` are as in ``redis-server --maxmemory 1mb``."""
        fixed = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory), "--save", "")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._binary, *fixed, *options], stdout=log, stderr=log)
        end = monotonic() + DEADLINE
        while True:
            try:
                with contextlib.suppress(AuthenticationError):
                    self.command("PING")
            except RedisConnectionError:
                if self._process.poll() is not None or monotonic() > end:
                    pytest.fail(f"redis-server did not start:\n{self._log.read_text()}", pytrace=False)
                sleep(0.01)
            else:
                return

    def command(self, *arguments: str | int) -> Any:
        """Send a command beside what is tested, and return the answer."""
        with Redis(port=self.port, single_connection_client=True, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*arguments)

    def hang(self) -> None:
        """From now on the server accepts connections and never answers."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)  # noqa: S311  # no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that has not been started. A missing binary fails the tests: skipped checks are not seen by anybody."""
    named = os.environ.get("ALLIN_TEST_REDIS", "redis-server")
    binary = shutil.which(named)
    if binary is None:
        pytest.fail(f"{named} is missing: install Redis, or set ALLIN_TEST_REDIS to its redis-server", pytrace=False)
    server = RedisServer(binary, tmp_path)
    try:
        yield server
    finally:
        server.kill()
