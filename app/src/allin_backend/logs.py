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
    """Send the log records of the process to standard output as JSON. ``level`` is a lower-case level name."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    set_levels(level)


def set_levels(level: str) -> None:
    """Log this package's records from ``level`` on, and those of libraries from warnings on at the least.

    Below that, libraries write what they are given: statements with their parameters, rows, addresses with their
    queries. Those hold secrets, and name people.
    """
    logging.getLogger("allin_backend").setLevel(level.upper())
    logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger("allin_backend").level))
