"""The log."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient

from allin_backend.logs import JsonFormatter, request_id


def formatted(**arguments: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "created": 0.5} | arguments)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    decoded: dict[str, Any] = json.loads(line)
    return decoded


def test_line_is_json_with_time_level_and_message() -> None:
    assert formatted(msg="a %s\nb", args=("x",)) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "info",
        "logger": "x",
        "message": "a x\nb",
    }


def test_fields_request_id_and_exception() -> None:
    token = request_id.set("abc")
    try:
        int("broken")
    except ValueError:
        line = formatted(msg="m", fields={"status": 200, "kind": object}, exc_info=sys.exc_info())
    finally:
        request_id.reset(token)

    assert line["request_id"] == "abc"
    assert line["status"] == 200
    assert "ValueError: invalid literal" in line["exception"]


def test_requests_are_logged_without_their_query(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "allin_backend")
    client.get("/api/v1/posts?token=hunter2", headers={"X-Request-ID": "abc", "Authorization": "hunter2"})
    client.get("/health")

    (record,) = [record for record in caplog.records if record.name == "allin_backend.web.context"]
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["method"], fields["route"], fields["path"], fields["status"]) == (
        "GET",
        "/api/v1/posts",
        "/api/v1/posts",
        400,
    )
    assert fields["duration_ms"] > 0
    assert "hunter2" not in caplog.text + str(fields)
