"""Arguments, state file, limits and signals of the running program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sinks.conftest import Sink


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program with arguments that it should refuse."""
    return subprocess.run(
        [sys.executable, program, *map(str, arguments)], capture_output=True, text=True, timeout=10, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http-port", "65536"], "--http-port: must be a whole number from 0 to 65535, not '65536'"),
        (["--smtp-port", "-1"], "--smtp-port"),
        (["--http-port", "8025", "--smtp-port", "8025"], "give them different ports"),
        (["--listen", "example.com"], "--listen: must be an IP address"),
        (["--history", "0"], "--history"),
        (["--timeout", "nan"], "--timeout"),
        (["--max-connections", "x"], "--max-connections"),
        (["--state-file", "/nonexistent/x.jsonl"], "the folder /nonexistent does not exist: create it"),
        (["--state-file", "/tmp"], "is not a regular file"),
        (["--smtp-tls-cert", "/x"], "belong together"),
        (["--smtp-tls-cert", "/x", "--smtp-tls-key", "/y"], "cannot be used"),
        (["--smtp-auth-file", "/nonexistent"], "cannot be read"),
        (["--smtp-auth-file", "/dev/null"], "exactly one line user:password"),
        (["--hist", "5"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    sinks_module: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as end:
        sinks_module.parse_arguments(arguments)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "user", "user:", ":password", "a:b\nc:d\n"])
def test_wrong_login_files_are_refused(
    sinks_module: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    (tmp_path / "login").write_text(content)
    with pytest.raises(SystemExit):
        sinks_module.parse_arguments(["--smtp-auth-file", str(tmp_path / "login")])
    assert "exactly one line user:password" in capsys.readouterr().err


def test_the_program_ends_with_status_2_on_wrong_arguments(program: Path) -> None:
    result = run(program, "--history", "many")
    assert result.returncode == 2
    assert "--history: must be a whole number from 1 to 100000, not 'many'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_named_and_the_state_left_alone(
    start_sink: Callable[..., Sink], program: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state.jsonl"
    first = start_sink("--state-file", state)
    first.slack({"text": "kept"})
    before = state.read_bytes()
    result = run(program, "--http-port", str(first.http_port), "--smtp-port", "0", "--state-file", state)
    assert result.returncode == 1
    assert str(first.http_port) in result.stderr
    assert "Traceback" not in result.stderr
    assert state.read_bytes() == before


def test_restart_keeps_messages_and_ids(start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    first = start_sink("--state-file", state)
    first.slack({"channel": "#größe", "text": "one"})
    first.mail("Subject: two\n\nx")
    before = first.request("GET", "/api/messages").json()
    assert first.stop() == 0
    second = start_sink("--state-file", state)
    assert second.request("GET", "/api/messages").json() == before
    second.slack({"text": "three"})
    assert [message.id for message in second.client.messages()] == [1, 2, 3]
    second.client.clear()
    second.stop(signal.SIGKILL)
    third = start_sink("--state-file", state)
    assert third.client.messages() == []
    third.slack({"text": "four"})
    assert [message.id for message in third.client.messages()] == [4]
    assert state.stat().st_mode & 0o777 == 0o600


def test_broken_lines_in_the_state_are_dropped(start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    good = {"id": 7, "kind": "slack", "received": "2026-01-02T03:04:05.678Z", "text": "good"}
    lines = [
        json.dumps({**good, "id": 6}),
        "not json",
        '{"id": "8", "kind": "slack"}',
        '{"id": 9, "kind": "fax"}',
        "[]",
        json.dumps(good),
        json.dumps({**good, "text": "same id"}),
        json.dumps(good)[:40],
    ]
    state.write_text("\n".join(lines))
    sink = start_sink("--state-file", state)
    assert "6 broken lines" in sink.wait_for_line("broken lines")[0] or "6 broken lines" in sink.output()
    assert [(message.id, message["text"]) for message in sink.client.messages()] == [(6, "good"), (7, "good")]
    # Half a message (no attachments, no channel) must still be shown.
    assert sink.request("GET", "/").text.count("<article") == 2
    sink.slack({"text": "after"})
    sink.stop()
    assert [message.id for message in start_sink("--state-file", state).client.messages()] == [6, 7, 8]


def test_history_and_file_stay_bounded(start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    sink = start_sink("--state-file", state, "--history", "5")
    for number in range(40):
        sink.slack({"text": f"n{number}"})
        assert len(state.read_text().splitlines()) <= 12
    assert [message["text"] for message in sink.client.messages()] == ["n35", "n36", "n37", "n38", "n39"]
    sink.stop()
    assert [m["text"] for m in start_sink("--state-file", state, "--history", "2").client.messages()] == ["n38", "n39"]


def test_kept_bytes_are_bounded(start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    sink = start_sink("--state-file", tmp_path / "state.jsonl")
    text = "x" * 1_000_000
    for _ in range(70):
        assert sink.slack({"text": text}).text == "ok"
    kept = sink.request("GET", "/health").json()["messages"]["slack"]
    assert 60 <= kept <= 67
    assert (tmp_path / "state.jsonl").stat().st_size < 140 * 1024 * 1024


def test_messages_are_taken_when_the_state_cannot_be_written(start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = start_sink("--state-file", folder / "state.jsonl")
    (folder / "state.jsonl").unlink()
    folder.rmdir()
    assert sink.slack({"text": "x"}).text == "ok"
    assert "No such file" in sink.request("GET", "/health").json()["state_file_error"]
    sink.wait_for_line("error: cannot write")
    folder.mkdir()
    assert sink.slack({"text": "y"}).text == "ok"
    assert sink.request("GET", "/health").json()["state_file_error"] is None
    sink.stop()
    again = start_sink("--state-file", folder / "state.jsonl")
    assert [message["text"] for message in again.client.messages()] == ["x", "y"]


def test_a_line_is_logged_per_message_and_cannot_be_forged(start_sink: Callable[..., Sink]) -> None:
    sink = start_sink()
    sink.slack({"channel": "#a", "text": "one\n2026-01-01T00:00:00.000Z mail id=99 \x1b[31m"})
    sink.mail("Subject: two\n\nx")
    sink.wait_for_line(r'^\S+Z slack id=1 channel="#a" "one\\n2026.*\\u001b\[31m"$')
    sink.wait_for_line(r'^\S+Z mail id=2 from="alerts@example\.com" to="ops@example\.com" "two"$')
    assert len(sink.output().splitlines()) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_at_once_even_with_clients_in_the_middle(start_sink: Callable[..., Sink], number: int) -> None:
    sink = start_sink()
    sink.client.fault(slack={"delay_seconds": 60})
    with (
        socket.create_connection(("127.0.0.1", sink.http_port)) as slow,
        socket.create_connection(("127.0.0.1", sink.http_port)) as half,
        socket.create_connection(("127.0.0.1", sink.smtp_port)) as mail,
    ):
        slow.sendall(b'POST /slack/x HTTP/1.1\r\nContent-Length: 12\r\n\r\n{"text":"x"}')
        half.sendall(b"POST /slack/x HTTP/1.1\r\nContent-Le")
        mail.recv(100)
        while not sink.client.fault_hits()["slack"]:
            time.sleep(0.01)
        start = time.monotonic()
        assert sink.stop(number) == 0
        assert time.monotonic() - start < 10
    assert "stopped" in sink.output()
    assert "Traceback" not in sink.output()


def test_idle_and_slow_clients_are_hung_up_on(start_sink: Callable[..., Sink]) -> None:
    sink = start_sink("--timeout", "0.4")
    with (
        socket.create_connection(("127.0.0.1", sink.http_port), timeout=20) as head,
        socket.create_connection(("127.0.0.1", sink.http_port), timeout=20) as body,
        socket.create_connection(("127.0.0.1", sink.http_port), timeout=20) as idle,
        socket.create_connection(("127.0.0.1", sink.smtp_port), timeout=20) as mail,
    ):
        idle.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        head.sendall(b"GET /health HT")
        body.sendall(b"POST /slack/x HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
        assert head.recv(100).startswith(b"HTTP/1.1 408")
        assert body.recv(100).startswith(b"HTTP/1.1 408")
        # Without a word: who sends the next request at that moment would take it for the answer.
        assert b"".join(iter(lambda: idle.recv(4096), b"")).count(b"HTTP/1.1") == 1
        assert mail.recv(100).startswith(b"220 ")
        assert mail.recv(100) == b""


def test_connections_are_bounded(start_sink: Callable[..., Sink]) -> None:
    sink = start_sink("--max-connections", "3")
    http = [socket.create_connection(("127.0.0.1", sink.http_port), timeout=20) for _ in range(3)]
    mail = [socket.create_connection(("127.0.0.1", sink.smtp_port), timeout=20) for _ in range(3)]
    for client in http:
        client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert client.recv(20).startswith(b"HTTP/1.1 200")
    for client in mail:
        assert client.recv(20).startswith(b"220")
    try:
        assert sink.request("GET", "/health").status == 503
        with socket.create_connection(("127.0.0.1", sink.smtp_port), timeout=20) as refused:
            assert refused.recv(100).startswith(b"421 ")
            assert refused.recv(100) == b""
    finally:
        for client in (*http, *mail):
            client.close()
    # The places come free again.
    deadline = time.monotonic() + 20
    while sink.request("GET", "/health").status != 200:
        assert time.monotonic() < deadline
    with sink.smtp() as again:
        assert again.noop()[0] == 250


def test_works_without_the_environment(program: Path) -> None:
    """Under systemd there is no HOME, no locale and no terminal."""
    process = subprocess.Popen(
        [sys.executable, "-I", program, "--http-port", "0", "--smtp-port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath},
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert "listening http=127.0.0.1:" in line
