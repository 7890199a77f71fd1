"""Deploys do not page: a silence for the hosts of the run, lifted at its end, however it ends."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alert_path.stack import ROOT, Stack, call, free_port, until

HOSTS = {"backend": ["app1", "app2"], "node_exporter": ["app1", "app2", "mon1"], "prometheus": ["mon1"]}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "sid", "sid")
    yield stack
    stack.stop()


@pytest.fixture
def middle(tmp_path: Path) -> Path:
    """Where a run writes down the silences of its middle."""
    return tmp_path / "middle.json"


def deploy(
    stack: Stack, *options: str, port: int | None = None, alertmanagers: Any = None, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the deployment on hosts that are all this machine, with the wiring of the inventories."""
    folder = stack.folder / "inventory"
    (folder / "group_vars/all").mkdir(parents=True, exist_ok=True)
    (folder / "group_vars/all/wiring.yml").write_text((ROOT / "inventories/wiring/all.yml").read_text())
    estate: dict[str, Any] = {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in HOSTS.items()}
    estate["alertmanager"] = {"hosts": alertmanagers or {"mon1": {}}}
    everywhere = {
        "ansible_connection": "local",
        "ansible_host": "127.0.0.1",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "allin_environment": "test",
        "alertmanager_port": port or int(stack.urls["alertmanager0"].rpartition(":")[2]),
    }
    (folder / "group_vars/all/yours.json").write_text(json.dumps(everywhere))
    (folder / "hosts.json").write_text(json.dumps(estate))
    return subprocess.run(
        [
            *("ansible-playbook", "-i", str(folder / "hosts.json"), "tests/alert_path/deploy.yml"),
            *("-e", json.dumps(variables), *options),
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "USER": "jane"},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def active(stack: Stack) -> list[dict[str, Any]]:
    found = json.loads(call(f"{stack.urls['alertmanager0']}/api/v2/silences"))
    return [one for one in found if one["status"]["state"] == "active"]


def of_the_middle(middle: Path) -> dict[str, dict[str, Any]]:
    """The silences that were active in the middle of the run, by the label of their first matcher."""
    found = [one for one in json.loads(middle.read_text()) if one["status"]["state"] == "active"]
    return {"job" if any(m["name"] == "job" for m in one["matchers"]) else "host": one for one in found}


def matchers(silence: dict[str, Any]) -> set[tuple[str, str, bool, bool]]:
    return {(m["name"], m["value"], m["isRegex"], m["isEqual"]) for m in silence["matchers"]}


NOT_WATCHDOG = ("alertname", "Watchdog", False, False)


def test_a_run_is_silent_while_it_runs_and_heard_afterwards(stack: Stack, middle: Path) -> None:
    done = deploy(stack, middle_file=str(middle))
    assert done.returncode == 0, done.stdout
    silences = of_the_middle(middle)
    assert matchers(silences["host"]) == {("host", "app1|app2|mon1", True, True), NOT_WATCHDOG}
    jobs = "alertmanager|backend\\-api\\-test|node|prometheus"
    assert matchers(silences["job"]) == {("job", jobs, True, True), ("host", "", False, True), NOT_WATCHDOG}
    for one in silences.values():
        length = datetime.fromisoformat(one["endsAt"]) - datetime.fromisoformat(one["startsAt"])
        assert timedelta(minutes=29) < length <= timedelta(minutes=30)
        assert one["createdBy"] == "jane"
        assert one["comment"].startswith("Deployment by ")
    assert active(stack) == []
    assert "Lift the silence of a run that failed" not in done.stdout
    assert "changed=1" not in deploy(stack).stdout


@pytest.mark.parametrize("fails_on", ["app1", "app2"])
def test_a_run_that_fails_is_heard_too(stack: Stack, middle: Path, fails_on: str) -> None:
    """Prevents: a broken deployment that nobody hears about for half an hour."""
    done = deploy(stack, middle_file=str(middle), fails_on=fails_on)
    assert done.returncode == 2, done.stdout
    assert "the second play runs" not in done.stdout
    assert set(of_the_middle(middle)) == {"host", "job"}
    assert "Lift the silence of a run that failed" in done.stdout
    assert active(stack) == []


def test_hosts_that_the_run_does_not_touch_are_heard(stack: Stack, middle: Path) -> None:
    done = deploy(stack, "--limit", "app1", middle_file=str(middle))
    assert done.returncode == 0, done.stdout
    silences = of_the_middle(middle)
    # The backend has another host, so what is said of the whole of it may be about that one.
    assert set(silences) == {"host"}
    assert ("host", "app1", True, True) in matchers(silences["host"])
    assert active(stack) == []

    done = deploy(stack, "--limit", "app1", middle_file=str(middle), fails_on="app1")
    assert done.returncode == 2
    assert active(stack) == []


def test_services_that_the_run_does_not_touch_are_heard(stack: Stack, middle: Path) -> None:
    done = deploy(stack, "--tags", "backend", middle_file=str(middle))
    assert done.returncode == 0, done.stdout
    silences = of_the_middle(middle)
    assert ("host", "app1|app2", True, True) in matchers(silences["host"])
    assert ("job", "backend\\-api\\-test", True, True) in matchers(silences["job"])


def test_the_watchdog_and_other_hosts_go_on_while_a_host_is_silent(stack: Stack, tmp_path: Path) -> None:
    """What Alertmanager itself makes of these silences."""
    now = "2020-01-01T00:00:00Z"
    labels = [
        {"alertname": "HighCpu", "host": "app1", "job": "node"},
        {"alertname": "BackendDown", "job": "backend-api-test"},
        {"alertname": "HighCpu", "host": "elsewhere", "job": "node"},
        {"alertname": "HighCpu", "host": "app11", "job": "node"},
        {"alertname": "JobAbsent", "job": "other"},
        {"alertname": "Watchdog", "job": "node"},
        {"alertname": "Watchdog"},
    ]
    url = stack.urls["alertmanager0"]
    call(f"{url}/api/v2/alerts", [{"labels": one, "startsAt": now} for one in labels])
    seen = tmp_path / "seen.json"
    done = deploy(stack, allin_deploy_silence_minutes=1, middle_file=str(seen))
    assert done.returncode == 0, done.stdout

    # The same silences again, and left where they are.
    for one in of_the_middle(seen).values():
        call(
            f"{url}/api/v2/silences",
            {key: one[key] for key in ("matchers", "startsAt", "endsAt", "createdBy", "comment")},
        )

    def silenced() -> list[dict[str, str]]:
        alerts = json.loads(call(f"{url}/api/v2/alerts"))
        return [one["labels"] for one in alerts if one["status"]["silencedBy"]]

    try:
        until(lambda: len(silenced()) >= 2, "two are silenced")
        assert sorted(silenced(), key=str) == sorted(labels[:2], key=str)
    finally:
        for one in active(stack):
            call(f"{url}/api/v2/silence/{one['id']}", method="DELETE")


def test_what_is_over_with_the_deployment_is_not_told(stack: Stack, tmp_path: Path) -> None:
    """Prevents: a page about a service that the deployment has just started again, which Prometheus has yet to see."""
    script = tmp_path / "middle.sh"
    script.write_text(
        # It begins after the silences, and goes on for longer than the rest of the run takes.
        f"sleep 2; end=$(date -u -d '+15 seconds' +%FT%TZ); echo $end > {tmp_path}/end\n"
        f"curl -fsS -H 'Content-Type: application/json' {stack.urls['alertmanager0']}/api/v2/alerts -d "
        '"[{\\"labels\\": {\\"alertname\\": \\"JobDown\\", \\"job\\": \\"node\\"}, \\"endsAt\\": \\"$end\\"}]"\n'
    )
    done = deploy(stack, middle_command=f"sh {script}")
    assert done.returncode == 0, done.stdout
    assert datetime.now(UTC) >= datetime.fromisoformat((tmp_path / "end").read_text().strip())
    assert active(stack) == []


def test_where_no_alertmanager_answers_the_deployment_goes_on(stack: Stack) -> None:
    """The first deployment."""
    done = deploy(stack, "-v", port=free_port())
    assert done.returncode == 0, done.stdout
    assert "so nothing is silenced" in done.stdout


def test_an_alertmanager_s_host_that_is_away_stops_no_deployment(stack: Stack, middle: Path) -> None:
    """Prevents: an estate that cannot be mended while one of its Alertmanagers is down, and a run that does nothing."""
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": free_port()}
    done = deploy(stack, middle_file=str(middle), alertmanagers={"away": away, "mon1": {}})
    assert done.returncode == 0, done.stdout
    assert "the second play runs" in done.stdout
    assert set(of_the_middle(middle)) == {"host", "job"}
    assert active(stack) == []


class Refusing(BaseHTTPRequestHandler):
    """An Alertmanager that takes no silence."""

    def answer(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.answer(200, b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(400, b"not like this")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_an_alertmanager_that_refuses_the_silence_stops_the_deployment(stack: Stack, middle: Path) -> None:
    """It would page for what the deployment does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever).start()
    try:
        done = deploy(stack, port=server.server_port, middle_file=str(middle))
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode != 0
    assert "does not take the silence: 400 not like this" in done.stdout
    assert not middle.exists()


@pytest.mark.parametrize(
    "options", [("--check",), ("-e", "allin_deploy_silence_minutes=0"), ("--tags", "message_sinks")]
)
def test_nothing_is_silenced_without_need(stack: Stack, options: tuple[str, ...]) -> None:
    before = json.loads(call(f"{stack.urls['alertmanager0']}/api/v2/silences"))
    done = deploy(stack, *options)
    assert done.returncode == 0, done.stdout
    assert json.loads(call(f"{stack.urls['alertmanager0']}/api/v2/silences")) == before


def test_site_is_silent_around_all_that_it_changes() -> None:
    order = [
        Path(one["ansible.builtin.import_playbook"]).stem for one in yaml.safe_load((ROOT / "site.yml").read_text())
    ]
    assert order.index("silence") < order.index("backend")
    assert order[-1] == "silence_end"
