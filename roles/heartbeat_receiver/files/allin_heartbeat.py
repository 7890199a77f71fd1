#!/usr/bin/env python3
"""Heartbeat receiver: raises the alarm when the monitoring itself has fallen silent.

Alertmanager calls it again and again with the Watchdog, an alert that always fires. When Prometheus, Alertmanager or
what lies between them dies, the calls end, and this program, on another machine, tells people by a webhook (Slack's
form, ``{"text": ...}``) or by mail; and tells them again when the calls are back.

======================================  ===========================================================================
``POST /heartbeat/<name>[/<token>]``    a sign of life; anything but an Alertmanager message whose alerts are over
``GET /``                               what is expected and what was heard, as JSON
``GET /health``                         ``ok``: this program lives
``GET /metrics``                        the same for Prometheus (let a Prometheus that watches this one scrape it)
======================================  ===========================================================================

It keeps nothing: after a start every heartbeat is given its full time once more. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import smtplib
import socket
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

MAX_BODY_BYTES: Final = 1024 * 1024
REQUEST_SECONDS: Final = 10.0
CHECK_SECONDS: Final = 1.0
IMPLICIT_TLS_PORT: Final = 465
"""A mail server speaks TLS there from the first byte (RFC 8314), and STARTTLS, where it can, elsewhere."""
RETRY_SECONDS: Final = 15.0
"""Pause after a message that could not be sent."""
WAIT_SECONDS: Final = 3 * REQUEST_SECONDS
"""How long the watch waits for what sends; what takes longer goes on beside it."""


def log(line: str) -> None:
    """Write one line to stdout."""
    # A closed stdout must not stop the watch.
    with contextlib.suppress(OSError):
        print(line, flush=True)


def shown(moment: float) -> str:
    """Return a Unix time as people read it."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def reason(error: Exception) -> str:
    """Return why something could not be sent. An address may hold a secret, so what may name it is not repeated."""
    if isinstance(error, (OSError, smtplib.SMTPException)):
        return str(getattr(error, "reason", error))
    return type(error).__name__


# --- What is expected -------------------------------------------------------------------------------------------------


@dataclass
class Heartbeat:
    """One sender: how long it may be silent, and when it was heard."""

    name: str
    limit_seconds: float
    heard: float
    """Unix time of the last call; of the start of this program before the first one."""
    calls: int = 0
    missing: bool = False
    told: float = 0.0
    """Unix time of the last message that it is missing."""
    due: dict[str, str] = field(default_factory=dict)
    """Channel -> message that it has not taken yet."""
    next_try: float = 0.0


