"""The module http_wait, run as Ansible runs it, against a small server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.module_process import said_by

MODULE = Path(__file__).parents[2] / "plugins/modules/http_wait.py"

Answer = Callable[[int], tuple[int, str, str]]  # number of the request -> status, content type, body


class Server(ThreadingHTTPServer):
    """Answers each request with what `answer` says of its number, counted from 1."""

    answer: Answer
    requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        status, kind, body = self.server.answer(self.server.requests)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
        return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(**arguments: Any) -> dict[str, Any]:
    """Run the module as a process; return what it said."""
    return said_by(MODULE, arguments)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/"


def test_a_good_answer_is_returned_at_once(server: Server) -> None:
    server.answer = lambda _: (200, "application/json", '{"version": "1.2"}')
    result = run(url=url(server))
    assert (result["status"], result["json"], result["attempts"]) == (200, {"version": "1.2"}, 1)
    assert result["changed"] is False


def test_it_waits_for_the_status(server: Server) -> None:
    server.answer = lambda number: (503 if number < 3 else 200, "text/plain", "")
    assert run(url=url(server))["attempts"] == 3


def test_it_waits_for_what_must_be_there_and_for_what_must_go(server: Server) -> None:
    server.answer = lambda number: (200, "text/plain", f"# time\ntime {min(number, 4)}\nok {int(number > 2)}\n")
    assert run(url=url(server), present="^ok 1$")["attempts"] == 3
    server.requests = 0
    assert run(url=url(server), present="^ok 1$", absent="^time [1-3]$")["attempts"] == 4


def test_another_status_can_be_wanted(server: Server) -> None:
    server.answer = lambda _: (503, "text/plain", "starting")
    assert run(url=url(server), status_code=[200, 503])["content"] == "starting"


@pytest.mark.parametrize(
    ("answer", "arguments", "words"),
    [
        ((500, "text/plain", "x"), {}, "it answers 500, wanted is 200"),
        ((302, "text/plain", "x"), {}, "it answers 302"),
        ((200, "text/plain", "x"), {"present": "^y$"}, "nothing that matches '^y$'"),
        ((200, "text/plain", "x"), {"absent": "^x$"}, "still has what matches '^x$'"),
    ],
)
def test_it_says_what_was_wrong_when_the_time_is_over(
    server: Server, answer: tuple[int, str, str], arguments: dict[str, Any], words: str
) -> None:
    server.answer = lambda _: answer
    result = run(url=url(server), timeout=0.3, **arguments)
    assert result["failed"]
    assert words in result["msg"]
    assert result["attempts"] > 1


def test_nobody_there_is_said(server: Server) -> None:
    address = url(server).replace(str(server.server_address[1]), "9")
    assert "nobody answers" in run(url=address, timeout=0.2)["msg"]


@pytest.mark.parametrize("arguments", [{"url": "ftp://x"}, {"url": "http://x", "present": "("}])
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any]) -> None:
    assert run(**arguments)["failed"]


def test_a_proxy_of_the_environment_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: asking a proxy for the host's own loopback."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.answer = lambda _: (200, "text/plain", "here")
    assert run(url=url(server), timeout=1)["content"] == "here"
