"""A real Alertmanager sends a firing and a resolved alert to the Slack sink, the mail sink and the webhook sink."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sinks.conftest import Sink

CONFIG = """
global:
  resolve_timeout: 1m
route:
  receiver: sinks
  group_by: [alertname]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: sinks
    slack_configs:
      - api_url: http://127.0.0.1:{http}/slack/T0/B0/secret
        channel: '#alerts'
        send_resolved: true
        text: '{{{{ range .Alerts }}}}*{{{{ .Annotations.summary }}}}*{{{{ end }}}}'
    email_configs:
      - to: ops@example.com
        from: alertmanager@example.com
        smarthost: 127.0.0.1:{smtp}
        require_tls: false
        send_resolved: true
    webhook_configs:
      - url: http://127.0.0.1:{http}/webhook/alertmanager
"""


SUITES = ("bookworm", "trixie", "sid")


def command(suite: str) -> list[str]:
    """Return the command that runs a Debian suite's Alertmanager out of the artifacts folder; a missing one fails.

    Debian's build reads its default templates from /usr/share, where nothing of it is installed here; so it runs with
    the unpacked package's /usr/share mounted there, in a mount namespace of its own.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "allin-artifacts" / "debian" / suite
    binary = root / "usr/bin/prometheus-alertmanager"
    assert binary.is_file(), f"there is no {binary}: run tools/debian_packages.py --test-tools"
    return [
        *("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))),
        *("sh", "-c", 'mount --bind "$1" /usr/share && shift && exec "$@"', "sh"),
        *(str(root / "usr/share"), str(binary)),
    ]


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

    def alert(self, name: str, *, resolved: bool) -> None:
        """Tell it about an alert, as Prometheus does."""
        now = datetime.now(UTC)
        alert = {
            "labels": {"alertname": name, "severity": "critical"},
            "annotations": {"summary": "The backend <b>does not</b> answer"},
            "startsAt": (now - timedelta(minutes=1)).isoformat(),
            "generatorURL": "http://127.0.0.1:9090/graph",
        }
        if resolved:
            alert["endsAt"] = now.isoformat()
        self.call("/api/v2/alerts", [alert])


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def alertmanager(
    request: pytest.FixtureRequest, start_sink: Callable[..., Sink], tmp_path: Path
) -> Iterator[tuple[Alertmanager, Sink]]:
    """An Alertmanager that sends to sinks of its own, and those sinks."""
    sink = start_sink()
    config = tmp_path / "alertmanager.yml"
    config.write_text(CONFIG.format(http=sink.http_port, smtp=sink.smtp_port))
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *command(getattr(request, "param", SUITES[-1])),
                f"--config.file={config}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Alertmanager(process, port, tmp_path / "log"), sink
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.parametrize("alertmanager", SUITES, indirect=True)
def test_alerts_arrive_and_are_resolved(alertmanager: tuple[Alertmanager, Sink]) -> None:
    sender, sink = alertmanager
    sender.wait_until_ready()
    sender.alert("BackendDown", resolved=False)
    slack = sink.client.wait_for(lambda m: "BackendDown" in m.text, timeout=15, kind="slack")
    mail = sink.client.wait_for(lambda m: "BackendDown" in m.title, timeout=15, kind="mail")
    hook = sink.client.wait_for(lambda _: True, timeout=15, kind="webhook")
    assert slack["channel"] == "#alerts"
    assert slack.title.startswith("[FIRING:1] BackendDown")
    assert slack["attachments"][0]["color"] == "danger"
    # Alertmanager escapes what Slack would take for markup.
    assert "does not" in slack["attachments"][0]["text"]
    assert mail["rcpt_to"] == ["ops@example.com"]
    assert mail["mail_from"] == "alertmanager@example.com"
    assert mail.title.startswith("[FIRING:1] BackendDown")
    assert "BackendDown" in mail["html"]
    assert mail["parse_error"] is None
    assert hook["body"]["alerts"][0]["status"] == "firing"

    sender.alert("BackendDown", resolved=True)
    slack = sink.client.wait_for(lambda m: "RESOLVED" in m.title, timeout=15, kind="slack")
    mail = sink.client.wait_for(lambda m: "RESOLVED" in m.title, timeout=15, kind="mail")
    assert slack["attachments"][0]["color"] == "good"
    assert re.match(r"\[RESOLVED\] BackendDown", mail.title)

    shown = sink.request("GET", "/").text
    for kind in ("slack", "mail"):
        assert f'<article class="{kind} firing"' in shown
        assert f'<article class="{kind} resolved"' in shown
    assert "<b>does not</b>" not in shown


def test_alertmanager_tries_again_after_a_fault(alertmanager: tuple[Alertmanager, Sink]) -> None:
    sender, sink = alertmanager
    sink.client.fault(slack={"status": 500, "times": 1}, smtp={"code": 451, "times": 1})
    sender.wait_until_ready()
    sender.alert("Retried", resolved=False)
    sink.client.wait_for(lambda m: "Retried" in m.text, timeout=20, kind="slack")
    sink.client.wait_for(lambda m: "Retried" in m.text, timeout=20, kind="mail")
    assert sink.client.fault_hits() == {"slack": 1, "smtp": 1}