class Watch:
    """Decides when somebody must be told, and tells them.

    Args:
        limits: seconds by name of the heartbeat.
        channels: what sends a text, by name; whatever it raises, the text counts as not sent.
        repeat_seconds: how often to say it again while a heartbeat is missing.
        now: the clock, in Unix time.
    """

    def __init__(
        self,
        limits: Mapping[str, float],
        channels: Mapping[str, Callable[[str, str], None]],
        repeat_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._channels = channels
        self._repeat_seconds = repeat_seconds
        self._now = now
        self._lock = threading.Lock()
        self._sending: set[str] = set()
        self.heartbeats = {name: Heartbeat(name, limit, now()) for name, limit in limits.items()}
        self.sent = {(channel, result): 0 for channel in channels for result in ("success", "error")}

    def beat(self, name: str) -> None:
        """Note a sign of life. Raises KeyError for a name that is not expected."""
        with self._lock:
            heartbeat = self.heartbeats[name]
            heartbeat.heard = self._now()
            heartbeat.calls += 1

    def look(self) -> None:
        """See which heartbeats are missing or back, and send what is to be said."""
        due: dict[str, list[tuple[Heartbeat, str]]] = {}
        with self._lock:
            for heartbeat in self.heartbeats.values():
                self._judge(heartbeat)
                if self._now() >= heartbeat.next_try:
                    for channel, text in heartbeat.due.items():
                        due.setdefault(channel, []).append((heartbeat, text))
            for channel in self._sending:
                due.pop(channel, None)
            self._sending.update(due)
        # Each channel on its own: one that hangs keeps neither the other nor the watch.
        started = []
        for channel, messages in due.items():
            thread = threading.Thread(target=self._send_all, args=(channel, messages), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had
                self._send_all(channel, messages)
            else:
                started.append(thread)
        latest = time.monotonic() + WAIT_SECONDS
        for thread in started:
            thread.join(max(0.0, latest - time.monotonic()))

    def _send_all(self, channel: str, messages: list[tuple[Heartbeat, str]]) -> None:
        try:
            for heartbeat, text in messages:
                self._send(heartbeat, channel, text)
        finally:
            with self._lock:
                self._sending.discard(channel)

    def _judge(self, heartbeat: Heartbeat) -> None:
        now = self._now()
        silent = now - heartbeat.heard
        was_missing, heartbeat.missing = heartbeat.missing, silent > heartbeat.limit_seconds
        if heartbeat.missing and (not was_missing or now - heartbeat.told >= self._repeat_seconds):
            heartbeat.told = now
            heard = "Last heard" if heartbeat.calls else "Never heard; waiting since"
            text = (
                f"[MISSING] Heartbeat {heartbeat.name}: no sign of life from the monitoring for {silent:.0f} s."
                f" {heard}: {shown(heartbeat.heard)}. Until it is back no alert reaches anybody."
                " Look at Prometheus and Alertmanager, and at the network between them and here."
            )
        elif was_missing and not heartbeat.missing:
            text = (
                f"[RESOLVED] Heartbeat {heartbeat.name}: the monitoring is heard again since {shown(heartbeat.heard)}."
            )
        else:
            return
        log(text)
        # A newer message takes the place of one that did not get through.
        heartbeat.due = dict.fromkeys(self._channels, text)
        heartbeat.next_try = 0.0

    def _send(self, heartbeat: Heartbeat, channel: str, text: str) -> None:
        try:
            self._channels[channel](text.partition(":")[0], text)
        except Exception as error:  # nothing that a server answers may end the watch
            log(f"error: {channel} did not take the message ({reason(error)}), next try soon")
            with self._lock:
                self.sent[channel, "error"] += 1
                heartbeat.next_try = self._now() + RETRY_SECONDS
            return
        with self._lock:
            self.sent[channel, "success"] += 1
            if heartbeat.due.get(channel) == text:
                del heartbeat.due[channel]

    def metrics(self) -> str:
        """Return everything as Prometheus reads it."""
        lines = []

        def metric(name: str, kind: str, text: str, samples: Mapping[str, float]) -> None:
            lines.extend([f"# HELP {name} {text}", f"# TYPE {name} {kind}"])
            lines.extend(f"{name}{{{labels}}} {value:.17g}" for labels, value in samples.items())

        beats = {f'name="{one.name}"': one for one in self.heartbeats.values()}
        metric(
            "allin_heartbeat_missing",
            "gauge",
            "1 while the heartbeat is missing.",
            {k: float(b.missing) for k, b in beats.items()},
        )
        metric(
            "allin_heartbeat_last_seconds",
            "gauge",
            "Unix time of the last call.",
            {k: b.heard for k, b in beats.items()},
        )
        metric(
            "allin_heartbeat_limit_seconds", "gauge", "Longest silence.", {k: b.limit_seconds for k, b in beats.items()}
        )
        metric("allin_heartbeat_calls_total", "counter", "Calls.", {k: b.calls for k, b in beats.items()})
        sent = {
            f'channel="{channel}",status="{status}"': float(count) for (channel, status), count in self.sent.items()
        }
        metric("allin_heartbeat_messages_total", "counter", "Messages to people, by how sending ended.", sent)
        return "\n".join(lines) + "\n"

    def status(self) -> str:
        """Return what is expected and what was heard, as JSON."""
        return json.dumps(
            {
                one.name: {
                    "missing": one.missing,
                    "last_heard": shown(one.heard) if one.calls else None,
                    "calls": one.calls,
                    "limit_seconds": one.limit_seconds,
                    "not_told_yet": sorted(one.due),
                }
                for one in self.heartbeats.values()
            },
            indent=2,
        )


# --- Whom to tell -----------------------------------------------------------------------------------------------------


def webhook(url_file: Path) -> Callable[[str, str], None]:
    """Return what posts a text to an address, in the form that Slack takes. The file is read each time."""

    def send(_: str, text: str) -> None:
        request = urllib.request.Request(  # noqa: S310 - the operator's own address
            url_file.read_text().strip(),
            data=json.dumps({"text": text}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS):  # noqa: S310
            pass

    return send


def mail(arguments: argparse.Namespace) -> Callable[[str, str], None]:
    """Return what sends a text by mail."""
    host, _, port = arguments.smtp.rpartition(":")

    def send(subject: str, text: str) -> None:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = subject, arguments.mail_from, ", ".join(arguments.mail_to)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text + "\n")
        address, seconds, trust = (host.strip("[]"), int(port)), REQUEST_SECONDS, ssl.create_default_context()
        implicit_tls = int(port) == IMPLICIT_TLS_PORT
        with (
            smtplib.SMTP_SSL(*address, timeout=seconds, context=trust)
            if implicit_tls
            else smtplib.SMTP(*address, timeout=seconds)
        ) as client:
            if not implicit_tls and not arguments.smtp_plain:
                client.starttls(context=trust)
            if arguments.smtp_user:
                client.login(arguments.smtp_user, arguments.smtp_password_file.read_text().strip())
            client.send_message(message)

    return send


# --- HTTP -------------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Takes the calls."""

    daemon_threads = True
    watch: Watch
    token_file: Path | None = None


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    timeout = REQUEST_SECONDS
    server_version = "allin-heartbeat"
    sys_version = ""

    def do_GET(self) -> None:
        """Show what is heard."""
        pages: dict[str, tuple[str, Callable[[], str]]] = {
            "/": ("application/json", self.server.watch.status),
            "/health": ("text/plain", lambda: "ok\n"),
            "/metrics": ("text/plain; version=0.0.4", self.server.watch.metrics),
        }
        if self.path in pages:
            kind, content = pages[self.path]
            self._answer(HTTPStatus.OK, content(), kind)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there is /, /health and /metrics\n")

    def do_POST(self) -> None:
        """Take a sign of life."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large, or of unknown length\n")
            return
        body = self.rfile.read(int(length))
        parts = self.path.strip("/").split("/")
        token = self.server.token_file.read_text().strip() if self.server.token_file else ""
        given = parts[2] if len(parts) == 3 else ""
        known = len(parts) in (2, 3) and parts[0] == "heartbeat" and parts[1] in self.server.watch.heartbeats
        if not known or not hmac.compare_digest(token.encode(), given.encode()):
            # The same for a wrong name and a wrong token: a stranger learns nothing.
            self._answer(HTTPStatus.NOT_FOUND, "no such heartbeat, or not with this token\n")
        elif is_over(body):
            self._answer(HTTPStatus.OK, "that is no sign of life: the alert is over\n")
        else:
            self.server.watch.beat(parts[1])
            self._answer(HTTPStatus.OK, "heard\n")

    def _answer(self, status: HTTPStatus, content: str, kind: str = "text/plain") -> None:
        body = content.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's names
        """Say nothing of each call; the address has the token in it."""


def is_over(body: bytes) -> bool:
    """Say whether a body is an Alertmanager message of alerts that are all over."""
    try:
        message = json.loads(body)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("status") == "resolved"


# --- The program ------------------------------------------------------------------------------------------------------


def expectation(text: str) -> tuple[str, float]:
    """Return name and limit of NAME=SECONDS. Raises argparse.ArgumentTypeError."""
    name, _, seconds = text.partition("=")
    try:
        limit = float(seconds)
    except ValueError:
        limit = 0.0
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not 0 < limit < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SECONDS, such as production=300")
    return name, limit


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's settings; end the process with a message where they make no sense."""
    parser = argparse.ArgumentParser(description="Raises the alarm when the monitoring itself has fallen silent.")
    parser.add_argument("--listen", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8095, help="TCP port, 0 for any (default: %(default)s)")
    parser.add_argument("--expect", type=expectation, action="append", required=True, metavar="NAME=SECONDS",
                        help="a heartbeat, and how long it may be silent")  # fmt: skip
    parser.add_argument("--token-file", type=Path, help="file with what must stand behind the name")
    parser.add_argument(
        "--repeat-seconds", type=float, default=3600, help="say it again so often (default: %(default)s)"
    )
    parser.add_argument("--webhook-url-file", type=Path, help="file with the address of a webhook, in Slack's form")
    parser.add_argument("--mail-to", action="append", default=[], help="recipient; repeatable")
    parser.add_argument("--mail-from", default="", help="sender")
    parser.add_argument("--smtp", default="", metavar="HOST:PORT", help="mail server")
    parser.add_argument("--smtp-plain", action="store_true", help="without STARTTLS; port 465 speaks TLS anyway")
    parser.add_argument("--smtp-user", default="", help="account at the mail server")
    parser.add_argument("--smtp-password-file", type=Path, help="file with its password")
    settings = parser.parse_args(arguments)
    if not settings.webhook_url_file and not settings.mail_to:
        parser.error("nobody would be told: give --webhook-url-file or --mail-to")
    if settings.mail_to and not (settings.mail_from and settings.smtp.rpartition(":")[2].isdecimal()):
        parser.error("mail needs --mail-from and --smtp HOST:PORT")
    if settings.smtp_user and not settings.smtp_password_file:
        parser.error("--smtp-user needs --smtp-password-file")
    return settings


def main(arguments: list[str]) -> None:
    """Listen and watch until the process is ended."""
    settings = parse(arguments)
    channels: dict[str, Callable[[str, str], None]] = {}
    if settings.webhook_url_file:
        channels["webhook"] = webhook(settings.webhook_url_file)
    if settings.mail_to:
        channels["mail"] = mail(settings)
    if ":" in settings.listen:
        Server.address_family = socket.AF_INET6
    server = Server((settings.listen.strip("[]"), settings.port), Handler)
    server.watch = Watch(dict(settings.expect), channels, settings.repeat_seconds)
    server.token_file = settings.token_file
    log(f"listening on port {server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        try:
            server.watch.look()
        except Exception as error:  # a new start would give every heartbeat its full time once more
            log(f"error: the watch could not look ({reason(error)}), next try soon")
        time.sleep(CHECK_SECONDS)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
