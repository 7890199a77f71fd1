"""The heartbeat receiver as a process: a dead Prometheus or Alertmanager is noticed, and so is its return."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.alert_path.stack import ROOT, SUITES, Stack, call, free_port, until

PROGRAM = ROOT / "roles/heartbeat_receiver/files/allin_heartbeat.py"
TOKEN = "SECRET-token"
LIMIT_SECONDS = 4

WATCHDOG = {"groups": [{"name": "watchdog", "rules": [{"alert": "Watchdog", "expr": "vector(1)"}]}]}


def alertmanager(url: str) -> str:
    """The Watchdog to the receiver every second, as the role alertmanager routes it every minute."""
    hook = {"name": "heartbeat", "webhook_configs": [{"url": url, "send_resolved": False}]}
    watchdog = {"matchers": ["alertname = Watchdog"], "receiver": "heartbeat", "group_wait": "0s"}
    return yaml.safe_dump(
        {
            "route": {
                "receiver": "nobody",
                "routes": [watchdog | {"group_interval": "1s", "repeat_interval": "500ms"}],
            },
            "receivers": [{"name": "nobody"}, hook],
        }
    )


class Receiver:
    """A running receiver that tells the sinks of a stack."""

    def __init__(self, stack: Stack, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "token").write_text(TOKEN + "\n")
        (folder / "webhook").write_text(f"{stack.sinks}/slack/heartbeat\n")
        smtp = re.search(r"smtp=(\S+)", stack.log("sinks"))
        assert smtp
        self.log = folder / "log"
        command = [
            *(sys.executable, "-X", "dev", "-W", "error", str(PROGRAM), "--port", str(self.port)),
            *("--expect", f"allin={LIMIT_SECONDS}", "--token-file", str(folder / "token"), "--repeat-seconds", "600"),
            *("--webhook-url-file", str(folder / "webhook")),
            *("--mail-to", "ops@example.com", "--mail-from", "hb@example.com", "--smtp", smtp[1], "--smtp-plain"),
            *arguments,
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until(lambda: call(f"{self.url}/health") == "ok\n", f"the receiver serves: {self.log.read_text()}")

    def beat(self, name: str = "allin", token: str = TOKEN, body: object = None) -> str:
        return call(f"{self.url}/heartbeat/{name}" + (f"/{token}" if token else ""), body, "POST")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(call(f"{self.url}/"))["allin"]
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=20)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()
        assert TOKEN not in self.log.read_text()


@pytest.fixture(scope="module", params=SUITES)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Otherwise Alertmanager holds on to the last Watchdog for four minutes.
    flags = ("--rules.alert.resend-delay=1s",)
    stack = Stack(tmp_path_factory.mktemp("stack") / request.param, request.param, flags=flags)
    yield stack
    stack.stop()


@pytest.fixture
def receiver(stack: Stack, tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(stack, tmp_path / "receiver")
    yield receiver
    receiver.stop()


def arrives(stack: Stack, word: str, count: int) -> None:
    """Both, Slack and mail, have got `count` messages with this word."""
    for kind in ("slack", "mail"):

        def came(kind: str = kind) -> bool:
            return len([one for one in stack.messages(kind) if word in json.dumps(one)]) == count

        until(came, f"{count} of {word} by {kind}: {stack.messages(kind)}")


def test_the_death_of_each_is_noticed_and_so_is_its_return(stack: Stack, receiver: Receiver) -> None:
    """Prevents: a monitoring that is dead and therefore says nothing."""
    stack.configure_alertmanager(0, alertmanager(f"{receiver.url}/heartbeat/allin/{TOKEN}"))
    call(f"{stack.urls['alertmanager0']}/-/reload", {})
    (stack.folder / "rules/80-watchdog.rules.yml").write_text(json.dumps(WATCHDOG))
    stack.processes["prometheus"].send_signal(1)
    until(lambda: receiver.status()["calls"] > 2, "calls arrive")
    until(lambda: not receiver.status()["missing"], "it is not missing")
    # The start may have taken longer than this test's short limit.
    before = len([one for one in stack.messages("slack") if "MISSING" in json.dumps(one)])
    arrives(stack, "[RESOLVED]", before)

    for number, name in enumerate(("prometheus", "alertmanager0"), start=before + 1):
        stack.kill(name)
        arrives(stack, "[MISSING]", number)
        assert receiver.status()["missing"] is True
        assert 'allin_heartbeat_missing{name="allin"} 1' in call(f"{receiver.url}/metrics")
        stack.start_again(name)
        arrives(stack, "[RESOLVED]", number)
        assert receiver.status()["missing"] is False
    text = json.dumps(stack.messages("slack"))
    assert "Until it is back no alert reaches anybody" in text


@pytest.fixture(scope="module")
def only_sinks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "sid", "sid")
    yield stack
    stack.stop()


@pytest.fixture
def alone(only_sinks: Stack, tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(only_sinks, tmp_path / "receiver")
    yield receiver
    receiver.stop()


@pytest.mark.parametrize(("name", "token"), [("allin", "wrong"), ("allin", ""), ("other", TOKEN)])
def test_a_stranger_cannot_say_that_all_is_well(alone: Receiver, name: str, token: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        alone.beat(name, token)
    assert alone.status()["calls"] == 0


def test_the_end_of_the_watchdog_is_no_sign_of_life(alone: Receiver) -> None:
    assert "no sign of life" in alone.beat(body={"status": "resolved", "alerts": []})
    assert alone.status()["calls"] == 0
    assert alone.beat(body={"status": "firing", "alerts": []}) == "heard\n"
    # Whatever else may call, such as curl from a timer.
    assert alone.beat() == "heard\n"
    assert alone.status()["calls"] == 2


def test_a_message_that_is_refused_is_sent_again_and_only_there(only_sinks: Stack, alone: Receiver) -> None:
    only_sinks.fault(slack={"status": 500, "times": 1})
    until(lambda: alone.status()["missing"], "it is missing")
    until(lambda: alone.status()["not_told_yet"] == ["webhook"], "mail has taken it, the webhook has not")
    until(lambda: alone.status()["not_told_yet"] == [], "the webhook has taken it")
    metrics = call(f"{alone.url}/metrics")
    for line in ('channel="webhook",status="error"} 1', 'channel="webhook",status="success"} 1'):
        assert f"allin_heartbeat_messages_total{{{line}" in metrics
    assert 'channel="mail",status="success"} 1' in metrics


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something on a port of its own that treats each connection like this."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def nonsense(text: bytes) -> Callable[[socket.socket], None]:
    """Take a request and answer this."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text)

    return answer


