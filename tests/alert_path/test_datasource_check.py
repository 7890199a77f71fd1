"""The module datasource_check against what Grafana's API answers: each reason why panels stay empty is named."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.alert_path.stack import ROOT, free_port

MODULE = ROOT / "plugins/modules/datasource_check.py"
PASSWORD = "SECRET-of-the-administrator"
HEALTH = "datasources/uid/prometheus/health"
QUERY = "datasources/proxy/uid/prometheus/api/v1/query"
STATUS = "datasources/proxy/uid/alertmanager/api/v2/status"


class Grafana(ThreadingHTTPServer):
    """Answers as Grafana 12 does; `answers` is path -> status and content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.sources = [
            {"uid": "prometheus", "type": "prometheus", "url": "http://127.0.0.1:9090"},
            {"uid": "alertmanager", "type": "alertmanager", "url": "http://127.0.0.1:9093"},
            {"uid": "logs", "type": "loki", "url": "http://127.0.0.1:3100"},
        ]
        self.answers: dict[str, tuple[int, Any]] = {
            HEALTH: (200, {"status": "OK", "message": "Successfully queried the Prometheus API."}),
            STATUS: (200, {"cluster": {"status": "ready"}}),
        }
        self.value: Any = [{"metric": {}, "value": [time.time(), "7"]}]


class Handler(BaseHTTPRequestHandler):
    server: Grafana

    def do_GET(self) -> None:
        path = self.path.removeprefix("/api/").partition("?")[0]
        status, content = 404, {"message": "Not found"}
        account = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if account != f"admin:{PASSWORD}":
            status, content = 401, {"message": "Invalid username or password"}
        elif self.headers.get("X-Grafana-Org-Id") != "1":  # the administrator works in another one
            status, content = 200, []  # type: ignore[assignment]
        elif path in self.server.answers:
            status, content = self.server.answers[path]
        elif path == "datasources":
            status, content = 200, self.server.sources  # type: ignore[assignment]
        elif path == QUERY:
            status, content = 200, {"status": "success", "data": {"result": self.server.value}}  # type: ignore[dict-item]
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
        return


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    grafana = Grafana()
    thread = threading.Thread(target=grafana.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield grafana
    grafana.shutdown()
    thread.join()
    grafana.server_close()


def check(url: str, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible runs it."""
    arguments = {"url": url, "user": "admin", "password": PASSWORD} | arguments
    program = (
        "import sys, runpy; from ansible.module_utils import basic; "
        "basic._ANSIBLE_ARGS = sys.argv[1].encode(); basic._ANSIBLE_PROFILE = 'legacy'; "
        f"runpy.run_path({str(MODULE)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", program, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    print(*answer["lines"], sep="\n")
    return answer


def only(answer: dict[str, Any]) -> dict[str, str]:
    """The one trouble that there is."""
    assert len(answer["troubles"]) == 1, answer["lines"]
    trouble: dict[str, str] = answer["troubles"][0]
    return trouble


def test_all_is_well(grafana: Grafana) -> None:
    answer = check(grafana.url)
    assert answer["troubles"] == []
    assert answer["lines"] == ["Grafana gets data from its data sources: alertmanager, prometheus."]


def test_the_document_s_case_is_named(grafana: Grafana) -> None:
    """`localhost` as Grafana sees it is Grafana's own host, where no Prometheus is."""
    grafana.sources[0]["url"] = f"http://localhost:{free_port()}"
    said = f'Post "{grafana.sources[0]["url"]}/api/v1/query": dial tcp 127.0.0.1:9: connect: connection refused'
    grafana.answers[HEALTH] = (400, {"status": "ERROR", "message": said})
    trouble = only(check(grafana.url))
    assert (trouble["case"], trouble["what"]) == ("Data source fails", "prometheus")
    assert said in trouble["seen"]
    assert "localhost is Grafana's host itself" in trouble["cure"]
    assert "grafana_prometheus_url" in trouble["cure"]
    assert "127.0.0.1 by default" in trouble["cure"]


def test_a_name_that_nobody_knows_is_named(grafana: Grafana) -> None:
    grafana.sources[0]["url"] = "http://no-such-host.invalid:9090"
    grafana.answers[HEALTH] = (400, {"status": "ERROR", "message": "dial tcp: lookup no-such-host.invalid"})
    assert "no-such-host.invalid has no address on Grafana's host" in only(check(grafana.url))["cure"]


def test_another_service_at_that_address_is_named(grafana: Grafana) -> None:
    grafana.sources[0]["url"] = grafana.url
    grafana.answers[HEALTH] = (400, {"status": "ERROR", "message": "404 Not Found"})
    trouble = only(check(grafana.url))
    assert f"something answers at {grafana.url}, but not as it should" in trouble["cure"]


def test_an_alertmanager_that_fails_is_named(grafana: Grafana) -> None:
    grafana.sources[1]["url"] = f"http://127.0.0.1:{free_port()}"
    grafana.answers[STATUS] = (502, {"message": "Bad Gateway"})
    trouble = only(check(grafana.url))
    assert trouble["what"] == "alertmanager"
    assert "Bad Gateway" in trouble["seen"]
    assert "the url of the data source alertmanager" in trouble["cure"]


def test_a_data_source_that_is_not_there_is_named(grafana: Grafana) -> None:
    del grafana.sources[0]
    trouble = only(check(grafana.url))
    assert trouble["seen"] == "Grafana has no such data source"
    assert "--tags grafana" in trouble["cure"]


def test_a_changed_password_is_named(grafana: Grafana) -> None:
    trouble = only(check(grafana.url, user="somebody"))
    assert "401 Invalid username or password" in trouble["seen"]
    assert "--tags grafana" in trouble["cure"]


def test_a_grafana_that_is_down_is_named() -> None:
    trouble = only(check(f"http://127.0.0.1:{free_port()}"))
    assert "does not answer" in trouble["seen"]
    assert "journalctl --unit grafana" in trouble["cure"]


def test_a_prometheus_without_targets_is_named(grafana: Grafana) -> None:
    grafana.value = []
    trouble = only(check(grafana.url))
    assert trouble["case"] == "No data"
    assert "not a single target" in trouble["seen"]


@pytest.mark.parametrize(("seconds", "words"), [(600, "600 s ahead of"), (-600, "600 s behind")])
def test_clocks_that_differ_are_named(grafana: Grafana, seconds: float, words: str) -> None:
    """Panels of the last minutes are empty then, or show what is not true yet."""
    grafana.value = [{"metric": {}, "value": [time.time() + seconds, "7"]}]
    trouble = only(check(grafana.url))
    assert trouble["case"] == "No data"
    assert words.partition(" s ")[2] in trouble["seen"]
    assert "timedatectl" in trouble["cure"]
