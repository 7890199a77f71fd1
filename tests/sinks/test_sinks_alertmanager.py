"""A real Alertmanager sends a firing and a resolved alert to the Slack sink, the mail sink and the webhook sink."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sinks.alertmanagers import SUITES, Alertmanager, running

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


def alert(sender: Alertmanager, name: str, *, resolved: bool) -> None:
    """Tell it about an alert, as Prometheus does."""
    now = datetime.now(UTC)
    told = {
        "labels": {"alertname": name, "severity": "critical"},
        "annotations": {"summary": "The backend <b>does not</b> answer"},
        "startsAt": (now - timedelta(minutes=1)).isoformat(),
        "generatorURL": "http://127.0.0.1:9090/graph",
    }
    if resolved:
        told["endsAt"] = now.isoformat()
    sender.call("/api/v2/alerts", [told])


@pytest.fixture
def alertmanager(
    request: pytest.FixtureRequest, start_sink: Callable[..., Sink], tmp_path: Path
) -> Iterator[tuple[Alertmanager, Sink]]:
    """An Alertmanager that sends to sinks of its own, and those sinks."""
    sink = start_sink()
    config = tmp_path / "alertmanager.yml"
    config.write_text(CONFIG.format(http=sink.http_port, smtp=sink.smtp_port))
    with running(getattr(request, "param", SUITES[-1]), config, tmp_path) as sender:
        yield sender, sink


@pytest.mark.parametrize("alertmanager", SUITES, indirect=True)
def test_alerts_arrive_and_are_resolved(alertmanager: tuple[Alertmanager, Sink]) -> None:
    sender, sink = alertmanager
    sender.wait_until_ready()
    alert(sender, "BackendDown", resolved=False)
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

    alert(sender, "BackendDown", resolved=True)
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
    alert(sender, "Retried", resolved=False)
    sink.client.wait_for(lambda m: "Retried" in m.text, timeout=20, kind="slack")
    sink.client.wait_for(lambda m: "Retried" in m.text, timeout=20, kind="mail")
    assert sink.client.fault_hits() == {"slack": 1, "smtp": 1}
