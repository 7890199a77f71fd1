"""What people read, rendered by the Alertmanagers of all three Debian suites."""

from __future__ import annotations

import copy
import html
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.roles import messages
from tests.roles.messages import BACKEND_DOWN, Desk, Example
from tests.roles.rendering import render
from tests.rules import alerts_document
from tests.sinks.alertmanagers import SUITES, running
from tests.sinks.conftest import Sink

NASTY = 'a&b <c> "d" `e` |f| <!channel> ñ+1 \\'


@pytest.fixture(scope="module", params=SUITES)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    return messages.examples(request.param, tmp_path_factory.mktemp("messages"))


@pytest.fixture(scope="module", params=SUITES)
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    sink = Sink()
    try:
        render(folder / "config", **messages.settings(folder, sink))
        with running(request.param, folder / "config/alertmanager.yml", folder) as sender:
            sender.wait_until_ready()
            yield Desk(sender, sink)
    finally:
        sink.stop()


def links(example: Example) -> dict[str, str]:
    """The links of a Slack message by their label, as Slack would open them."""
    found = re.findall(r"<(http[^|>]*)\|([^>]*)>", example.attachment["text"])
    return {label: html.unescape(address) for address, label in found}


def test_the_documented_examples_are_what_is_sent(found: dict[str, Example]) -> None:
    """Prevents: pictures of messages that nobody gets any more, and templates that one version renders otherwise."""
    assert messages.document(found) == messages.DOCUMENT.read_text(), "run make messages-doc"
    assert alerts_document.examples(found).rstrip() in alerts_document.DOCUMENT.read_text(), "run make alerts-doc"


def test_a_message_says_what_since_when_where_and_what_to_do(found: dict[str, Example]) -> None:
    example = found["One alert"]
    shown = BACKEND_DOWN["annotations"]["description"]
    for text in (example.attachment["text"], example.mail["text"], example.mail["html"]):
        assert shown in text
        assert "2026-03-14 03:07:30 UTC" in text
        assert "backend-api-production" in text
        assert BACKEND_DOWN["annotations"]["runbook_url"] in text
    assert set(links(example)) == {"Runbook", "Dashboard", "Query", "Silence"}
    assert example.attachment["color"] == "danger"
    assert found["Its end"].attachment["color"] == "good"
    assert "12m15s" in found["Its end"].attachment["text"]
    assert "Silence" not in links(found["Its end"])


def test_links_open_what_they_promise(found: dict[str, Example]) -> None:
    """Prevents: a silence for other alerts, and a dashboard of another time."""
    opened = links(found["One alert"])
    started = 1773457650_000
    dashboard = parse_qs(urlsplit(opened["Dashboard"]).query)
    assert dashboard == {"var-job": ["backend-api-production"], "from": [str(started - 1_800_000)], "to": ["now"]}
    ended = parse_qs(urlsplit(links(found["Its end"])["Dashboard"]).query)
    assert ended["to"] == [str(started + 735_000 + 1_800_000)]
    assert opened["Query"] == BACKEND_DOWN["generatorURL"]
    page, _, silence = opened["Silence"].partition("?filter=")
    assert page == f"{messages.EXTERNAL_URL}/#/silences/new"
    pairs = ",".join(
        f'{name}="{value}"' for name, value in sorted(BACKEND_DOWN["labels"].items()) if name != "alertname"
    )
    assert unquote(silence) == f'{{alertname="BackendDown",{pairs}}}'
    # The mail's links are the same, in both of its parts.
    for address in opened.values():
        assert address in found["One alert"].mail["text"]
        assert address in html.unescape(found["One alert"].mail["html"])


def test_a_group_is_counted_and_not_cut_off(found: dict[str, Example]) -> None:
    example = found["Seven alerts of one kind"]
    assert example.slack.title.startswith("[FIRING:7] HostDiskSpaceLow (critical) in production")
    assert example.attachment["text"].count("|Silence>") == 5
    assert "*7 firing*, the first 5:" in example.attachment["text"]
    assert len(example.attachment["text"]) < 8000
    for number in range(1, 8):
        assert f"/dev/sda1 of 192.0.2.{10 + number}:9100 has" in example.mail["text"]
        assert f"/dev/sda1 of 192.0.2.{10 + number}:9100 has" in example.mail["html"]
    assert "2 resolved" in found["Two of the seven have ended"].attachment["text"]


def test_a_mail_loads_nothing_and_fits_a_phone(found: dict[str, Example]) -> None:
    for example in found.values():
        page = example.mail["html"]
        assert not re.search(r"<img|<link|<script|@import|url\(|ZgotmplZ", page)
        assert "prefers-color-scheme: dark" in page
        assert "width=device-width" in page
        assert len(example.mail.title) <= 130
    assert ["Auto-Submitted", "auto-generated"] in [list(pair) for pair in found["One alert"].mail["headers"]]


def test_texts_of_others_are_no_markup(desk: Desk) -> None:
    """Prevents: a label that calls everybody in the channel, and one that ends a link early."""
    alert = copy.deepcopy(BACKEND_DOWN)
    alert["labels"] |= {"alertname": "Nasty", "route": NASTY}
    alert["annotations"] |= {"summary": NASTY, "description": NASTY, "dashboard_url": "https://g.test/d/x"}
    example = desk.tell([alert], "[FIRING:1] Nasty")
    escaped = NASTY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert example.attachment["text"].startswith(escaped)
    assert example.attachment["title"].endswith(escaped)
    assert "<!channel>" not in example.attachment["text"] + example.attachment["title"]
    assert "<!channel>" not in example.mail["html"]
    assert NASTY in html.unescape(example.mail["html"])
    assert NASTY in example.mail["text"]
    silence = unquote(links(example)["Silence"].partition("?filter=")[2])
    assert 'route="' + NASTY.replace("\\", "\\\\").replace('"', '\\"') + '"' in silence
    assert links(example)["Dashboard"].startswith("https://g.test/d/x?from=")


def test_an_alert_with_nothing_but_a_name_is_told_too(desk: Desk) -> None:
    """Prevents: a template that fails on what somebody else's rule left out, and so a message that never comes."""
    example = desk.tell(
        [{"labels": {"alertname": "Bare", "severity": "critical"}, "startsAt": "2026-03-14T03:07:30Z"}],
        "[FIRING:1] Bare",
    )
    assert example.slack.title == "[FIRING:1] Bare (critical)"
    assert "Dashboard" not in example.attachment["text"]
    assert "Bare" in example.mail["html"]
    assert example.mail["parse_error"] is None


def test_a_long_description_is_cut_and_not_refused(desk: Desk) -> None:
    alert = copy.deepcopy(BACKEND_DOWN)
    alert["labels"] |= {"alertname": "Long"}
    alert["annotations"] |= {"summary": "s" * 500, "description": "d" * 20_000}
    example = desk.tell([alert], "[FIRING:1] Long")
    assert len(example.attachment["text"]) < 4000
    assert len(example.mail.title) < 160
    assert "d" * 20_000 in example.mail["text"].replace("\n", "")
