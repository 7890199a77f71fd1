"""The module data_check on a real Prometheus: each reason for an empty dashboard is provoked, found, and named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from allin_backend.metrics.contract import CONTRACT, Kind

from plugins.modules import data_check
from plugins.modules.data_check import CURES, Check
from tests.alert_path.stack import ROOT, SUITES, call, free_port, unpacked, until

MODULE = ROOT / "plugins/modules/data_check.py"
GOOD = "# TYPE allin_http_requests_total counter\nallin_http_requests_total 1\n"


class Exporter(ThreadingHTTPServer):
    """A target that answers what a test says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.kind, self.body, self.delay = 200, "text/plain; version=0.0.4", GOOD, 0.0
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def behave(self, status: int = 200, kind: str = "text/plain; version=0.0.4", body: str = GOOD) -> None:
        self.status, self.kind, self.body, self.delay = status, kind, body, 0.0


class Handler(BaseHTTPRequestHandler):
    server: Exporter

    def do_GET(self) -> None:
        time.sleep(self.server.delay)
        try:
            self.send_response(self.server.status)
            self.send_header("Content-Type", self.server.kind)
            self.end_headers()
            self.wfile.write(self.server.body.encode())
        except OSError:
            return  # the scrape has ended before

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
        return


class Monitoring:
    """A Prometheus that scrapes every second."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.scrape("backend", ["127.0.0.1:9"], reload=False)
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(unpacked(suite) / "usr/bin/prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: call(f"{self.url}/-/ready"), "Prometheus serves")

    def scrape(self, job: str, targets: list[str], *, reload: bool = True, **more: Any) -> None:
        """Have it scrape these targets, and no others."""
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": targets}], **more}],
        }
        (self.folder / "prometheus.yml").write_text(json.dumps(config))
        if reload:
            self.process.send_signal(signal.SIGHUP)

            def read() -> bool:
                active = json.loads(call(f"{self.url}/api/v1/targets?state=active"))["data"]["activeTargets"]
                return [(one["labels"]["job"], one["labels"]["instance"]) for one in active] == [
                    (job, target) for target in targets
                ]

            until(read, "Prometheus has read its configuration")

    def check(self, **arguments: Any) -> dict[str, Any]:
        """Run the module as Ansible runs it."""
        arguments = {"prometheus_url": self.url, "timeout": 5} | arguments
        program = (
            "import sys, runpy; from ansible.module_utils import basic; "
            "basic._ANSIBLE_ARGS = sys.argv[1].encode(); basic._ANSIBLE_PROFILE = 'legacy'; "
            f"runpy.run_path({str(MODULE)!r}, run_name='__main__')"
        )
        command = [sys.executable, "-c", program, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        print(*answer["lines"], sep="\n")
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=20)


@pytest.fixture(scope="module", params=SUITES)
def every_monitoring(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    monitoring = Monitoring(tmp_path_factory.mktemp("prometheus"), request.param)
    yield monitoring
    monitoring.stop()


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    monitoring = Monitoring(tmp_path_factory.mktemp("prometheus"), "sid")
    yield monitoring
    monitoring.stop()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    thread = threading.Thread(target=exporter.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield exporter
    exporter.shutdown()
    thread.join()
    exporter.server_close()


METRICS = {"backend": ["allin_http_requests_total"]}


def only(answer: dict[str, Any]) -> dict[str, str]:
    """The one trouble that there is."""
    assert len(answer["troubles"]) == 1, answer["lines"]
    trouble: dict[str, str] = answer["troubles"][0]
    line = f"{trouble['case']}: {trouble['what']}: {trouble['seen']}. Cure: {trouble['cure']}"
    assert answer["lines"] == [line if line.endswith("?") else f"{line}."]
    return trouble


def test_all_is_well(every_monitoring: Monitoring, exporter: Exporter) -> None:
    """Prevents: a check that finds something in every estate. Also waits for the first scrape."""
    every_monitoring.scrape("backend", [exporter.address])
    answer = every_monitoring.check(targets={"backend": [exporter.address]}, metrics=METRICS)
    assert answer["troubles"] == []
    assert answer["lines"] == ["1 targets of the inventory are up, and there are recent samples of 1 metrics."]
    assert answer["changed"] is False


def test_a_service_that_does_not_run_is_named(monitoring: Monitoring) -> None:
    target = f"127.0.0.1:{free_port()}"
    monitoring.scrape("node", [target])
    trouble = only(monitoring.check(targets={"node": [target]}, metrics={"node": ["node_cpu_seconds_total"]}))
    assert trouble["case"] == "Target down"
    assert trouble["what"] == f"node {target}"
    assert "connection refused" in trouble["seen"]
    assert "systemctl status node_exporter" in trouble["cure"]


def test_a_name_that_nobody_knows_is_named(monitoring: Monitoring) -> None:
    monitoring.scrape("backend", ["no-such-host.invalid:7000"])
    trouble = only(monitoring.check())
    assert trouble["what"] == "backend no-such-host.invalid:7000"
    assert "no-such-host.invalid has no address" in trouble["cure"]


@pytest.mark.parametrize(
    ("answers", "seen", "cure"),
    [
        ({"status": 404}, "404", "the path is wrong, or another service has this port"),
        ({"status": 500}, "500", "journalctl --unit allin-backend"),
        ({"status": 401}, "401", "credentials"),
        ({"kind": "text/html", "body": "<html>Welcome</html>"}, "", "no exporter"),
    ],
)
def test_what_answers_wrongly_is_named(
    monitoring: Monitoring, exporter: Exporter, answers: dict[str, Any], seen: str, cure: str
) -> None:
    """Also the document's first case: the port that is scraped is another service's."""
    exporter.behave(**answers)
    monitoring.scrape("backend", [exporter.address])
    trouble = only(monitoring.check())
    assert trouble["case"] == "Target down"
    assert seen in trouble["seen"]
    assert cure in trouble["cure"]


def test_a_target_that_is_slow_or_behind_a_firewall_is_named(monitoring: Monitoring, exporter: Exporter) -> None:
    exporter.delay = 3.0
    monitoring.scrape("backend", [exporter.address])
    trouble = only(monitoring.check())
    assert "deadline exceeded" in trouble["seen"]
    assert "firewall" in trouble["cure"]


def test_a_target_that_prometheus_was_never_told_of_is_named(monitoring: Monitoring, exporter: Exporter) -> None:
    monitoring.scrape("backend", [exporter.address])
    trouble = only(monitoring.check(targets={"backend": [exporter.address, "app2:7000"]}))
    assert (trouble["case"], trouble["what"]) == ("No data", "backend app2:7000")
    assert trouble["seen"] == "Prometheus was never told of it"
    assert "--tags prometheus" in trouble["cure"]


def test_a_job_of_another_name_is_named(monitoring: Monitoring, exporter: Exporter) -> None:
    """Dashboards ask for one job, and the data is another's."""
    monitoring.scrape("backend-old", [exporter.address])
    trouble = only(monitoring.check(targets={"backend": [exporter.address]}, metrics=METRICS))
    assert trouble["seen"] == "it is scraped as job backend-old"


