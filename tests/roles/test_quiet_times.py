"""Quiet times and the daily mail, by the clock of real Alertmanagers with the role's configuration."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.messages import settings
from tests.roles.rendering import render
from tests.sinks.alertmanagers import SUITES, running
from tests.sinks.conftest import Sink

# So long before a minute is over an alert is told in any case: what has not come until then was held back.
BEFORE_SECONDS = 15
# Alertmanager looks again every second (group_interval below) once the minute is over.
AFTER_SECONDS = 20


def alert(name: str, severity: str) -> dict[str, Any]:
    """Return an alert as Prometheus sends it."""
    return {
        "labels": {"alertname": name, "severity": severity, "environment": "test", "job": "job"},
        "annotations": {"summary": name},
        "startsAt": datetime.now(UTC).isoformat(),
    }


def next_minute() -> datetime:
    """Return the start of a minute (UTC) that is at least BEFORE_SECONDS away."""
    soon = datetime.now(UTC) + timedelta(seconds=BEFORE_SECONDS + 5)
    return soon.replace(second=0, microsecond=0) + timedelta(minutes=1)


def test_what_is_muted_waits_for_its_time_and_what_pages_does_not(tmp_path: Path) -> None:
    """Prevents: a night in which the page is quiet too, a warning that is lost in it, and a daily mail at any hour."""
    sink = Sink()
    try:
        turn = next_minute()
        # A day's last minute ends at 24:00, not at 00:00.
        quiet = {"start_time": "00:00", "end_time": f"{turn:%H:%M}" if turn.hour or turn.minute else "24:00"}
        config = render(
            tmp_path / "config",
            **settings(tmp_path, sink),
            alertmanager_info_to="daily_mail",
            alertmanager_daily_mail_time=f"{turn:%H:%M}",
            alertmanager_time_intervals=[{"name": "night", "time_intervals": [{"times": [quiet]}]}],
            alertmanager_mute_times={"warning": ["night"]},
        )
        # The daily mail's group is looked at every 14 minutes; here somebody waits.
        (daily,) = (route for route in config["route"]["routes"] if "active_time_intervals" in route)
        daily["group_interval"] = "1s"
        path = tmp_path / "config/alertmanager.yml"
        path.write_text(yaml.safe_dump(config))
        with running("sid", path, tmp_path) as alertmanager:
            alertmanager.wait_until_ready()
            alertmanager.call(
                "/api/v2/alerts", [alert("Page", "critical"), alert("Ticket", "warning"), alert("Note", "info")]
            )

            def titles() -> list[str]:
                return [one.title for kind in ("slack", "mail") for one in sink.client.messages(kind)]

            sink.client.wait_for(lambda one: "Page" in one.title, BEFORE_SECONDS, "mail")
            while datetime.now(UTC) < turn - timedelta(seconds=1):
                time.sleep(0.2)
            early = titles()
            # Slack and mail of the page, and nothing else.
            assert len(early) == 2, alertmanager.log()
            assert all("Page" in title for title in early)

            sink.client.wait_for(lambda one: "Ticket" in one.title, AFTER_SECONDS, "slack")
            letter = sink.client.wait_for(lambda one: "Note" in one.title, AFTER_SECONDS, "mail")
            assert letter.received >= turn
            # It is told once, though its group is looked at every second while its time lasts.
            time.sleep(3)
            assert sum("Note" in title for title in titles()) == 1
            assert sum("Ticket" in title for title in titles()) == 1
    finally:
        sink.stop()


@pytest.mark.parametrize("suite", SUITES)
def test_an_empty_location_is_utc(tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a time zone that is refused, or means the host's own, where Alertmanager takes UTC."""
    # Nine hours ahead of UTC. Where Go would look for it by name is another folder while Alertmanager runs here.
    zone = tmp_path / "Tokyo"
    zone.write_bytes(Path("/usr/share/zoneinfo/Asia/Tokyo").read_bytes())
    monkeypatch.setenv("TZ", str(zone))
    now = datetime.now(UTC)

    def around(moment: datetime, location: str) -> dict[str, Any]:
        """Return the three hours around a moment, without those of another day."""
        start = "00:00" if moment.hour == 0 else f"{moment.hour - 1:02d}:00"
        end = "24:00" if moment.hour >= 22 else f"{moment.hour + 2:02d}:00"
        return {"times": [{"start_time": start, "end_time": end}], "location": location}

    sink = Sink()
    try:
        there = now + timedelta(hours=9)
        render(
            tmp_path / "config",
            **settings(tmp_path, sink),
            alertmanager_time_intervals=[
                {"name": "now", "time_intervals": [around(now, "")]},
                {"name": "there", "time_intervals": [around(there, "")]},
                {"name": "host", "time_intervals": [around(there, "Local")]},
            ],
            alertmanager_mute_times={"warning": ["now"], "info": ["there"]},
            alertmanager_teams=[{"name": "a", "mute_times": {"warning": ["host"]}}],
        )
        with running(suite, tmp_path / "config/alertmanager.yml", tmp_path) as alertmanager:
            alertmanager.wait_until_ready()
            of_the_team = alert("Team", "warning")
            of_the_team["labels"]["team"] = "a"
            alertmanager.call("/api/v2/alerts", [alert("Ticket", "warning"), of_the_team, alert("Note", "info")])
            sink.client.wait_for(lambda one: "Note" in one.title, BEFORE_SECONDS, "slack")
            time.sleep(3)
            titles = [one.title for one in sink.client.messages("slack")]
            assert [title for title in titles if "Note" not in title] == [], alertmanager.log()
    finally:
        sink.stop()
