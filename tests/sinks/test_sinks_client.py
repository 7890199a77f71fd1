"""The client that other tests use."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sinks.conftest import Sink


def test_wait_for_returns_at_once_what_is_already_there(sink: Sink) -> None:
    sink.slack({"text": "one"})
    sink.slack({"text": "two"})
    start = time.monotonic()
    message = sink.client.wait_for(lambda m: m.text.endswith("two"), timeout=60)
    assert time.monotonic() - start < 20
    assert (message.kind, message["text"], message.title) == ("slack", "two", "two")
    assert abs((datetime.now(UTC) - message.received).total_seconds()) < 60


def test_wait_for_waits(sink: Sink) -> None:
    mark = sink.client.last_id()
    later = threading.Timer(0.3, lambda: sink.mail("Subject: late\n\nx"))
    later.start()
    try:
        message = sink.client.wait_for(lambda m: m.title == "late", timeout=20, kind="mail", after=mark)
    finally:
        later.join()
    assert message.id == mark + 1


def test_wait_for_fails_with_what_it_saw(sink: Sink, client_module: ModuleType) -> None:
    for number in range(12):
        sink.slack({"channel": "#alerts", "text": f"wrong {number:02}"})
    sink.mail("Subject: other kind\n\nx")
    start = time.monotonic()
    with pytest.raises(client_module.SinkTimeoutError) as failure:
        sink.client.wait_for(lambda _: False, timeout=0.5, kind="slack")
    assert 0.5 <= time.monotonic() - start < 20
    text = str(failure.value)
    assert "no slack message as expected within 0.5 s" in text
    assert "12 seen" in text
    assert "'#alerts': 'wrong 11'" in text
    assert "wrong 01" not in text
    assert "other kind" not in text
    assert len(failure.value.seen) == 12
    assert isinstance(failure.value, AssertionError)


def test_after_leaves_out_older_messages(sink: Sink, client_module: ModuleType) -> None:
    sink.slack({"text": "old"})
    mark = sink.client.last_id()
    with pytest.raises(client_module.SinkTimeoutError, match="0 seen"):
        sink.client.wait_for(lambda _: True, timeout=0.1, after=mark)
    assert sink.client.messages(after=mark) == []


def test_text_has_every_text_of_a_message(sink: Sink) -> None:
    sink.slack({"attachments": [{"title": "T", "fields": [{"title": "F", "value": "V"}]}], "blocks": [{"type": "B"}]})
    (message,) = sink.client.messages()
    assert {"T", "F", "V", "B"} <= set(message.text.splitlines())
    assert message.title == "T"


def test_nobody_there_is_said_clearly_and_waited_for(client_module: ModuleType) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        client = client_module.SinkClient(f"http://127.0.0.1:{probe.getsockname()[1]}/")
        with pytest.raises(client_module.SinkError, match="Are the message sinks running there"):
            client.messages()
        with pytest.raises(client_module.SinkTimeoutError, match="The last attempt failed: GET /api/messages"):
            client.wait_for(lambda _: True, timeout=0.3)


def test_refusals_are_passed_on(sink: Sink, client_module: ModuleType) -> None:
    with pytest.raises(client_module.SinkError, match=r"refused with 400: .*slack\.status"):
        sink.client.fault(slack={"status": 1})
    with pytest.raises(ValueError, match="http://"):
        client_module.SinkClient("127.0.0.1:8025")


def test_proxies_of_the_environment_are_not_used(
    sink: Sink, client_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert client_module.SinkClient(sink.url).messages() == []