def never_ends(connection: socket.socket) -> None:
    """Answer so slowly that no read is ever too late."""
    for _ in range(60):
        connection.sendall(b"H")
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (nonsense(b"SSH-2.0-OpenSSH_9.2\r\n"), "/SECRET-token"),  # BadStatusLine
        (nonsense(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "/SECRET-token"),  # LineTooLong
        (nonsense(b""), "/SECRET-token"),  # RemoteDisconnected
        (nonsense(b""), "/SECRET-token with a space"),  # InvalidURL
        (nonsense(b""), ":SECRET-token/"),  # InvalidURL
        (never_ends, "/SECRET-token"),
    ],
    ids=["no HTTP", "long line", "empty", "space", "port", "never ends"],
)
def test_what_a_webhook_answers_keeps_neither_the_mail_nor_the_watch(
    only_sinks: Stack, tmp_path: Path, answer: Callable[[socket.socket], None], path: str
) -> None:
    """Prevents: a program that dies when it must raise the alarm, is started again, and waits from the beginning."""
    with server(answer) as port:
        receiver = Receiver(only_sinks, tmp_path / "receiver")
        try:
            separator = "" if path.startswith(":") else f":{port}"
            (tmp_path / "receiver/webhook").write_text(f"http://127.0.0.1{separator}{path}\n")
            before = len(only_sinks.messages("mail"))
            until(lambda: receiver.status()["missing"], "it is missing")
            until(lambda: len(only_sinks.messages("mail")) > before, "the mail has come")
            until(lambda: "mail" not in receiver.status()["not_told_yet"], "it is known that the mail has come")
            assert call(f"{receiver.url}/health") == "ok\n"
            assert receiver.process.poll() is None
        finally:
            receiver.stop()


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("allin_heartbeat", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["allin_heartbeat"] = module
    spec.loader.exec_module(module)
    return module


def test_it_says_it_again_after_a_while_and_not_before(module: ModuleType) -> None:
    clock = [1000.0]
    said: list[str] = []
    watch = module.Watch({"a": 60.0, "b": 500.0}, {"x": lambda _, text: said.append(text)}, 600.0, lambda: clock[0])
    for moment, number in ((1060, 0), (1061, 1), (1400, 1), (1660, 2), (1661, 3), (1662, 3)):
        clock[0] = moment
        watch.look()
        assert len(said) == number, (moment, said)
    assert [text.partition(":")[0] for text in said] == [
        "[MISSING] Heartbeat a",
        "[MISSING] Heartbeat b",
        "[MISSING] Heartbeat a",
    ]
    assert "Never heard; waiting since" in said[0]
    watch.beat("b")
    watch.look()
    assert said[-1].startswith("[RESOLVED] Heartbeat b")


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate of 127.0.0.1 that it has signed itself, and its key."""
    files = (str(folder / "certificate"), str(folder / "key"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.mark.parametrize("plain", [False, True], ids=["require_tls", "smtp_plain"])
def test_port_465_speaks_tls_from_the_first_byte(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    """Prevents: a smarthost that is right for Alertmanager and of no use here."""
    files = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    heard: list[str] = []

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure, secure.makefile("rwb", 0) as stream:
            stream.write(b"220 mail.test\r\n")
            while not heard or heard[-1] != "QUIT":
                heard.append(stream.readline().decode().strip())
                verb = heard[-1].partition(" ")[0].upper()
                if verb == "EHLO":
                    stream.write(b"250-mail.test\r\n250 AUTH PLAIN\r\n")
                elif verb == "AUTH":
                    stream.write(b"235 welcome\r\n")
                elif verb == "DATA":
                    stream.write(b"354 go on\r\n")
                    while heard[-1] != ".":
                        heard.append(stream.readline().decode().strip())
                    stream.write(b"250 taken\r\n")
                else:
                    stream.write(b"221 bye\r\n" if verb == "QUIT" else b"250 fine\r\n")

    (tmp_path / "password").write_text("SECRET-password\n")
    with server(answer) as port:
        monkeypatch.setattr(module, "IMPLICIT_TLS_PORT", port)
        arguments = module.parse(
            [
                *("--expect", "a=60", "--mail-to", "ops@mail.test", "--mail-from", "hb@mail.test"),
                *("--smtp", f"127.0.0.1:{port}", "--smtp-user", "hb"),
                *("--smtp-password-file", str(tmp_path / "password"), *(["--smtp-plain"] if plain else [])),
            ]
        )
        # Whose certificate nobody vouches for, gets neither password nor mail.
        with pytest.raises(ssl.SSLCertVerificationError):
            module.mail(arguments)("x", "x")
        assert not heard
        monkeypatch.setenv("SSL_CERT_FILE", files[0])
        module.mail(arguments)("[MISSING] Heartbeat a", "no sign of life")
    assert "STARTTLS" not in [line.upper() for line in heard]
    assert "Subject: [MISSING] Heartbeat a" in heard
    assert "no sign of life" in heard


@pytest.mark.parametrize(
    "arguments",
    [
        ["--expect", "a=60"],
        ["--expect", "a", "--webhook-url-file", "x"],
        ["--expect", "a/b=60", "--webhook-url-file", "x"],
        ["--expect", "a=0", "--webhook-url-file", "x"],
        ["--expect", "a=60", "--mail-to", "x@y"],
        ["--webhook-url-file", "x"],
    ],
)
def test_a_command_line_that_would_watch_nothing_or_tell_nobody_is_refused(
    module: ModuleType, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit):
        module.parse(arguments)
