"""Run Debian's Alertmanagers out of the artifacts folder, for tests that need a real one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SUITES = ("bookworm", "trixie", "sid")  # Alertmanager 0.25, 0.28, 0.33


def unpacked(suite: str) -> Path:
    """Return the folder of a suite's unpacked packages."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "allin-artifacts" / "debian" / suite


def amtool(suite: str) -> str:
    """Return the path of a suite's amtool; a missing one fails."""
    path = unpacked(suite) / "usr/bin/amtool"
    assert path.is_file(), f"there is no {path}: run tools/debian_packages.py --test-tools"
    return str(path)


def command(suite: str) -> list[str]:
    """Return the command that runs a suite's Alertmanager; a missing one fails.

    Debian's build reads its default templates from /usr/share, where nothing of it is installed here; so it runs with
    the unpacked package's /usr/share mounted there, in a mount namespace of its own.
    """
    root = unpacked(suite)
    binary = root / "usr/bin/prometheus-alertmanager"
    assert binary.is_file(), f"there is no {binary}: run tools/debian_packages.py --test-tools"
    return [
        *("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))),
        *("sh", "-c", 'mount --bind "$1" /usr/share && shift && exec "$@"', "sh"),
        *(str(root / "usr/share"), str(binary)),
    ]


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}"
        self._log = log

    def call(self, path: str, body: object = None) -> bytes:
        """Send one request and return the answer's body."""
        request = urllib.request.Request(
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            content: bytes = answer.read()
            return content

    def wait_until_ready(self) -> None:
        """Wait until it serves, at most 15 s."""
        deadline = time.monotonic() + 15
        while True:
            try:
                self.call("/-/ready")
            except (OSError, urllib.error.URLError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"Alertmanager does not serve: {error}\n{self._log.read_text()}")
                time.sleep(0.05)
            else:
                return

    def log(self) -> str:
        """Return what it said so far."""
        return self._log.read_text()


@contextmanager
def running(suite: str, config: Path, folder: Path, *arguments: str) -> Iterator[Alertmanager]:
    """Run a suite's Alertmanager until the block ends; `folder` is for its data and its log."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *command(suite),
                f"--config.file={config}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
                *arguments,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Alertmanager(process, port, folder / "log")
        finally:
            process.terminate()
            process.wait(timeout=20)
