"""The Watchdog keeps a heartbeat going, reaches nobody else, and its end is no sign of life."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.roles import messages
from tests.roles.rendering import render
from tests.sinks.alertmanagers import SUITES, running
from tests.sinks.conftest import Sink

if TYPE_CHECKING:
    from molecule.shared.sinks.client import Message

WATCHDOG = {
    "labels": {"alertname": "Watchdog", "severity": "none", "component": "watchdog", "environment": "production"}
}


@pytest.mark.parametrize("suite", SUITES)
def test_the_watchdog_calls_again_and_again_and_nobody_else_hears_of_it(suite: str, tmp_path: Path) -> None:
    """Prevents: every second call left out, and a heartbeat that a resolved Watchdog gives."""
    sink = Sink()
    try:
        render(
            tmp_path / "config",
            **messages.settings(tmp_path, sink),
            # Debian 12's Alertmanager reads the address from the configuration; the others may.
            alertmanager_install_method="package",
            alertmanager_heartbeat_url=f"{sink.url}/webhook/heartbeat",
            alertmanager_heartbeat_interval_seconds=2,
        )
        with running(suite, tmp_path / "config/alertmanager.yml", tmp_path) as sender:
            sender.wait_until_ready()
            sender.call("/api/v2/alerts", [WATCHDOG])
            beats: list[Message] = []
            for _ in range(4):
                after = beats[-1].id if beats else 0
                beats.append(sink.client.wait_for(lambda _: True, 20, "webhook", after))
            # One in each interval: were it not yet time for every second one, six seconds would be twelve.
            assert (beats[-1].received - beats[0].received).total_seconds() < 10
            sender.call("/api/v2/alerts", [{**WATCHDOG, "endsAt": datetime.now(UTC).isoformat()}])
            # A page that comes later shows that the end of the Watchdog has been dealt with.
            sender.call("/api/v2/alerts", [messages.BACKEND_DOWN])
            sink.client.wait_for(lambda one: "BackendDown" in one.title, 20, "mail")
            sender.call("/api/v2/alerts", [messages.resolved(messages.BACKEND_DOWN)])
            sink.client.wait_for(lambda one: one.title.startswith("[RESOLVED]"), 20, "mail")
        assert {one["body"]["status"] for one in sink.client.messages("webhook")} == {"firing"}
        assert not [one for kind in ("slack", "mail") for one in sink.client.messages(kind) if "Watchdog" in one.text]
    finally:
        sink.stop()