def test_a_metric_that_is_not_there_is_named(monitoring: Monitoring, exporter: Exporter) -> None:
    metrics = {"backend": ["allin_http_requests_total", "allin_no_such_total", "allin_neither_total"]}
    monitoring.scrape("backend", [exporter.address])
    trouble = only(monitoring.check(targets={"backend": [exporter.address]}, metrics=metrics))
    assert trouble["case"] == "No data"
    assert trouble["what"] == "backend: allin_no_such_total and 1 more"
    assert "has not had it for an hour" in trouble["seen"]
    assert f"curl http://{exporter.address}/metrics | grep allin_no_such_total" in trouble["cure"]


def test_a_metric_that_has_gone_is_named(monitoring: Monitoring, exporter: Exporter) -> None:
    monitoring.scrape("gone", [exporter.address])
    metrics = {"gone": ["allin_http_requests_total"]}
    assert monitoring.check(metrics=metrics)["troubles"] == []
    exporter.behave(body="other 1\n")
    until(lambda: monitoring.check(metrics=metrics, timeout=0)["troubles"], "it is noticed")
    assert "within the last hour, but none now" in only(monitoring.check(metrics=metrics, timeout=0))["seen"]


def test_a_prometheus_that_does_not_answer_is_named(monitoring: Monitoring) -> None:
    trouble = only(monitoring.check(prometheus_url="http://127.0.0.1:9", timeout=0))
    assert trouble["what"] == "Prometheus at http://127.0.0.1:9"
    assert "journalctl --unit prometheus" in trouble["cure"]


class Clock:
    """A Prometheus whose newest sample lies so many seconds ahead, and which has no metric."""

    url = "http://prometheus"

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def get(self, path: str, **_: str) -> Any:
        if path == "status/tsdb":
            return {"headStats": {"maxTime": int((time.time() + self.ahead) * 1000)}}
        target = {"health": "up", "labels": {"job": "backend", "instance": "a:1"}, "scrapeUrl": "http://a:1/metrics"}
        return {"activeTargets": [target]}

    def query(self, _: str) -> list[dict[str, Any]]:
        return []

    def number(self, _: str) -> None:
        return None


@pytest.mark.parametrize(
    ("ahead", "seen"),
    [(3600, "60 minutes in the future: the host's clock was set back"), (-600, "written nothing for 10 minutes")],
)
def test_a_clock_that_was_set_and_a_full_disk_are_named(ahead: float, seen: str) -> None:
    check = Check({"prometheus_url": "http://x", "targets": {}, "metrics": METRICS, "recent": 180.0})
    check.prometheus = Clock(ahead)  # type: ignore[assignment]
    found = check.look()
    assert [one.case for one in found] == ["No data"]
    assert seen in found[0].seen


def test_every_documented_metric_is_asked_for() -> None:
    """Prevents: a metric that the document names, and whose absence nobody notices."""
    variables = yaml.safe_load((ROOT / "roles/verify/vars/main.yml").read_text())
    documented = {
        f"{metric.name}_count" if metric.kind is Kind.HISTOGRAM else metric.name
        for metric in CONTRACT
        if metric.documented
    }
    assert set(variables["__verify_metrics"]["backend"]) == documented


def test_every_cure_can_be_written() -> None:
    """Prevents: a placeholder that nobody fills in."""
    for _, cure in CURES:
        assert "{" not in cure.format(host="h", unit="u", url="x")
    assert data_check.duration(90) == "90 s"
