#!/usr/bin/env python3
"""Message sinks: stand in for Slack and for a mail server, and show what they would have received.

One process, one event loop, two ports:

* SMTP: takes any mail (STARTTLS and AUTH when asked for by arguments) and keeps its parts.
* HTTP: ``POST /slack/<anything>`` answers as a Slack incoming webhook does, ``POST /webhook/<anything>`` takes any
  JSON, ``/api/...`` lets tests ask for what arrived and inject faults, ``GET /`` shows it to people.

HTTP interface (JSON unless said otherwise; errors are ``{"error": "<what is wrong and what to do>"}``):

=========================== ==========================================================================================
``GET /health``             ``{"status": "ok", "messages": {"slack": n, "mail": n, "webhook": n}, "last_id": n, ...}``
``GET /api/messages``       list, oldest first; ``?kind=slack|mail|webhook``, ``?after=<id>``, ``?limit=<newest n>``
``GET /api/messages/<id>``  one message
``DELETE /api/messages``    forgets all messages; ids go on increasing
``GET /api/faults``         the faults in force, with ``hits``, the number of requests that met them
``PUT /api/faults``         replaces them: ``{"slack": {"status": 500, "body": "x", "delay_seconds": 0, "times": 2},
                            "webhook": {...}, "smtp": {"code": 451, "text": "x", "stage": "mail|rcpt|data",
                            "delay_seconds": 0, "times": 1}}``; without ``status``/``code`` the message is only delayed
``DELETE /api/faults``      back to normal
=========================== ==========================================================================================

Every message has ``id`` (increasing, never used twice), ``kind`` and ``received`` (RFC 3339, UTC, milliseconds).
It is a tool for local trials and tests: messages are bounded in number and size, the oldest go first, and nothing here
is meant to be reached from outside the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import email
import email.errors
import email.header
import email.message
import email.policy
import email.utils
import hashlib
import hmac
import html
import ipaddress
import json
import os
import re
import signal
import ssl
import sys
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn

try:
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
except ImportError:  # pragma: no cover - only on a host without the package
    sys.exit(
        "allin_sinks: the Python package aiosmtpd is missing. "
        "Install it: apt-get install python3-aiosmtpd, or pip install aiosmtpd==1.4.6."
    )

KINDS: Final = ("slack", "mail", "webhook")
MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest HTTP body and largest mail, in bytes."""
MAX_STORE_BYTES: Final = 64 * 1024 * 1024
"""All kept messages together, in bytes of their JSON: 500 messages of 1 MiB would not be a small program any more."""
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADER_CHARS: Final = 8 * 1024
MAX_MAIL_HEADERS: Final = 200
MAX_MAIL_PARTS: Final = 1000
MAX_RECIPIENTS: Final = 100
MAX_FAULT_DELAY_SECONDS: Final = 60.0
SHOWN_PER_COLUMN: Final = 50
SHOWN_TEXT_CHARS: Final = 12_000

# What the empty page tells a newcomer to try; the names of the local inventory.
TRY_STOP: Final = "docker exec allin-local systemctl stop allin-backend"
TRY_START: Final = "docker exec allin-local systemctl start allin-backend"

JsonObject = dict[str, Any]

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def log(line: str) -> None:
    """Write one line to stdout; the caller quotes what came from outside."""
    # A closed stdout (a pipe whose reader went away) must not stop the sinks.
    with contextlib.suppress(OSError):
        print(f"{rfc3339_now()} {line}", flush=True)


def quoted(text: object, limit: int = 120) -> str:
    """Return ``text`` as one quoted, escaped, bounded piece of a log line."""
    plain = str(text)
    return json.dumps(plain if len(plain) <= limit else plain[:limit] + "…")


