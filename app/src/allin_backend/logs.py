"""Structured logs: one JSON object a line on standard output. The journal is the log store."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, for log lines and error bodies."""

_encoder: Final = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    """Formats a record with its ``fields`` (from ``extra={"fields": {...}}``) and the request's id."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identifier := request_id.get():
            line["request_id"] = identifier
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encoder.encode(line).decode()


def configure(level: str) -> None:
    """Send every log record of the process to standard output as JSON. ``level`` is a lower-case level name."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Its start and stop messages repeat ours.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
    # Its line for each request has the address, which may name people; the metrics count the requests.
    logging.getLogger("httpx2").setLevel(max(logging.WARNING, logging.getLogger().level))
