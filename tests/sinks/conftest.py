"""Start the message sinks as a real process and talk to them over real sockets."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import queue
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from molecule.shared.sinks.client import SinkClient

SINKS_DIR = Path(__file__).parents[2] / "molecule" / "shared" / "sinks"
PROGRAM = SINKS_DIR / "allin_sinks.py"


def load(name: str) -> ModuleType:
    """Return a module of the sinks' folder, which is no package: `molecule` is also the name of a tool we have."""
    qualified = f"allin_test_{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, SINKS_DIR / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[qualified] = module
        spec.loader.exec_module(module)
    return sys.modules[qualified]


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Sink:
    """A running sink process on ports of its own.

    Args:
        arguments: command line beyond the address and the ports.
    """

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self._new_lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", PROGRAM, "--http-port", "0", "--smtp-port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = self.wait_for_line(r"listening http=127\.0\.0\.1:(\d+) smtp=127\.0\.0\.1:(\d+)")
        self.http_port, self.smtp_port = int(line[1]), int(line[2])
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.client: SinkClient = load("client").SinkClient(self.url)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new_lines.put(line.rstrip("\n"))
        self._new_lines.put(None)

    def wait_for_line(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Return the first line of output, old or new, that has the pattern."""
        for line in self.lines:
            if match := re.search(pattern, line):
                return match
        deadline = time.monotonic() + timeout
        while True:
            try:
                new = self._new_lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                new = None
            assert new is not None, f"no line like {pattern!r} in the output:\n" + "\n".join(self.lines)
            self.lines.append(new)
            if match := re.search(pattern, new):
                return match

    def output(self) -> str:
        """Return all output so far."""
        while not self._new_lines.empty():
            line = self._new_lines.get()
            if line is not None:
                self.lines.append(line)
        return "\n".join(self.lines)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one HTTP request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def slack(self, payload: object, path: str = "/slack/T0/B0/secret") -> Answer:
        """Send a payload as an incoming webhook."""
        return self.request("POST", path, json.dumps(payload), {"Content-Type": "application/json"})

    def smtp(self) -> smtplib.SMTP:
        """Return a connected mail client."""
        return smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=20)

    def mail(self, content: bytes | str, to: tuple[str, ...] = ("ops@example.com",)) -> dict[str, Any]:
        """Send a mail and return what the sink kept of it."""
        raw = content.encode() if isinstance(content, str) else content
        with self.smtp() as client:
            client.sendmail("alerts@example.com", to, raw.replace(b"\n", b"\r\n"))
        return self.client.messages("mail")[-1].data

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process and return its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        if self.process.stdout:
            self.process.stdout.close()
        return status


@pytest.fixture(scope="session")
def shared_sink() -> Iterator[Sink]:
    """One process for all tests that need nothing special of it."""
    sink = Sink()
    yield sink
    assert sink.stop() == 0
    assert "Traceback" not in sink.output()
    assert "Warning:" not in sink.output()


@pytest.fixture
def sink(shared_sink: Sink) -> Sink:
    """The shared process, emptied and without faults."""
    shared_sink.client.clear()
    shared_sink.client.clear_faults()
    return shared_sink


@pytest.fixture
def start_sink() -> Iterator[Callable[..., Sink]]:
    """Start a process with arguments of the test's own; it is ended afterwards, and must not have crashed."""
    started: list[Sink] = []

    def start(*arguments: str | Path) -> Sink:
        new = Sink(*map(str, arguments))
        started.append(new)
        return new

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()
        assert "Traceback" not in one.output()


@pytest.fixture(scope="session")
def program() -> Path:
    """Path of the program, for tests of its command line."""
    return PROGRAM


@pytest.fixture(scope="session")
def sinks_module() -> ModuleType:
    """The program as a module, for tests of its rendering."""
    return load("allin_sinks")


@pytest.fixture(scope="session")
def client_module() -> ModuleType:
    """The client's module."""
    return load("client")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
