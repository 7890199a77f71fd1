"""A real Prometheus, real Alertmanagers and the message sinks, as processes on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SUITES = ("bookworm", "trixie", "sid")  # Prometheus 2.42, 2.53, 3.5 with Alertmanager 0.25, 0.28, 0.33
READY_SECONDS = 30.0

PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{environment: test}}}}
rule_files: [rules/*.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: {alertmanagers}}}]}}]}}
"""
ALERTMANAGER = """
route:
  receiver: nobody
  group_by: [alertname, job]
  group_wait: 0s
  group_interval: 1s
  routes:
    - matchers: ['severity = critical']
      receiver: critical
receivers:
  - name: nobody
  - name: critical
    slack_configs:
      - {{api_url: 'http://127.0.0.1:{http}/slack/x', channel: '#alerts', send_resolved: true,
         text: '{{{{ range .Alerts }}}}{{{{ .Annotations.summary }}}}{{{{ end }}}}'}}
    email_configs:
      - {{to: ops@example.com, from: am@example.com, smarthost: '127.0.0.1:{smtp}', require_tls: false,
         send_resolved: true}}
"""


def unpacked(suite: str) -> Path:
    """Return the folder of a suite's unpacked packages; a missing one fails."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "allin-artifacts" / "debian" / suite
    assert (root / "usr/bin/prometheus").is_file(), f"no {root}: run tools/debian_packages.py --test-tools"
    return root


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def call(url: str, body: object = None, method: str | None = None) -> str:
    """Send one request and return the answer's body. Raises OSError."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
        return str(answer.read().decode())


def until(look: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
    """Return the first true value of `look`; an exception counts as not yet."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = look()
        except Exception as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {last!r}")


class Stack:
    """All processes of one test; `stop` ends them."""

    def __init__(self, folder: Path, suite: str, alertmanagers: int = 1, flags: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.root = unpacked(suite)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, list[str]] = {}
        self.urls: dict[str, str] = {}
        (folder / "rules").mkdir(parents=True)
        http, smtp = free_port(), free_port()
        self.sinks = f"http://127.0.0.1:{http}"
        sinks = ROOT / "molecule/shared/sinks/allin_sinks.py"
        self.start("sinks", [sys.executable, str(sinks), "--http-port", str(http), "--smtp-port", str(smtp)], http)
        ports = [free_port() for _ in range(alertmanagers)]
        cluster = [free_port() for _ in range(alertmanagers)]
        for number, port in enumerate(ports):
            self.configure_alertmanager(number, ALERTMANAGER.format(http=http, smtp=smtp))
            peers = [f"--cluster.peer=127.0.0.1:{other}" for other in cluster if other != cluster[number]]
            listen = f"127.0.0.1:{cluster[number]}" if alertmanagers > 1 else ""
            self.start(
                f"alertmanager{number}",
                [
                    # Debian's build reads its default templates from /usr/share, where nothing of it is installed here.
                    *("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))),
                    *("sh", "-c", 'mount --bind "$1" /usr/share && shift && exec "$@"', "sh"),
                    *(str(self.root / "usr/share"), str(self.root / "usr/bin/prometheus-alertmanager")),
                    f"--config.file={folder / f'alertmanager{number}.yml'}",
                    f"--storage.path={folder / f'alertmanager{number}'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    f"--cluster.listen-address={listen}",
                    *(("--cluster.peer-timeout=2s", "--cluster.settle-timeout=1s", *peers) if listen else ()),
                ],
                port,
            )
        (folder / "prometheus.yml").write_text(
            PROMETHEUS.format(alertmanagers=json.dumps([f"127.0.0.1:{port}" for port in ports]))
        )
        port = free_port()
        self.start(
            "prometheus",
            [
                str(self.root / "usr/bin/prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                *flags,
            ],
            port,
        )
        self.wait()

    def configure_alertmanager(self, number: int, text: str) -> None:
        """Write an Alertmanager's configuration."""
        (self.folder / f"alertmanager{number}.yml").write_text(text)

    def start(self, name: str, command: list[str], port: int) -> None:
        """Start a process; its output goes to a file of its name."""
        self.commands[name] = command
        self.urls[name] = f"http://127.0.0.1:{port}"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)

    def start_again(self, name: str) -> None:
        """Start a stopped process again as it was."""
        self.start(name, self.commands[name], int(self.urls[name].rpartition(":")[2]))
        self.wait()

    def wait(self) -> None:
        """Wait until everything that was started serves."""
        for name, process in self.processes.items():
            path = "/health" if name == "sinks" else "/-/ready"

            def ready(name: str = name, path: str = path, process: subprocess.Popen[bytes] = process) -> bool:
                assert process.poll() is None, self.log(name)
                call(self.urls[name] + path)
                return True

            until(ready, f"{name} serves: {self.log(name)}")

    def log(self, name: str) -> str:
        """Return the end of a process's output."""
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def kill(self, name: str) -> None:
        """End a process at once."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(timeout=20)

    def stop(self) -> None:
        """End all processes."""
        for name in list(self.processes):
            self.kill(name)

    def fault(self, **faults: dict[str, Any]) -> None:
        """Make sinks misbehave, see the sinks' PUT /api/faults."""
        call(f"{self.sinks}/api/faults", faults, "PUT")

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """Return what a sink has received."""
        found: list[dict[str, Any]] = json.loads(call(f"{self.sinks}/api/messages?kind={kind}"))
        return found