def rfc3339_now() -> str:
    """Return the current time as RFC 3339 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def strict_json(document: str | bytes) -> Any:
    """Parse JSON from outside into values that can be written as UTF-8 JSON again.

    Raises:
        ValueError: not JSON, not UTF-8, numbers that JSON cannot carry (NaN, 1e999), or nested too deeply.
    """
    try:
        value = json.loads(document.decode("utf-8") if isinstance(document, bytes) else document)
        # "\ud800" is legal JSON but no character: written out as UTF-8 it would break every reader.
        return json.loads(_SURROGATES.sub("\ufffd", json.dumps(value, ensure_ascii=False, allow_nan=False)))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


# --- What is kept -----------------------------------------------------------------------------------------------------


class Store:
    """The newest messages, in memory and (if a path is given) in a file of JSON lines.

    The file is appended to and now and then rewritten as a whole (new file, then rename), so whatever moment the
    process dies at, at most the line being written is lost.

    Args:
        path: the file, or None to keep messages in memory only.
        history: how many messages to keep.
        max_bytes: how many bytes of JSON to keep, whatever ``history`` says.
    """

    def __init__(self, path: Path | None, history: int, max_bytes: int = MAX_STORE_BYTES) -> None:
        self._path = path
        self._history = history
        self._max_bytes = max_bytes
        self._entries: dict[int, tuple[JsonObject, int]] = {}
        self._bytes = 0
        self._next_id = 1
        self._file_lines = 0
        self._file_bytes = 0
        self._rewrite_due = False
        self.file_error = ""

    @property
    def last_id(self) -> int:
        """The newest id given out, 0 if none was."""
        return self._next_id - 1

    @property
    def oldest_id(self) -> int:
        """The oldest id still kept, or the next one to be given out if nothing is kept."""
        return next(iter(self._entries), self._next_id)

    def load(self) -> int:
        """Read the file, if there is one, and rewrite it without what is broken or too old.

        Returns:
            How many lines could not be read.

        Raises:
            OSError: the file can neither be read nor written.
        """
        if self._path is None:
            return 0
        broken = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    broken += not self._load_line(line)
        self._rewrite()
        return broken

    def _load_line(self, line: bytes) -> bool:
        try:
            value = strict_json(line)
        except ValueError:
            return False
        if not isinstance(value, dict):
            return False
        if isinstance(value.get("next_id"), int):
            self._next_id = max(self._next_id, value["next_id"])
            return True
        number = value.get("id")
        # A hand-edited file must not bring in a second message of the same id, or ids that go down.
        if type(number) is not int or value.get("kind") not in KINDS or number <= next(reversed(self._entries), 0):
            return False
        self._keep(value, len(line))
        self._next_id = max(self._next_id, number + 1)
        return True

    def _keep(self, message: JsonObject, size: int) -> None:
        self._entries[message["id"]] = (message, size)
        self._bytes += size
        while len(self._entries) > self._history or (self._bytes > self._max_bytes and len(self._entries) > 1):
            oldest = next(iter(self._entries))
            self._bytes -= self._entries.pop(oldest)[1]

    def add(self, kind: str, parts: Mapping[str, Any]) -> JsonObject:
        """Keep a message and return it with its id and time."""
        message: JsonObject = {"id": self._next_id, "kind": kind, "received": rfc3339_now(), **parts}
        self._next_id += 1
        line = json.dumps(message).encode("ascii") + b"\n"
        self._keep(message, len(line))
        self._append(line)
        return message

    def select(self, kind: str | None = None, after: int = 0, limit: int | None = None) -> list[JsonObject]:
        """Return messages with an id above ``after``, oldest first; with ``limit`` only the newest of them."""
        found = [
            message
            for number, (message, _) in self._entries.items()
            if number > after and (kind is None or message["kind"] == kind)
        ]
        return found if limit is None else found[max(len(found) - limit, 0) :]

    def get(self, number: int) -> JsonObject | None:
        """Return one message, or None if it is not kept (any more)."""
        entry = self._entries.get(number)
        return entry[0] if entry else None

    def counts(self) -> dict[str, int]:
        """Return how many messages of each kind are kept."""
        counts = dict.fromkeys(KINDS, 0)
        for message, _ in self._entries.values():
            counts[message["kind"]] += 1
        return counts

    def clear(self) -> int:
        """Forget all messages, also in the file, and return how many there were."""
        count = len(self._entries)
        self._entries.clear()
        self._bytes = 0
        self._try_to_write(self._rewrite)
        return count

    def _append(self, line: bytes) -> None:
        if self._path is None:
            return
        too_many = self._file_lines >= 2 * self._history + 1
        too_large = self._file_bytes > 2 * self._max_bytes
        if self._rewrite_due or too_many or too_large:
            self._try_to_write(self._rewrite)
            return
        path = self._path
        self._try_to_write(lambda: self._append_line(path, line))

    def _append_line(self, path: Path, line: bytes) -> None:
        with self._open(path, os.O_APPEND) as file:
            file.write(line)
        self._file_lines += 1
        self._file_bytes += len(line)

    def _rewrite(self) -> None:
        if self._path is None:
            return
        new = self._path.with_name(self._path.name + ".new")
        lines = 1
        size = 0
        with self._open(new, os.O_TRUNC) as file:
            # Ids must not start again when all messages are gone: readers remember the last one they saw.
            file.write(json.dumps({"next_id": self._next_id}).encode("ascii") + b"\n")
            for message, _ in self._entries.values():
                lines += 1
                size += file.write(json.dumps(message).encode("ascii") + b"\n")
        new.replace(self._path)
        self._file_lines, self._file_bytes, self._rewrite_due = lines, size, False

    @staticmethod
    def _open(path: Path, flag: int) -> Any:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flag | os.O_CLOEXEC, 0o600), "wb")

    def _try_to_write(self, write: Callable[[], None]) -> None:
        # A full disk must not lose the message for the people and tests that look now; /health shows the error.
        try:
            write()
        except OSError as error:
            self._rewrite_due = True
            if not self.file_error:
                log(f"error: cannot write {self._path}: {error.strerror}; messages are kept in memory only")
            self.file_error = f"{self._path}: {error.strerror}"
        else:
            self.file_error = ""


# --- Faults -----------------------------------------------------------------------------------------------------------

SMTP_STAGES: Final = ("mail", "rcpt", "data")


@dataclass
class Fault:
    """What one sink does wrong on purpose."""

    settings: JsonObject
    code: int | None
    text: str
    delay_seconds: float
    times: int | None
    stage: str = ""
    hits: int = 0

    def meet(self) -> bool:
        """Count one request and say whether the fault still applies to it."""
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


def parse_faults(value: object) -> dict[str, Fault]:
    """Check a document for ``PUT /api/faults``.

    Raises:
        ValueError: something in it is unknown or out of range; the text names it.
    """
    if not isinstance(value, dict):
        raise ValueError('faults must be an object such as {"slack": {"status": 500}}')  # noqa: TRY004 - a wrong document
    faults = {}
    for sink, settings in value.items():
        if sink not in ("slack", "webhook", "smtp"):
            raise ValueError(f"unknown sink {quoted(sink)}: use slack, webhook or smtp")
        if not isinstance(settings, dict):
            raise ValueError(f"{sink}: must be an object")  # noqa: TRY004
        code_key, text_key, lowest = ("code", "text", 400) if sink == "smtp" else ("status", "body", 200)
        known = {code_key, text_key, "delay_seconds", "times", *(("stage",) if sink == "smtp" else ())}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"{sink}: unknown setting {quoted(unknown[0])}: use {', '.join(sorted(known))}")
        code = settings.get(code_key)
        if code is not None and (type(code) is not int or not lowest <= code <= 599):
            raise ValueError(f"{sink}.{code_key}: must be a number from {lowest} to 599")
        text = settings.get(text_key, "injected fault")
        if not isinstance(text, str) or len(text) > 10_000 or (sink == "smtp" and not re.fullmatch(r"[ -~]*", text)):
            raise ValueError(f"{sink}.{text_key}: must be a text (for smtp one line of ASCII)")
        delay = settings.get("delay_seconds", 0)
        if type(delay) not in (int, float) or not 0 <= delay <= MAX_FAULT_DELAY_SECONDS:
            raise ValueError(f"{sink}.delay_seconds: must be a number from 0 to {MAX_FAULT_DELAY_SECONDS:.0f}")
        times = settings.get("times")
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"{sink}.times: must be a number from 1, or be left out for always")
        stage = settings.get("stage", "data") if sink == "smtp" else ""
        if sink == "smtp" and stage not in SMTP_STAGES:
            raise ValueError(f"smtp.stage: must be one of {', '.join(SMTP_STAGES)}")
        faults[sink] = Fault(settings, code, text, float(delay), times, stage)
    return faults


# --- Slack ------------------------------------------------------------------------------------------------------------


class SlackRefusalError(Exception):
    """A request that Slack would refuse.

    Args:
        status: HTTP status of the answer.
        word: body of the answer, one of the words that Slack uses.
    """

    def __init__(self, status: int, word: str) -> None:
        super().__init__(word)
        self.status = status
        self.word = word


_SLACK_ID: Final = re.compile(r"[CDGUW][A-Z0-9]{6,20}")


def parse_slack(content_type: str, body: bytes) -> JsonObject:
    """Read an incoming-webhook request and return the parts that are kept.

    Raises:
        SlackRefusalError: Slack would not accept it.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        if media_type == "application/x-www-form-urlencoded":
            form = urllib.parse.parse_qs(body.decode("utf-8"), max_num_fields=50)
            payload = strict_json(form.get("payload", [""])[0])
        elif media_type in ("", "application/json"):
            payload = strict_json(body)
        else:
            raise SlackRefusalError(400, "invalid_payload")
    except ValueError:
        raise SlackRefusalError(400, "invalid_payload") from None
    if not isinstance(payload, dict):
        raise SlackRefusalError(400, "invalid_payload")

    for key in ("channel", "username", "text", "icon_emoji", "icon_url"):
        if not isinstance(payload.get(key, ""), str | None):
            raise SlackRefusalError(400, "invalid_payload")
    attachments = _slack_objects(payload, "attachments", 100, "too_many_attachments")
    for attachment in attachments:
        _slack_objects(attachment, "fields", 100, "invalid_attachments", "invalid_attachments")
        _slack_objects(attachment, "actions", 100, "invalid_attachments", "invalid_attachments")
    blocks = _slack_objects(payload, "blocks", 50, "invalid_blocks")
    if any(not isinstance(block.get("type"), str) for block in blocks):
        raise SlackRefusalError(400, "invalid_blocks")
    if not (payload.get("text") or attachments or blocks):
        raise SlackRefusalError(400, "no_text")
    channel = payload.get("channel") or ""
    if channel and not _is_channel(channel):
        raise SlackRefusalError(404, "channel_not_found")

    kept = ("channel", "username", "text", "icon_emoji", "icon_url", "attachments", "blocks")
    return {
        "channel": channel,
        "username": payload.get("username") or "",
        "icon_emoji": payload.get("icon_emoji") or "",
        "icon_url": payload.get("icon_url") or "",
        "text": payload.get("text") or "",
        "attachments": attachments,
        "blocks": blocks,
        "other": {key: value for key, value in payload.items() if key not in kept},
    }


def _slack_objects(owner: JsonObject, key: str, most: int, too_many: str, wrong: str | None = None) -> list[JsonObject]:
    value = owner.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise SlackRefusalError(400, wrong or f"invalid_{key}")
    if len(value) > most:
        raise SlackRefusalError(400, too_many)
    return value


def _is_channel(channel: str) -> bool:
    """Say whether Slack could have such a channel: a name without capitals and spaces, or an id such as C0123ABCD."""
    if _SLACK_ID.fullmatch(channel):
        return True
    name = channel[1:] if channel[0] in "#@" else channel
    return 1 <= len(name) <= 80 and name == name.lower() and not re.search(r"[\s\x00-\x1f#@<>,]", name)


# --- Mail -------------------------------------------------------------------------------------------------------------


class _BoundedHeaders(email.policy.Compat32):
    """The standard library's old mail policy, with an end to every header.

    The old one on purpose: it keeps headers as they came. The bound, because it splits the parameters of a header in
    quadratic time: one Content-Type of 1 MiB took 11 s.
    """

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:MAX_HEADER_CHARS]


def parse_mail(content: bytes) -> JsonObject:
    """Read a mail and return its parts; what cannot be read is returned as text with ``parse_error`` set.

    Args:
        content: the message as it came after DATA, dots already unstuffed.
    """
    empty: JsonObject = {
        "from": "", "to": [], "cc": [], "reply_to": [], "subject": "", "date": None, "message_id": "",
        "text": "", "html": "", "attachments": [], "headers": [], "parse_error": None,
    }  # fmt: skip
    try:
        return {**empty, **_mail_parts(content)}
    except Exception as error:  # the standard parser raises many kinds on hostile mail; none may stop the sink
        log(f"warning: mail kept unparsed: {quoted(error)}")
        return {**empty, "text": content.decode("utf-8", "replace"), "parse_error": quoted(error)[1:-1]}


def _mail_parts(content: bytes) -> JsonObject:
    # Each part costs about a kilobyte in Python, so 1 MiB of empty parts would cost hundreds of times that.
    if content.count(b"\n--") > MAX_MAIL_PARTS:
        raise ValueError(f"more than {MAX_MAIL_PARTS} lines that look like part boundaries")
    message = email.message_from_bytes(content, policy=_BoundedHeaders())
    headers = [(name, _header_text(value)) for name, value in list(message.raw_items())[:MAX_MAIL_HEADERS]]

    def first(name: str) -> str:
        return next((value for key, value in headers if key.lower() == name), "")

    def raw_addresses(name: str) -> list[JsonObject]:
        raw = [_raw_text(value) for key, value in message.raw_items() if key.lower() == name]
        try:
            found = email.utils.getaddresses(raw[:20])[:MAX_RECIPIENTS]
        except RecursionError:  # nested comments
            return []
        # Decoded after splitting: an encoded comma in a name must not make two addresses.
        return [{"name": _decoded(person), "address": address} for person, address in found if person or address]

    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attachments: list[JsonObject] = []
    for part in message.walk():
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
        kind = part.get_content_type()
        if kind in texts and part.get_content_disposition() != "attachment":
            texts[kind].append(_part_text(part, data))
        else:
            name = part.get_filename()
            attachments.append({"filename": _decoded(str(name)) if name else "", "type": kind, "size": len(data)})

    return {
        "from": first("from"),
        "to": raw_addresses("to"),
        "cc": raw_addresses("cc"),
        "reply_to": raw_addresses("reply-to"),
        "subject": first("subject"),
        "date": _header_date(first("date")),
        "message_id": first("message-id"),
        "text": "\n".join(texts["text/plain"]),
        "html": "\n".join(texts["text/html"]),
        "attachments": attachments,
        "headers": headers,
    }


