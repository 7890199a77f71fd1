"""Slack look-alike, generic webhook, API, faults and limits of the HTTP port."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sinks.conftest import Sink

ATTACHMENT = {
    "title": "[FIRING:1] BackendDown",
    "title_link": "http://127.0.0.1:9093/#/alerts",
    "text": "*down* since <http://127.0.0.1:9090|12:00>",
    "fallback": "BackendDown",
    "color": "danger",
    "fields": [{"title": "Severity", "value": "critical", "short": True}],
    "actions": [{"type": "button", "text": "Runbook", "url": "https://example.com/runbook"}],
}


def test_slack_message_is_answered_as_slack_does_and_kept_with_its_parts(sink: Sink) -> None:
    payload = {"channel": "#alerts", "username": "Alertmanager", "attachments": [ATTACHMENT], "link_names": True}
    answer = sink.slack(payload)
    assert (answer.status, answer.text) == (200, "ok")
    (message,) = sink.client.messages("slack")
    assert message["channel"] == "#alerts"
    assert message["username"] == "Alertmanager"
    assert message["attachments"] == [ATTACHMENT]
    assert message["path"] == "/slack/T0/B0/secret"
    assert message["other"] == {"link_names": True}
    assert message["text"] == ""
    assert message["blocks"] == []


def test_slack_takes_the_form_that_curl_examples_use(sink: Sink) -> None:
    form = urllib.parse.urlencode({"payload": json.dumps({"text": "größer & <besser>"})})
    answer = sink.request("POST", "/slack/x", form, {"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status, answer.text) == (200, "ok")
    assert sink.client.messages("slack")[0]["text"] == "größer & <besser>"


@pytest.mark.parametrize("channel", ["#alerts", "alerts", "@karl.m", "C024BE91L", "#größe-1_x", None])
def test_slack_takes_channels_that_can_exist(sink: Sink, channel: str | None) -> None:
    assert sink.slack({"channel": channel, "text": "x"}).text == "ok"


@pytest.mark.parametrize("channel", ["#Alerts", "#two words", "#", "#" + "x" * 81, "a,b", "#<b>"])
def test_slack_refuses_channels_that_cannot_exist(sink: Sink, channel: str) -> None:
    answer = sink.slack({"channel": channel, "text": "x"})
    assert (answer.status, answer.text) == (404, "channel_not_found")
    assert sink.client.messages() == []


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "invalid_payload"),
        (b"{", "invalid_payload"),
        (b"[]", "invalid_payload"),
        (b"\xff\xfe", "invalid_payload"),
        (b'{"text": NaN}', "invalid_payload"),
        (b'{"text": "x", "n": 1e999}', "invalid_payload"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "invalid_payload"),
        (b'{"text":' + b"[" * 200_000, "invalid_payload"),
        (b'{"text":"x","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_payload"),
        (b'{"text": 5}', "invalid_payload"),
        (b'{"channel": ["#a"], "text": "x"}', "invalid_payload"),
        (b"{}", "no_text"),
        (b'{"text": "", "attachments": []}', "no_text"),
        (b'{"attachments": {"title": "x"}}', "invalid_attachments"),
        (b'{"attachments": ["x"]}', "invalid_attachments"),
        (b'{"attachments": [{"fields": "x"}]}', "invalid_attachments"),
        (b'{"attachments": [{"actions": [1]}]}', "invalid_attachments"),
        (b'{"attachments": [' + b",".join([b'{"text":"x"}'] * 101) + b"]}", "too_many_attachments"),
        (b'{"blocks": [{}]}', "invalid_blocks"),
        (b'{"blocks": "x"}', "invalid_blocks"),
    ],
)
def test_slack_refuses_bad_payloads_with_slacks_words(sink: Sink, body: bytes, word: str) -> None:
    answer = sink.request("POST", "/slack/x", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.text) == (400, word)
    assert sink.client.messages() == []
    assert sink.request("GET", "/health").status == 200


def test_slack_refuses_other_content_types_and_methods(sink: Sink) -> None:
    assert sink.request("POST", "/slack/x", '{"text": "x"}', {"Content-Type": "text/xml"}).text == "invalid_payload"
    answer = sink.request("GET", "/slack/x")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_half_a_character_does_not_break_what_comes_after(sink: Sink) -> None:
    sink.request("POST", "/slack/x", rb'{"text": "a\ud800b", "x\udfff": 1}', {"Content-Type": "application/json"})
    (message,) = sink.client.messages()
    assert message["text"] == "a\ufffdb"
    assert message["other"] == {"x\ufffd": 1}
    assert "a\ufffdb" in sink.request("GET", "/").text


def test_webhook_body_is_kept_as_it_is(sink: Sink) -> None:
    body = {"version": "4", "status": "firing", "alerts": [{"labels": {"alertname": "A"}, "n": [1, 2.5, None, True]}]}
    answer = sink.request("POST", "/webhook/alerts", json.dumps(body), {"Content-Type": "application/json"})
    assert answer.status == 200
    (message,) = sink.client.messages("webhook")
    assert message["body"] == body
    assert message["path"] == "/webhook/alerts"
    assert answer.json() == {"id": message.id}
    refused = sink.request("POST", "/webhook/alerts", "not json")
    assert refused.status == 400
    assert "must be JSON" in refused.json()["error"]


def test_messages_have_increasing_ids_and_a_time_and_can_be_selected(sink: Sink) -> None:
    before = time.time()
    for text in ("one", "two", "three"):
        sink.slack({"text": text})
    sink.request("POST", "/webhook/x", "1")
    listed = sink.request("GET", "/api/messages").json()
    ids = [item["id"] for item in listed]
    assert ids == sorted(set(ids))
    assert [item["kind"] for item in listed] == ["slack", "slack", "slack", "webhook"]
    for message in sink.client.messages():
        assert message["received"].endswith("Z")
        assert len(message["received"]) == len("2026-01-02T03:04:05.678Z")
        assert before - 1 < message.received.timestamp() < time.time() + 1
    after = sink.request("GET", f"/api/messages?kind=slack&after={ids[0]}").json()
    assert [item["text"] for item in after] == ["two", "three"]
    newest = sink.request("GET", "/api/messages?kind=slack&limit=1").json()
    assert [item["text"] for item in newest] == ["three"]
    assert sink.request("GET", "/api/messages?limit=0").json() == []
    one = sink.request("GET", f"/api/messages/{ids[1]}")
    assert (one.status, one.json()["text"]) == (200, "two")


def test_clearing_forgets_messages_but_not_the_last_id(sink: Sink) -> None:
    sink.slack({"text": "old"})
    (old,) = sink.client.messages()
    assert sink.request("DELETE", "/api/messages").json() == {"deleted": 1}
    assert sink.client.messages() == []
    assert sink.request("GET", f"/api/messages/{old.id}").status == 404
    sink.slack({"text": "new"})
    assert sink.client.messages()[0].id == old.id + 1


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/api/messages?kind=fax", "kind must be one of slack, mail, webhook"),
        ("/api/messages?after=x", "after must be a number"),
        ("/api/messages?after=-1", "after must be a number"),
        ("/api/messages?limit=", "limit must be a number"),
        ("/api/messages?knid=mail", "unknown parameter"),
        ("/api/messages?&=&&", "malformed"),
    ],
)
def test_wrong_queries_are_refused_by_name(sink: Sink, path: str, says: str) -> None:
    answer = sink.request("GET", path)
    assert answer.status == 400
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/slack/", 404),
        ("GET", "/api/messages/x", 404),
        ("GET", "/api/messages/99999999999999999", 404),
        ("GET", "/mail/1.html/../..", 404),
        ("GET", "/etc/passwd", 404),
        ("POST", "/api/messages", 405),
        ("POST", "/", 405),
        ("PATCH", "/api/faults", 405),
    ],
)
def test_unknown_paths_and_methods(sink: Sink, method: str, path: str, status: int) -> None:
    answer = sink.request(method, path)
    assert answer.status == status
    assert answer.json()["error"]


def test_head_has_no_body_and_connections_are_reused(sink: Sink) -> None:
    with socket.create_connection(("127.0.0.1", sink.http_port), timeout=20) as client:
        client.sendall(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.0\r\n\r\n")
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.count(b'"status": "ok"') == 1


def test_health_counts(sink: Sink) -> None:
    sink.slack({"text": "x"})
    health = sink.request("GET", "/health").json()
    assert health["status"] == "ok"
    assert health["messages"] == {"slack": 1, "mail": 0, "webhook": 0}
    assert health["last_id"] == sink.client.last_id()
    assert health["state_file_error"] is None


# Faults


def test_slack_fault_answers_as_told_and_keeps_nothing(sink: Sink) -> None:
    sink.client.fault(slack={"status": 503, "body": "down for tests"})
    answer = sink.slack({"text": "x"})
    assert (answer.status, answer.text) == (503, "down for tests")
    assert sink.client.messages() == []
    assert sink.client.fault_hits() == {"slack": 1}
    assert "503" in sink.request("GET", "/").text
    sink.client.clear_faults()
    assert sink.slack({"text": "x"}).text == "ok"


def test_fault_for_a_number_of_times_ends_by_itself(sink: Sink) -> None:
    sink.client.fault(slack={"status": 500, "times": 2})
    assert [sink.slack({"text": "x"}).status for _ in range(3)] == [500, 500, 200]


def test_fault_may_only_delay(sink: Sink) -> None:
    sink.client.fault(webhook={"delay_seconds": 0.3})
    start = time.monotonic()
    assert sink.request("POST", "/webhook/x", "{}").status == 200
    assert time.monotonic() - start >= 0.3
    assert len(sink.client.messages("webhook")) == 1


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([], "must be an object"),
        ({"fax": {}}, "unknown sink"),
        ({"slack": 5}, "slack: must be an object"),
        ({"slack": {"stauts": 500}}, "unknown setting"),
        ({"slack": {"status": 100}}, "slack.status"),
        ({"slack": {"status": "500"}}, "slack.status"),
        ({"slack": {"status": True}}, "slack.status"),
        ({"slack": {"delay_seconds": 61}}, "slack.delay_seconds"),
        ({"slack": {"delay_seconds": -1}}, "slack.delay_seconds"),
        ({"slack": {"times": 0}}, "slack.times"),
        ({"slack": {"body": 5}}, "slack.body"),
        ({"slack": {"stage": "data"}}, "unknown setting"),
        ({"smtp": {"code": 250}}, "smtp.code"),
        ({"smtp": {"text": "two\r\n250 lines"}}, "smtp.text"),
        ({"smtp": {"stage": "quit"}}, "smtp.stage"),
    ],
)
def test_wrong_faults_are_refused_and_change_nothing(sink: Sink, faults: Any, says: str) -> None:
    sink.client.fault(slack={"status": 500})
    answer = sink.request("PUT", "/api/faults", json.dumps(faults))
    assert answer.status == 400
    assert says in answer.json()["error"]
    assert list(sink.request("GET", "/api/faults").json()) == ["slack"]


# The protocol and its limits


def exchange(sink: Sink, data: bytes) -> bytes:
    """Send bytes as they are and return everything that comes back until the sink hangs up."""
    received = b""
    with socket.create_connection(("127.0.0.1", sink.http_port), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65536):
            received += part
    return received


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET http://example.com/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"POST /slack/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /slack/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /slack/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /slack/x HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n" + b"x" * 1_048_577, 413),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_broken_requests_get_an_answer(sink: Sink, data: bytes, status: int) -> None:
    answer = exchange(sink, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"\r\n\r\n") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_requests_that_end_in_the_middle_are_dropped(sink: Sink) -> None:
    assert exchange(sink, b"GET / HT") == b""
    assert exchange(sink, b"POST /slack/x HTTP/1.1\r\nContent-Length: 30\r\n\r\n{") == b""
    assert sink.client.messages() == []


def test_the_largest_body_is_taken_also_with_expect_100(sink: Sink) -> None:
    body = json.dumps({"text": "x" * 1_048_000}).encode()
    body += b" " * (1024 * 1024 - len(body))
    head = b"POST /slack/x HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    answer = exchange(sink, head + body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert len(sink.client.messages("slack")[0]["text"]) == 1_048_000