def _raw_text(value: object) -> str:
    """Return a header's value as text: bytes above ASCII are taken for UTF-8, folds and control characters go."""
    text = str(value)[:MAX_HEADER_CHARS].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _CONTROL.sub("", re.sub(r"\r?\n[ \t]*|\t", " ", text)).strip()


def _decoded(text: str) -> str:
    """Decode RFC 2047 words (``=?utf-8?q?...?=``); what cannot be decoded stays as it is."""
    if "=?" not in text:
        return text
    try:
        pieces = [
            piece if isinstance(piece, str) else piece.decode(charset or "utf-8", "replace")
            for piece, charset in email.header.decode_header(text)
        ]
    except (email.errors.HeaderParseError, LookupError, ValueError):
        return text
    decoded = _CONTROL.sub("", _SURROGATES.sub("\ufffd", "".join(pieces)).replace("\r", " ").replace("\n", " "))
    return decoded or text


def _header_text(value: object) -> str:
    return _decoded(_raw_text(value))


def _header_date(value: str) -> str | None:
    """Return a Date header as RFC 3339 in UTC, or None if it is missing or wrong."""
    try:
        moment = email.utils.parsedate_to_datetime(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _part_text(part: email.message.Message[Any, Any], data: bytes) -> str:
    charset = part.get_content_charset() or "utf-8"
    try:
        text = data.decode(charset, "replace")
    except (LookupError, ValueError):  # an unknown charset, or one that is no text encoding
        text = data.decode("utf-8", "replace")
    return _SURROGATES.sub("\ufffd", text).replace("\r\n", "\n")


class MailHandler:
    """The hooks that aiosmtpd calls.

    Its attributes must not begin with ``auth_``: aiosmtpd would offer them as AUTH mechanisms.
    """

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    async def handle_EHLO(  # noqa: N802 - the name is aiosmtpd's
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Take the greeting; do not offer AUTH when there is no user who could use it."""
        session.host_name = hostname
        if self._sinks.config.credentials is None:
            return [line for line in responses if not line.startswith("250-AUTH")]
        return responses

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the sender."""
        refusal = await self._fault(server, "mail")
        if refusal:
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take one recipient."""
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return f"452 4.5.3 Too many recipients, at most {MAX_RECIPIENTS}"
        refusal = await self._fault(server, "rcpt")
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take the mail itself and keep it."""
        refusal = await self._fault(server, "data")
        if refusal:
            return refusal
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        login = session.auth_data
        message = self._sinks.accept(
            "mail",
            {
                "mail_from": _raw_text(envelope.mail_from or ""),
                "rcpt_to": [_raw_text(address) for address in envelope.rcpt_tos],
                **parse_mail(content),
                "size": len(content),
                "smtputf8": envelope.smtp_utf8,
                "tls": session.ssl is not None,
                "user": _raw_text(login.login.decode("utf-8", "replace")) if isinstance(login, LoginPassword) else None,
            },
        )
        return f"250 2.0.0 OK: kept as message {message['id']}"

    async def handle_exception(self, error: Exception) -> str:
        """Answer when something unforeseen happened in a session, for example a failed TLS handshake."""
        log(f"warning: SMTP session failed: {type(error).__name__} {quoted(error.__cause__ or error)}")
        return "451 4.3.0 The sink could not process this command"

    async def _fault(self, server: SMTP, stage: str) -> str:
        fault = self._sinks.faults.get("smtp")
        if fault is None or fault.stage != stage or not fault.meet():
            return ""
        await asyncio.sleep(fault.delay_seconds)
        if fault.code is None:
            return ""
        log(f"mail refused by a fault: {fault.code} at {stage}")
        transport = server.transport
        if fault.code == 421 and transport is not None:
            # 421 announces the end of the session; the answer is written before the loop comes round to this.
            server.loop.call_soon(transport.close)
        return f"{fault.code} {fault.text}"


class SmtpSession(SMTP):
    """One SMTP connection, counted."""

    def __init__(self, sinks: Sinks, **settings: Any) -> None:
        self._sinks = sinks
        super().__init__(MailHandler(sinks), **settings)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; called a second time after STARTTLS."""
        self._sinks.smtp_sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Uncount it; called twice when a TLS handshake fails."""
        self._sinks.smtp_sessions.discard(self)
        super().connection_lost(error)


class SmtpRefusal(asyncio.Protocol):
    """What a client gets when there are too many connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so and hang up."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(b"421 4.3.2 Too many connections, try again later\r\n")
        transport.close()


# --- The page ---------------------------------------------------------------------------------------------------------

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f3f4f7;--card:#fff;--line:#dfe3e8;--text:#1c2026;--soft:#5c6570;--link:#0b5cad;
--code:#eef0f3;--red:#cf222e;--redbg:#ffebe9;--green:#1a7f4b;--greenbg:#e3f6ea;--amber:#b76e00;--amberbg:#fff4d6;
--grey:#a3abb5;--new:#fff8dc}
@media (prefers-color-scheme:dark){:root{--bg:#12151a;--card:#1b2027;--line:#2e353f;--text:#e4e7eb;--soft:#98a2ae;
--link:#7db7ff;--code:#272e37;--red:#ff6b6b;--redbg:#40191d;--green:#4cc78a;--greenbg:#12351f;--amber:#f0b23e;
--amberbg:#3b2c0b;--grey:#5f6975;--new:#2b2a1c}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif;overflow-wrap:anywhere}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
header,main{max-width:1720px;margin:0 auto;padding:0 28px}
header{padding-top:20px;display:flex;flex-wrap:wrap;gap:4px 20px;align-items:baseline}
h1{font-size:21px;margin:0}
header p{margin:0;color:var(--soft);flex:1}
.live,.hooks{font-size:13px;color:var(--soft);white-space:nowrap}
.live::before{content:"";display:inline-block;width:8px;height:8px;border-radius:50%;background:var(--grey);
margin-right:6px}
.live.on::before{background:var(--green)}.live.off::before{background:var(--red)}
button{font:inherit;font-size:13px;color:var(--text);background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:3px 12px;cursor:pointer}button:hover{border-color:var(--soft)}
.nojs button{display:none}
.faults{max-width:1664px;margin:14px auto 0;padding:9px 16px;border-radius:8px;background:var(--amberbg);
border:1px solid var(--amber);width:calc(100% - 56px);display:flex;align-items:center;gap:16px}
.faults:empty{display:none}.faults span{flex:1}.faults button{white-space:nowrap}
main{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:22px;padding-top:16px;padding-bottom:40px}
@media (max-width:1440px){.app{display:none}}
@media (max-width:820px){main{grid-template-columns:minmax(0,1fr)}}
h2{font-size:16px;margin:0 0 10px;display:flex;align-items:center;gap:9px}
.count{font-size:12px;font-weight:600;color:var(--soft);background:var(--line);border-radius:10px;padding:0 9px;
line-height:20px}
h2 small{font-weight:400;font-size:13px;color:var(--soft);margin-left:auto}
article{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:13px 16px;margin-bottom:12px}
article.new{animation:new 4s ease-out}@keyframes new{from{background:var(--new)}}
@media (prefers-reduced-motion:reduce){article.new{animation:none}}
article.mail{border-left:4px solid var(--grey)}
article.mail.firing{border-left-color:var(--red)}article.mail.resolved{border-left-color:var(--green)}
.slack .row{display:grid;grid-template-columns:38px minmax(0,1fr);gap:12px}
.face{width:38px;height:38px;border-radius:8px;background:var(--code);display:grid;place-items:center;
font-weight:700;font-size:17px;color:var(--soft)}
.firing .face{background:var(--redbg);color:var(--red)}.resolved .face{background:var(--greenbg);color:var(--green)}
.top{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 8px}
.top b{font-size:15px}
.app{font-size:10px;font-weight:700;color:var(--soft);background:var(--code);border-radius:3px;padding:1px 4px;
align-self:center}
.channel{font-weight:600;color:var(--soft)}
.badge{font-size:11px;font-weight:700;letter-spacing:.04em;border-radius:4px;padding:1px 7px;align-self:center}
.badge.firing{color:var(--red);background:var(--redbg)}.badge.resolved{color:var(--green);background:var(--greenbg)}
.when{margin-left:auto;font-size:12px;color:var(--soft);white-space:nowrap}
.body{white-space:pre-wrap}
.attachment{display:grid;grid-template-columns:4px minmax(0,1fr);gap:12px;margin-top:7px}
.bar{width:4px;height:100%;border-radius:3px;background:var(--grey);display:block}
.bar.danger{background:var(--red)}.bar.good{background:var(--green)}.bar.warning{background:var(--amber)}
.title{font-weight:700}
.fields{display:grid;grid-template-columns:1fr 1fr;gap:5px 18px;margin-top:6px}
.fields .long{grid-column:1/-1}.fields b{display:block;font-size:13px}
.actions{display:flex;flex-wrap:wrap;gap:8px;margin-top:9px}
.action{border:1px solid var(--line);border-radius:6px;padding:2px 12px;font-weight:600;font-size:13.5px;
color:var(--text)}
.action.primary{color:var(--green);border-color:var(--green)}.action.danger{color:var(--red);border-color:var(--red)}
.small{font-size:12.5px;color:var(--soft);margin-top:5px}
.headline{font-size:17px;font-weight:700}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;background:var(--code);
border-radius:4px}
code{padding:1px 4px}pre{padding:9px 12px;margin:6px 0;white-space:pre-wrap}
blockquote{margin:0;padding-left:10px;border-left:3px solid var(--line)}
hr{border:0;border-top:1px solid var(--line);margin:8px 0}
.mention{background:var(--amberbg);border-radius:3px;padding:0 3px}
.subject{font-weight:700;font-size:15.5px;margin-top:2px}
.from{font-size:14px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:0 10px;margin:2px 0 8px;font-size:13.5px}
dt{color:var(--soft)}dd{margin:0}
.text{white-space:pre-wrap;max-height:420px;overflow:auto;border-top:1px solid var(--line);padding-top:8px}
details{border-top:1px solid var(--line);padding-top:7px;margin-top:7px}
summary{cursor:pointer;color:var(--soft);font-size:13px}summary:hover{color:var(--text)}
.preview{display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden;color:var(--text);
margin-top:3px;font-size:14px}
details[open] .preview{display:none}
iframe{display:block;width:100%;height:440px;border:1px solid var(--line);border-radius:6px;background:#fff;
color-scheme:light;margin-top:8px;resize:vertical}
.empty{display:none;border:1px dashed var(--grey);border-radius:10px;padding:20px 22px;color:var(--soft);
background:var(--card)}
.list:empty+.empty{display:block}
.empty h3{margin:0 0 6px;font-size:15px;color:var(--text)}.empty p{margin:8px 0 0}
.empty ol{margin:6px 0 0;padding-left:20px}
.empty code,.empty pre{color:var(--text)}
"""

SCRIPT: Final = """
(() => {
  const byId = (id) => document.getElementById(id);
  const body = document.body;
  body.classList.remove("nojs");
  const shown = Number(body.dataset.shown);
  let last = Number(body.dataset.last);
  const ago = (seconds) =>
    seconds < 5 ? "just now" : seconds < 60 ? Math.floor(seconds) + " s ago"
    : seconds < 3600 ? Math.floor(seconds / 60) + " min ago"
    : seconds < 86400 ? Math.floor(seconds / 3600) + " h ago" : Math.floor(seconds / 86400) + " d ago";
  const tick = () => {
    for (const time of document.querySelectorAll("time")) {
      const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
      time.textContent = new Date(time.dateTime).toLocaleTimeString("en-GB") + " · " + ago(Math.max(0, seconds));
    }
  };
  const live = (on) => {
    byId("live").className = on ? "live on" : "live off";
    byId("live").textContent = on ? "live" : "the sinks do not answer";
  };
  const poll = async () => {
    try {
      const answer = await fetch("/updates?after=" + last, {cache: "no-store"});
      if (!answer.ok) throw new Error(answer.status);
      const update = await answer.json();
      if (update.last_id < last) { location.reload(); return; }
      last = update.last_id;
      for (const kind of ["slack", "mail"]) {
        const list = byId(kind + "-list");
        if (update[kind]) list.insertAdjacentHTML("afterbegin", update[kind]);
        [...list.children].forEach((card, place) => {
          if (place >= shown || Number(card.dataset.id) < update.oldest_id) card.remove();
        });
        byId(kind + "-count").textContent = update.counts[kind];
      }
      byId("webhook-count").textContent = update.counts.webhook;
      if (byId("faults").dataset.faults !== update.faults) {
        byId("faults").dataset.faults = update.faults;
        byId("faults").innerHTML = update.faults;
      }
      live(true);
    } catch (error) {
      live(false);
    }
    tick();
    setTimeout(poll, 2000);
  };
  document.addEventListener("click", async (event) => {
    const path = event.target.dataset && event.target.dataset.delete;
    if (!path) return;
    try { await fetch(path, {method: "DELETE"}); location.reload(); } catch (error) { live(false); }
  });
  poll();
})();
"""


def _csp_hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


PAGE_CSP: Final = (
    f"default-src 'none'; script-src {_csp_hash(SCRIPT)}; style-src {_csp_hash(STYLE)}; connect-src 'self'; "
    "frame-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SANDBOX: Final = "allow-popups allow-popups-to-escape-sandbox"
# A mail brings its own inline styles, which the page's policy forbids; so it is a document of its own, with a policy
# that allows those and nothing else: no scripts, no forms, nothing loaded from anywhere.
MAIL_CSP: Final = (
    f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox {SANDBOX}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
DATA_CSP: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

EMOJI: Final = {
    "fire": "🔥", "rotating_light": "🚨", "warning": "⚠️", "white_check_mark": "✅", "heavy_check_mark": "✔️",
    "x": "❌", "bell": "🔔", "no_bell": "🔕", "red_circle": "🔴", "large_green_circle": "🟢",
    "large_yellow_circle": "🟡", "large_blue_circle": "🔵", "chart_with_upwards_trend": "📈", "robot_face": "🤖",
    "ghost": "👻", "tada": "🎉", "eyes": "👀", "book": "📖", "mag": "🔍",
}  # fmt: skip

_MRKDWN_TOKEN: Final = re.compile(
    r"```(?P<block>.+?)```|`(?P<code>[^`\n]+)`|<(?P<angle>[^<>\n]{1,3000})>|(?P<url>https?://[^\s<>|\x00]{1,2000})",
    re.DOTALL,
)
_LINK: Final = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x20\x7f<>\"]{1,3000}", re.IGNORECASE)
_Styles = tuple[tuple[re.Pattern[str], str], ...]
_STYLES: Final[_Styles] = (
    (re.compile(r"(?<![\w*])\*(?![\s*])([^*\n]+)(?<!\s)\*(?![\w*])"), "strong"),
    (re.compile(r"(?<![\w_])_(?![\s_])([^_\n]+)(?<!\s)_(?![\w_])"), "em"),
    (re.compile(r"(?<![\w~])~(?![\s~])([^~\n]+)(?<!\s)~(?![\w~])"), "s"),
)


def esc(value: object) -> str:
    """Return a value as HTML text, safe inside elements and inside quoted attributes."""
    return html.escape(_CONTROL.sub("", _SURROGATES.sub("\ufffd", "" if value is None else str(value))))


def link(url: object, label_html: str, css: str = "") -> str:
    """Return a link to a web or mail address; any other kind of address (``javascript:``) leaves only its label."""
    address = str(url or "")
    css_attribute = f' class="{css}"' if css else ""
    if not _LINK.fullmatch(address):
        return f"<span{css_attribute}>{label_html}</span>"
    return f'<a{css_attribute} href="{esc(address)}" target="_blank" rel="noopener noreferrer">{label_html}</a>'


def _with_emoji(text: str) -> str:
    return re.sub(r":([a-z_]{1,40}):", lambda match: EMOJI.get(match[1], match[0]), text)


def plain(value: object) -> str:
    """Return a text in which Slack knows no markup but emoji as HTML."""
    return _with_emoji(esc(_unescaped(str(value or ""))[:SHOWN_TEXT_CHARS]))


def mrkdwn(value: object) -> str:
    """Return Slack's markup as HTML: bold, italic, struck, code, quotes, links, mentions, a few emoji."""
    text = "" if value is None else str(value)
    left_out = len(text) - SHOWN_TEXT_CHARS
    text = text[:SHOWN_TEXT_CHARS].replace("\x00", "")
    kept: list[str] = []

    def keep(piece: str) -> str:
        # Finished HTML is set aside behind a mark that cannot occur in the text, so that later steps leave it alone.
        kept.append(piece)
        return f"\x00{len(kept) - 1}\x00"

    def token(match: re.Match[str]) -> str:
        if (block := match["block"]) is not None:
            return keep(f"<pre>{esc(_unescaped(block.strip(chr(10))))}</pre>")
        if (code := match["code"]) is not None:
            return keep(f"<code>{esc(_unescaped(code))}</code>")
        if (url := match["url"]) is not None:
            address = _unescaped(url)
            bare = address.rstrip(".,;:!?)'\"*_~")
            return keep(link(bare, esc(bare))) + address[len(bare) :]
        return keep(_angle(match["angle"]))

    escaped = esc_keeping_marks(_unescaped(_MRKDWN_TOKEN.sub(token, text)))
    escaped = _with_emoji(_styled(escaped, _STYLES, keep))
    escaped = re.sub(r"(?m)^&gt; ?(.*)$\n?", r"<blockquote>\1</blockquote>", escaped)
    result = escaped
    while "\x00" in result:  # pieces hold only pieces made before them: this ends
        result = re.sub(r"\x00(\d+)\x00", lambda match: kept[int(match[1])], result)
    # A block ends its line by itself; the line break beside it would show as an empty line.
    result = re.sub(r"\n?(<pre>|</pre>)\n?", r"\1", result)
    return result + (f"\n<em>… and {left_out} characters more</em>" if left_out > 0 else "")


def _styled(text: str, styles: _Styles, keep: Callable[[str], str]) -> str:
    """Apply bold, italic and struck one inside the other, so that ``*a _b* c_`` cannot make crossed elements."""
    if not styles:
        return text
    (pattern, element), rest = styles[0], styles[1:]
    text = pattern.sub(lambda match: keep(f"<{element}>{_styled(match[1], rest, keep)}</{element}>"), text)
    return _styled(text, rest, keep)


def esc_keeping_marks(text: str) -> str:
    """Escape like ``esc`` but leave the marks of ``mrkdwn`` in place."""
    return "\x00".join(esc(piece) for piece in text.split("\x00"))


def _unescaped(text: str) -> str:
    # Senders escape exactly these three; anything else that looks like an entity is meant literally.
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _angle(inner: str) -> str:
    """Return what stands between < and > in Slack's markup as HTML."""
    target, _, label = inner.partition("|")
    target, label = _unescaped(target), _unescaped(label)
    if target.startswith("!date^"):
        return esc(label or target)
    if target.startswith("!"):
        return f'<span class="mention">@{esc(label.lstrip("@") or target[1:])}</span>'
    if target[:1] in "@#":
        return f'<span class="mention">{esc(target[:1])}{esc(label or target[1:])}</span>'
    if _LINK.fullmatch(target):
        return link(target, esc(label or target.removeprefix("mailto:")))
    return esc(f"<{_unescaped(inner)}>")


def alert_status(texts: Iterable[object], colors: Iterable[object] = ()) -> str:
    """Return "firing", "resolved" or "": first by the word in the texts, then by the colour of an attachment."""
    for text in texts:
        match = re.search(r"\b(FIRING|RESOLVED)\b", str(text or "")[:500])
        if match:
            return match[1].lower()
    for color in colors:
        if color in ("danger", "good"):
            return "firing" if color == "danger" else "resolved"
    return ""


def _badge(status: str) -> str:
    return f'<span class="badge {status}">{status.upper()}</span>' if status else ""


def _when(message: JsonObject) -> str:
    received = esc(message.get("received"))
    shown = received[:19].replace("T", " ")
    return (
        f'<a class="when" href="/api/messages/{int(message["id"])}" title="{received}: open as JSON">'
        f'<time datetime="{received}">{shown} UTC</time></a>'
    )


def slack_card(message: JsonObject) -> str:
    """Return a Slack message as an HTML article."""
    attachments = message.get("attachments") or []
    texts = [message.get("text")] + [
        attachment.get(key) for attachment in attachments for key in ("title", "pretext", "fallback", "text")
    ]
    status = alert_status(texts, (attachment.get("color") for attachment in attachments))
    name = message.get("username") or "incoming-webhook"
    emoji = EMOJI.get(str(message.get("icon_emoji") or "").strip(":"))
    channel = message.get("channel")
    parts = [f'<div class="body">{mrkdwn(message["text"])}</div>'] if message.get("text") else []
    parts += [_block(block) for block in message.get("blocks") or []]
    parts += [_attachment(attachment) for attachment in attachments]
    return (
        f'<article class="slack {status}" data-id="{int(message["id"])}"><div class="row">'
        f'<div class="face" aria-hidden="true">{emoji or esc(str(name)[:1].upper())}</div><div><div class="top">'
        f'<b>{esc(name)}</b><span class="app">APP</span>'
        f'<span class="channel">{esc(channel) if channel else "(default channel)"}</span>'
        f"{_badge(status)}{_when(message)}</div>{''.join(parts)}</div></div></article>"
    )


def _attachment(attachment: JsonObject) -> str:
    color = str(attachment.get("color") or "")
    if color in ("danger", "good", "warning"):
        bar = f'<span class="bar {color}"></span>'
    elif re.fullmatch(r"#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})", color):
        # The page's policy forbids style attributes; fill is a drawing attribute and is allowed.
        bar = (
            '<svg class="bar" preserveAspectRatio="none" viewBox="0 0 1 1" aria-hidden="true">'
            f'<rect width="1" height="1" fill="#{color.removeprefix("#")}"/></svg>'
        )
    else:
        bar = '<span class="bar"></span>'
    inner = []
    if attachment.get("author_name"):
        inner.append(f'<div class="small">{link(attachment.get("author_link"), esc(attachment["author_name"]))}</div>')
    if attachment.get("title"):
        inner.append(f'<div class="title">{link(attachment.get("title_link"), plain(attachment["title"]))}</div>')
    if attachment.get("text"):
        inner.append(f'<div class="body">{mrkdwn(attachment["text"])}</div>')
    elif not attachment.get("title") and attachment.get("fallback"):
        inner.append(f'<div class="body">{mrkdwn(attachment["fallback"])}</div>')
    fields = "".join(
        f'<div class="{"short" if item.get("short") else "long"}"><b>{esc(item.get("title"))}</b>'
        f'<span class="body">{mrkdwn(item.get("value"))}</span></div>'
        for item in attachment.get("fields") or []
    )
    inner.append(f'<div class="fields">{fields}</div>' if fields else "")
    inner += [_block(block) for block in attachment.get("blocks") or [] if isinstance(block, dict)]
    inner.append(_actions(attachment.get("actions") or []))
    # Pictures stay links: the page must not load anything from elsewhere.
    for key in ("image_url", "thumb_url"):
        if attachment.get(key):
            inner.append(f'<div class="small">Picture: {link(attachment[key], esc(attachment[key]))}</div>')
    if attachment.get("footer"):
        inner.append(f'<div class="small">{mrkdwn(attachment["footer"])}</div>')
    before = f'<div class="body">{mrkdwn(attachment["pretext"])}</div>' if attachment.get("pretext") else ""
    return f'{before}<div class="attachment">{bar}<div>{"".join(inner)}</div></div>'


def _actions(actions: Sequence[Any]) -> str:
    buttons = []
    for action in actions:
        if not isinstance(action, dict):
            continue
        text = action.get("text")
        label = text.get("text") if isinstance(text, dict) else text
        look = str(action.get("style") or "")
        css = f"action {look}" if look in ("primary", "danger") else "action"
        buttons.append(link(action.get("url"), esc(label or action.get("name") or action.get("type")), css))
    return f'<div class="actions">{"".join(buttons)}</div>' if buttons else ""


def _block_text(text: object) -> str:
    if isinstance(text, dict):
        return plain(text.get("text")) if text.get("type") == "plain_text" else mrkdwn(text.get("text"))
    return mrkdwn(text)


def _block(block: JsonObject) -> str:
    kind = block.get("type")
    if kind == "header":
        return f'<div class="headline">{_block_text(block.get("text"))}</div>'
    if kind == "divider":
        return "<hr>"
    if kind == "actions" and isinstance(block.get("elements"), list):
        return _actions(block["elements"])
    if kind == "context" and isinstance(block.get("elements"), list):
        return f'<div class="small">{" ".join(_block_text(element) for element in block["elements"])}</div>'
    if kind == "section":
        fields = block.get("fields")
        rows = "".join(f"<div>{_block_text(item)}</div>" for item in fields) if isinstance(fields, list) else ""
        accessory = block.get("accessory")
        return (
            (f'<div class="body">{_block_text(block["text"])}</div>' if block.get("text") else "")
            + (f'<div class="fields">{rows}</div>' if rows else "")
            + (_actions([accessory]) if isinstance(accessory, dict) else "")
        )
    shown = json.dumps(block, ensure_ascii=False, indent=1)[:SHOWN_TEXT_CHARS]
    return f"<details><summary>{esc(kind)} block</summary><pre>{esc(shown)}</pre></details>"


def mail_card(message: JsonObject, is_open: bool) -> str:
    """Return a mail as an HTML article; ``is_open`` shows its HTML part at once."""
    status = alert_status([message.get("subject")])
    recipients = [str(address) for address in message.get("rcpt_to") or []]
    named = {str(person.get("address")) for key in ("to", "cc") for person in message.get(key) or []}
    rows: list[tuple[str, object]] = []
    for label, key in (("To", "to"), ("Cc", "cc")):
        people = message.get(key) or []
        if people:
            rows.append((label, ", ".join(
                f"{person['name']} <{person['address']}>" if person.get("name") else person.get("address", "")
                for person in people[:20]
            )))  # fmt: skip
    others = [address for address in recipients if address not in named]
    if others:
        # Bcc, or a header that says something else than the envelope: worth seeing.
        rows.append(("Delivered to", ", ".join(others[:20])))
    files = [f"{item.get('filename') or item.get('type')} ({item.get('size')} bytes)"
             for item in message.get("attachments") or []]  # fmt: skip
    if files:
        rows.append(("Attached", ", ".join(files[:20])))
    if message.get("parse_error"):
        rows.append(("Unreadable", message["parse_error"]))
    table = "".join(f"<dt>{label}</dt><dd>{esc(value)}</dd>" for label, value in rows)
    return (
        f'<article class="mail {status}" data-id="{int(message["id"])}"><div class="top">'
        f'<span class="from">{esc(message.get("from") or message.get("mail_from"))}</span>{_badge(status)}'
        f'{_when(message)}</div><div class="subject">{esc(message.get("subject") or "(no subject)")}</div>'
        f"<dl>{table}</dl>{_mail_body(message, is_open)}</article>"
    )


def _mail_body(message: JsonObject, is_open: bool) -> str:
    full = str(message.get("text") or "")
    text = esc(full[:SHOWN_TEXT_CHARS]) + ("\n…" if len(full) > SHOWN_TEXT_CHARS else "")
    if not message.get("html"):
        return f'<div class="text">{text or "<em>(empty)</em>"}</div>'
    preview = full or html_as_text(str(message["html"]))
    frame = (
        f"<details{' open' if is_open else ''}><summary>Mail as sent (HTML)"
        f'<span class="preview">{esc(" ".join(preview[:1500].split())[:300])}</span></summary>'
        f'<iframe sandbox="{SANDBOX}" loading="lazy" title="HTML part of message {int(message["id"])}" '
        f'src="/mail/{int(message["id"])}.html"></iframe></details>'
    )
    return frame + (f'<details><summary>Text part</summary><div class="text">{text}</div></details>' if full else "")


def html_as_text(markup: str) -> str:
    """Return the words of an HTML document, roughly, for a preview; takes linear time whatever it is given."""
    rest, pieces = markup[: 64 * 1024], []
    for name in ("head", "style", "script"):
        kept, lower, position = [], rest.lower(), 0
        while (start := lower.find(f"<{name}", position)) >= 0:
            if lower[start + len(name) + 1 : start + len(name) + 2].isalnum():  # <header> is not <head>
                kept.append(rest[position : start + 1])
                position = start + 1
                continue
            kept.append(rest[position:start])
            end = lower.find(f"</{name}", start)
            position = len(rest) if end < 0 else end
        rest = "".join(kept) + rest[position:]
    pieces = re.split(r"<[^<>]*>", rest)
    return " ".join(html.unescape(" ".join(pieces)).split())


def cards(kind: str, messages: Sequence[JsonObject]) -> str:
    """Return messages (oldest first) as HTML articles, newest first; one that cannot be shown does not hide others."""
    shown = []
    newest_html = next((message["id"] for message in reversed(messages) if message.get("html")), 0)
    for message in reversed(messages):
        try:
            is_open = message["id"] == newest_html
            shown.append(slack_card(message) if kind == "slack" else mail_card(message, is_open))
        except Exception as error:  # messages are untrusted; whatever is wrong with one, the page must come up
            log(f"warning: message {message['id']} cannot be shown: {type(error).__name__} {quoted(error)}")
            shown.append(
                f'<article data-id="{int(message["id"])}">This message cannot be shown. {_when(message)}</article>'
            )
    return "".join(shown)


def faults_html(faults: Mapping[str, Fault]) -> str:
    """Return what a person must know about injected faults, or nothing."""
    if not faults:
        return ""
    lines = []
    for sink, fault in faults.items():
        does = f"answers {fault.code}" if fault.code is not None else "answers"
        late = f" after {fault.delay_seconds:g} s" if fault.delay_seconds else ""
        often = f", the first {fault.times} times" if fault.times is not None else ""
        lines.append(f"{sink} {does}{late}{often} ({fault.hits} so far)")
    return (
        f"<span><strong>Faults are switched on:</strong> {esc('; '.join(lines))}. "
        "What they refuse is not shown here.</span>"
        '<button data-delete="/api/faults">Switch off</button>'
    )


def page(store: Store, faults: Mapping[str, Fault], host: str, smtp_port: int) -> str:
    """Return the whole page for people.

    Args:
        store: the messages.
        faults: the faults in force.
        host: the Host header of the request, for the example commands.
        smtp_port: the mail sink's port, for the example command.
    """
    counts = store.counts()
    base = host if re.fullmatch(r"[A-Za-z0-9.\-:\[\]]{1,255}", host) else "127.0.0.1:8025"
    steps = (
        f"<ol><li>Stop the backend: <pre>{TRY_STOP}</pre></li>"
        "<li>Wait about a minute: the alert must fire and be sent.</li>"
        f"<li>Start it again, for the &ldquo;resolved&rdquo; message: <pre>{TRY_START}</pre></li></ol>"
    )
    slack_try = f'curl -d \'payload={{"channel":"#try","text":"*Hello*"}}\' http://{base}/slack/try'
    mail_try = (
        "printf 'Subject: Hello\\n\\nIt works.\\n' | curl -sS "
        f"smtp://{base.rsplit(':', 1)[0]}:{smtp_port} --mail-from me@example.com --mail-rcpt you@example.com -T -"
    )

    def column(kind: str, title: str, note: str, example: str) -> str:
        return (
            f'<section aria-label="{title}"><h2>{title}<span class="count" id="{kind}-count">{counts[kind]}</span>'
            f"<small>{note}</small></h2>"
            f'<div class="list" id="{kind}-list">{cards(kind, store.select(kind, limit=SHOWN_PER_COLUMN))}</div>'
            f'<div class="empty"><h3>Nothing here yet</h3>To see a message arrive:{steps}'
            f"<p>Or send one by hand:</p><pre>{esc(example)}</pre></div></section>"
        )

    webhooks = (
        f'<a href="/api/messages?kind=webhook">webhook calls: <span id="webhook-count">{counts["webhook"]}</span></a>'
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Message sinks</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<noscript><meta http-equiv="refresh" content="5"></noscript>'
        '<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 '
        'viewBox=%220 0 16 16%22%3E%3Ctext y=%2213%22 font-size=%2213%22%3E%F0%9F%93%AC%3C/text%3E%3C/svg%3E">'
        f"<style>{STYLE}</style></head>"
        f'<body class="nojs" data-last="{store.last_id}" data-shown="{SHOWN_PER_COLUMN}">'
        "<header><h1>Message sinks</h1><p>What Slack and the mail server would have received. Nothing leaves this "
        f'machine.</p><span class="hooks">{webhooks}</span><span class="live" id="live">'
        '<noscript>reloads every 5 s</noscript></span><button data-delete="/api/messages">Clear all</button></header>'
        f'<div class="faults" id="faults">{faults_html(faults)}</div><main>'
        + column("slack", "Slack", f"newest first, at most {SHOWN_PER_COLUMN}", slack_try)
        + column("mail", "Mail", f"newest first, at most {SHOWN_PER_COLUMN}", mail_try)
        + f"</main><script>{SCRIPT}</script></body></html>"
    )


# --- HTTP -------------------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """One HTTP request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass
class Response:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    csp: str = DATA_CSP


class HttpError(Exception):
    """A request that cannot be served.

    Args:
        status: HTTP status of the answer.
        message: what is wrong and what to do.
        allow: for 405, the methods that would work.
    """

    def __init__(self, status: int, message: str, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.allow = allow


def json_response(value: object, status: int = 200) -> Response:
    """Return a value as a JSON answer."""
    return Response(status, json.dumps(value).encode("ascii") + b"\n")


def plain_response(status: int, text: str) -> Response:
    """Return a text as a plain answer, the form Slack uses."""
    return Response(status, text.encode("utf-8", "replace"), "text/plain; charset=utf-8")


class HttpConnection:
    """Reads requests from one connection and answers them until it is closed, idle too long or breaks the protocol."""

    def __init__(self, sinks: Sinks, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sinks = sinks
        self._reader = reader
        self._writer = writer
        self._timeout = sinks.config.timeout_seconds

    async def serve(self) -> None:
        """Serve the connection; returns when it should be closed."""
        while True:
            try:
                request = await self._read_request()
            except HttpError as error:
                await self._send(self._error(error), keep_alive=False)
                await linger(self._reader, self._writer, min(2.0, self._timeout))
                return
            if request is None:
                return
            response = await self._answer(request)
            await self._send(response, request.keep_alive, head_only=request.method == "HEAD")
            if not request.keep_alive:
                return

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._sinks.route(request)
        except HttpError as error:
            return self._error(error)
        except Exception as error:  # a bug must show as a 500 in the test that met it, not as a hang-up
            log(f"error: {request.method} {quoted(request.path)} failed: {type(error).__name__} {quoted(error)}")
            return json_response({"error": f"internal error: {type(error).__name__}"}, 500)

    @staticmethod
    def _error(error: HttpError) -> Response:
        response = json_response({"error": str(error)}, error.status)
        if error.allow:
            response.headers["Allow"] = error.allow
        return response

    async def _read_request(self) -> Request | None:
        try:
            async with asyncio.timeout(self._timeout):
                first = await self._reader.readexactly(1)
        except (asyncio.IncompleteReadError, TimeoutError):
            # In silence: a client whose next request is under way just now would take a 408 for the answer to it.
            return None
        try:
            async with asyncio.timeout(self._timeout):
                head = first + await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise HttpError(431, f"the request head is larger than {MAX_HEAD_BYTES} bytes") from None
        except TimeoutError:
            raise HttpError(408, f"no complete request head within {self._timeout:g} s") from None
        request, length = self._parse_head(head)
        if request.headers.get("expect", "").lower() == "100-continue" and length:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self._timeout):
                request.body = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError:
            return None
        except TimeoutError:
            raise HttpError(408, f"the request body did not arrive within {self._timeout:g} s") from None
        return request

    @staticmethod
    def _parse_head(head: bytes) -> tuple[Request, int]:
        lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"([A-Z]{1,20}) (/[!-~]*) HTTP/(1\.[01])", lines[0])
        if not match:
            raise HttpError(400, "this is no HTTP/1.1 request for a path")
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise HttpError(400, "a header line is malformed")
            name = name.lower()
            if name in headers and name in ("content-length", "host", "transfer-encoding"):
                raise HttpError(400, f"the header {name} came twice")
            headers[name] = value.strip()
        if "transfer-encoding" in headers:
            raise HttpError(411, "send a Content-Length; chunked bodies are not taken")
        length_text = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,12}", length_text):
            raise HttpError(400, "Content-Length is no number")
        length = int(length_text)
        if length > MAX_BODY_BYTES:
            raise HttpError(413, f"the body has {length} bytes; at most {MAX_BODY_BYTES} are taken")
        connection = headers.get("connection", "").lower()
        keep_alive = connection != "close" if match[3] == "1.1" else connection == "keep-alive"
        path, _, query = match[2].partition("?")
        return Request(match[1], path, query, headers, b"", keep_alive), length

    async def _send(self, response: Response, keep_alive: bool, head_only: bool = False) -> None:
        try:
            reason = HTTPStatus(response.status).phrase
        except ValueError:  # a fault may ask for any number
            reason = "Injected"
        head = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Content-Security-Policy": response.csp,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Connection": "keep-alive" if keep_alive else "close",
            **response.headers,
        }
        if response.status in (204, 304):  # these have no body by definition
            del head["Content-Length"]
            head_only = True
        lines = [f"HTTP/1.1 {response.status} {reason}", *(f"{name}: {value}" for name, value in head.items())]
        self._writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        if not head_only:
            self._writer.write(response.body)
        async with asyncio.timeout(self._timeout):
            await self._writer.drain()


async def linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Read what the client still sends for a moment: closing on unread bytes would take our answer from it."""
    if writer.can_write_eof():
        writer.write_eof()
    left = 8 * MAX_BODY_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left > 0 and (data := await reader.read(64 * 1024)):
                left -= len(data)


# --- Putting it together ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """The checked arguments."""

    listen: str
    http_port: int
    smtp_port: int
    state_file: Path | None
    history: int
    tls: ssl.SSLContext | None
    credentials: tuple[bytes, bytes] | None
    max_connections: int
    timeout_seconds: float


class Sinks:
    """The whole program: both servers and what they share."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = Store(config.state_file, config.history)
        self.faults: dict[str, Fault] = {}
        self.smtp_sessions: set[SmtpSession] = set()
        self._http_writers: set[asyncio.StreamWriter] = set()
        self._http_tasks: set[asyncio.Task[None]] = set()
        self._smtp_port = config.smtp_port

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            OSError: a port is taken, or the state file can be neither read nor written.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # Ports first: a second copy started by mistake must fail before it touches the first one's file.
        http = await asyncio.start_server(
            self._accept_http, self.config.listen, self.config.http_port, limit=MAX_HEAD_BYTES, start_serving=False
        )
        smtp = await loop.create_server(
            self._smtp_protocol, self.config.listen, self.config.smtp_port, start_serving=False
        )
        broken = self.store.load()
        if broken:
            log(f"warning: {broken} broken lines in {self.config.state_file} were dropped")
        http_port, self._smtp_port = (server.sockets[0].getsockname()[1] for server in (http, smtp))
        await http.start_serving()
        await smtp.start_serving()
        log(
            f"listening http={_host_port(self.config.listen, http_port)} "
            f"smtp={_host_port(self.config.listen, self._smtp_port)} "
            f"messages={sum(self.store.counts().values())} state_file={self.config.state_file or 'none'}"
        )
        await stop.wait()
        # Not wait_closed(): from Python 3.12 on it waits for every open connection.
        http.close()
        smtp.close()
        for writer in list(self._http_writers):
            writer.transport.abort()
        for session in list(self.smtp_sessions):
            if isinstance(session.transport, asyncio.WriteTransport):
                session.transport.abort()
        log("stopped")

    def accept(self, kind: str, parts: Mapping[str, Any]) -> JsonObject:
        """Keep a message, log one line about it and return it."""
        message = self.store.add(kind, parts)
        log(f"{kind} id={message['id']} {_summary(message)}")
        return message

    # SMTP

    def _smtp_protocol(self) -> asyncio.Protocol:
        if len(self.smtp_sessions) >= self.config.max_connections:
            log("warning: SMTP connection refused, there are too many")
            return SmtpRefusal()
        return SmtpSession(
            self,
            hostname="message-sinks",
            ident="allin-sinks",
            data_size_limit=MAX_BODY_BYTES,
            enable_SMTPUTF8=True,
            timeout=self.config.timeout_seconds,
            tls_context=self.config.tls,
            auth_required=self.config.credentials is not None,
            # Where TLS is to be had, a password must not come without it, as with real mail servers.
            auth_require_tls=self.config.tls is not None,
            authenticator=self._authenticate,
            loop=asyncio.get_running_loop(),
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, login: Any
    ) -> AuthResult:
        expected = self.config.credentials
        given = (login.login, login.password) if isinstance(login, LoginPassword) else (b"", b"")
        fits = expected is not None and all(
            hmac.compare_digest(mine, theirs) for mine, theirs in zip(expected, given, strict=True)
        )
        if not fits:
            log(f"warning: SMTP login refused for {quoted(given[0].decode('utf-8', 'replace'))}")
        return AuthResult(success=fits, handled=False, auth_data=login if fits else None)

    # HTTP

    def _accept_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: one that Python 3.11 makes by itself prints a traceback when the end cancels it.
        task = asyncio.get_running_loop().create_task(self._serve_http(reader, writer))
        self._http_tasks.add(task)
        task.add_done_callback(self._http_tasks.discard)

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._http_writers) >= self.config.max_connections:
            log("warning: HTTP connection refused, there are too many")
            writer.write(b"HTTP/1.1 503 Too many connections\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(OSError):
                await linger(reader, writer, seconds=0.5)
            writer.close()
            return
        self._http_writers.add(writer)
        try:
            await HttpConnection(self, reader, writer).serve()
        except OSError:
            pass  # the client went away or does not read; there is nobody to tell
        finally:
            self._http_writers.discard(writer)
            writer.close()

    async def route(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            HttpError: it cannot be served.
        """
        path = request.path
        method = "GET" if request.method == "HEAD" else request.method
        if path.startswith("/slack/") and len(path) > len("/slack/"):
            self._allow(method, "POST")
            return await self._slack(request)
        if path.startswith("/webhook/"):
            self._allow(method, "POST")
            return await self._webhook(request)
        if path == "/api/messages":
            self._allow(method, "GET", "DELETE")
            if method == "DELETE":
                return json_response({"deleted": self.store.clear()})
            return self._messages(request.query)
        if path == "/api/faults":
            self._allow(method, "GET", "PUT", "DELETE")
            return self._faults(method, request.body)
        self._allow(method, "GET")
        if path == "/":
            text = page(self.store, self.faults, request.headers.get("host", ""), self._smtp_port)
            return Response(200, text.encode(), "text/html; charset=utf-8", csp=PAGE_CSP)
        if path == "/health":
            return self._health()
        if path == "/updates":
            return self._updates(request.query)
        if match := re.fullmatch(r"/api/messages/([0-9]{1,18})", path):
            return json_response(self._message(int(match[1])))
        if match := re.fullmatch(r"/mail/([0-9]{1,18})\.html", path):
            return self._mail_html(int(match[1]))
        raise HttpError(404, "there is nothing at this path; try / or /api/messages")

    @staticmethod
    def _allow(method: str, *methods: str) -> None:
        if method not in methods:
            raise HttpError(405, f"use {' or '.join(methods)} here", allow=", ".join(methods))

    @staticmethod
    def _parameters(query: str, known: Sequence[str]) -> dict[str, str]:
        try:
            pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=10)
        except ValueError:
            raise HttpError(400, "the query is malformed") from None
        for key, value in pairs:
            if key not in known:
                raise HttpError(400, f"unknown parameter {quoted(key)}: use {', '.join(known)}")
            if key != "kind" and not re.fullmatch(r"[0-9]{1,18}", value):
                raise HttpError(400, f"{key} must be a number, not {quoted(value)}")
        return dict(pairs)

    def _messages(self, query: str) -> Response:
        wanted = self._parameters(query, ("kind", "after", "limit"))
        kind = wanted.get("kind")
        if kind is not None and kind not in KINDS:
            raise HttpError(400, f"kind must be one of {', '.join(KINDS)}, not {quoted(kind)}")
        limit = int(wanted["limit"]) if "limit" in wanted else None
        return json_response(self.store.select(kind, int(wanted.get("after", "0")), limit))

    def _message(self, number: int) -> JsonObject:
        message = self.store.get(number)
        if message is None:
            raise HttpError(404, f"there is no message {number} (any more)")
        return message

    def _mail_html(self, number: int) -> Response:
        markup = str(self._message(number).get("html") or "")
        # Links in the mail open beside the page, not inside the small frame. A doctype must stay the first thing.
        doctype = re.match(r"\s*<!doctype[^<>]{0,300}>", markup, re.IGNORECASE)
        cut = doctype.end() if doctype else 0
        text = markup[:cut] + '<base target="_blank">' + markup[cut:]
        return Response(200, text.encode("utf-8", "replace"), "text/html; charset=utf-8", csp=MAIL_CSP)

    def _health(self) -> Response:
        return json_response(
            {
                "status": "ok",
                "messages": self.store.counts(),
                "last_id": self.store.last_id,
                "faults": sorted(self.faults),
                "state_file_error": self.store.file_error or None,
            }
        )

    def _updates(self, query: str) -> Response:
        after = int(self._parameters(query, ("after",)).get("after", "0"))
        new = {kind: self.store.select(kind, after, SHOWN_PER_COLUMN) for kind in ("slack", "mail")}
        return json_response(
            {
                "last_id": self.store.last_id,
                "oldest_id": self.store.oldest_id,
                "counts": self.store.counts(),
                "faults": faults_html(self.faults),
                **{
                    kind: cards(kind, messages).replace('<article class="', '<article class="new ')
                    for kind, messages in new.items()
                },
            }
        )

    def _faults(self, method: str, body: bytes) -> Response:
        if method == "PUT":
            try:
                self.faults = parse_faults(strict_json(body))
            except ValueError as error:
                raise HttpError(400, f"faults not changed: {error}") from None
            log(f"faults set: {quoted(json.dumps({sink: fault.settings for sink, fault in self.faults.items()}), 500)}")
        elif method == "DELETE":
            self.faults = {}
            log("faults removed")
        return json_response({sink: {**fault.settings, "hits": fault.hits} for sink, fault in self.faults.items()})

    async def _fault_response(self, sink: str) -> Response | None:
        fault = self.faults.get(sink)
        if fault is None or not fault.meet():
            return None
        await asyncio.sleep(fault.delay_seconds)
        if fault.code is None:
            return None
        log(f"{sink} refused by a fault: {fault.code}")
        return plain_response(fault.code, fault.text)

    async def _slack(self, request: Request) -> Response:
        fault = await self._fault_response("slack")
        if fault:
            return fault
        try:
            parts = parse_slack(request.headers.get("content-type", ""), request.body)
        except SlackRefusalError as error:
            log(f"slack refused: {error.status} {error.word} path={quoted(request.path)}")
            return plain_response(error.status, error.word)
        self.accept("slack", {"path": request.path[:512], **parts})
        return plain_response(200, "ok")

    async def _webhook(self, request: Request) -> Response:
        fault = await self._fault_response("webhook")
        if fault:
            return fault
        try:
            body = strict_json(request.body)
        except ValueError as error:
            raise HttpError(400, f"the body must be JSON: {quoted(error)[1:-1]}") from None
        message = self.accept("webhook", {"path": request.path[:512], "body": body})
        return json_response({"id": message["id"]})


def _summary(message: JsonObject) -> str:
    """Return what the log says about a message."""
    if message["kind"] == "slack":
        titles = [attachment.get("title") or attachment.get("fallback") for attachment in message["attachments"]]
        text = next((title for title in titles if title), None) or message["text"] or "(blocks)"
        return f"channel={quoted(message['channel'])} {quoted(text)}"
    if message["kind"] == "mail":
        recipients = ", ".join(message["rcpt_to"])
        return f"from={quoted(message['mail_from'])} to={quoted(recipients)} {quoted(message['subject'])}"
    return f"path={quoted(message['path'])}"


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- Arguments --------------------------------------------------------------------------------------------------------


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"must be a whole number from {lowest} to {highest}, not {text!r}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0.1 <= float(text) <= 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0.1 to 3600, not {text!r}")
    return float(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be an IP address to listen on, such as 127.0.0.1, not {text!r}"
        ) from None


def parse_arguments(arguments: Sequence[str]) -> Config:
    """Check the command line; exits with status 2 and a clear message when something is wrong."""
    parser = argparse.ArgumentParser(
        prog="allin_sinks",
        allow_abbrev=False,
        description="Stand in for Slack and a mail server and show what they got.",
    )
    add = parser.add_argument
    add("--listen", type=_address, default="127.0.0.1", help="IP address for both ports (default %(default)s)")
    add("--http-port", type=_number(0, 65535), default=8025, help="0 takes any free one (default %(default)s)")
    add("--smtp-port", type=_number(0, 65535), default=2525, help="0 takes any free one (default %(default)s)")
    add("--state-file", type=Path, help="JSON lines; without it messages are lost at the end")
    add("--history", type=_number(1, 100_000), default=500, help="messages to keep (default %(default)s)")
    add("--smtp-tls-cert", type=Path, help="PEM certificate (chain): STARTTLS is offered")
    add("--smtp-tls-key", type=Path, help="PEM key of that certificate")
    add("--smtp-auth-file", type=Path, help="file with one line user:password: AUTH is demanded")
    add("--max-connections", type=_number(1, 10_000), default=100, help="per port (default %(default)s)")
    add("--timeout", type=_seconds, default=30.0, help="seconds an idle or slow client may take (default %(default)s)")
    given = parser.parse_args(arguments)

    if given.http_port == given.smtp_port != 0:
        parser.error(f"--http-port and --smtp-port are both {given.http_port}: give them different ports")
    if given.state_file is not None:
        _check_state_file(given.state_file, parser.error)
    return Config(
        listen=given.listen,
        http_port=given.http_port,
        smtp_port=given.smtp_port,
        state_file=given.state_file,
        history=given.history,
        tls=_tls_context(given.smtp_tls_cert, given.smtp_tls_key, parser.error),
        credentials=_credentials(given.smtp_auth_file, parser.error),
        max_connections=given.max_connections,
        timeout_seconds=given.timeout,
    )


def _check_state_file(path: Path, fail: Callable[[str], NoReturn]) -> None:
    if not path.parent.is_dir():
        fail(f"--state-file: the folder {path.parent} does not exist: create it or choose another file")
    if path.exists() and not path.is_file():
        fail(f"--state-file: {path} is not a regular file: choose another name")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        fail(f"--state-file: the folder {path.parent} is not writable for this user: change its owner or mode")


def _tls_context(cert: Path | None, key: Path | None, fail: Callable[[str], NoReturn]) -> ssl.SSLContext | None:
    if (cert is None) != (key is None):
        fail("--smtp-tls-cert and --smtp-tls-key belong together: give both or neither")
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # The empty password keeps OpenSSL from asking for one on a terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        fail(f"--smtp-tls-cert {cert} with --smtp-tls-key {key} cannot be used: {error}")
    return context


def _credentials(path: Path | None, fail: Callable[[str], NoReturn]) -> tuple[bytes, bytes] | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        fail(f"--smtp-auth-file {path} cannot be read: {error.strerror}")
    lines = content.splitlines()
    user, _, password = lines[0].partition(b":") if len(lines) == 1 else (b"", b"", b"")
    if not user or not password:
        fail(f"--smtp-auth-file {path} must hold exactly one line user:password")
    return user, password


def main(arguments: Sequence[str]) -> int:
    """Run the program and return its exit status."""
    config = parse_arguments(arguments)
    # AUTH without TLS is what a test may ask for here; aiosmtpd would warn at every connection.
    warnings.filterwarnings("ignore", message="Requiring AUTH while not requiring TLS")
    try:
        asyncio.run(Sinks(config).run())
    except OSError as error:
        print(f"allin_sinks: cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
