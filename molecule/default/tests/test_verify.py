"""playbooks/verify.yml on the deployed stack: it proves the way of an alert, and names the hop that is broken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from client import SinkClient
from estate import Run, run_playbook
from waiting import eventually

CONFIG = "/etc/alertmanager/alertmanager.yml"
SLACK = "/etc/alertmanager-secrets/slack_api_url"
RULES = "/etc/prometheus/rules"


def verify(*options: str, **variables: Any) -> Run:
    """Run the playbook, which waits no longer than this scenario's pace needs."""
    pace = {
        "verify_firing_timeout_seconds": 20,
        "verify_resolved_timeout_seconds": 30,
        "verify_data_timeout_seconds": 10,
    }
    return run_playbook("playbooks/verify.yml", *options, "--extra-vars", json.dumps(pace | variables))


def words(run: Run) -> str:
    return " ".join(run.output.split())


@contextmanager
def edited(host: Any, path: str, edit: str, unit: str) -> Iterator[None]:
    """A file that somebody has changed by hand with sed, and a service that has read it."""
    host.check_output(f"cp --preserve=all {path} /root/before && sed -i '{edit}' {path} && systemctl reload {unit}")
    try:
        yield
    finally:
        # In place: the file keeps its owner.
        host.check_output(f"cp /root/before {path} && rm /root/before && systemctl reload {unit}")


def test_a_probe_gets_through_and_leaves_nothing_behind(host: Any, sinks: SinkClient) -> None:
    """Prevents: a proof of delivery that never succeeds, or that is still there afterwards."""
    before = host.check_output(f"ls -A {RULES}")
    run = verify()
    assert run.code == 0, run.output[-3000:]
    print("\n" + run.output[run.output.index("HOP") :].partition("PLAY RECAP")[0])
    number = re.search(r"Probe (\w+) got through, firing and resolved", run.output)
    assert number
    for hop in ("Slack", "Mail"):
        assert re.search(rf"{hop} .* received", run.output)
    for kind in ("slack", "mail"):
        mine = [one for one in sinks.messages(kind) if number[1] in one.text]
        assert ["RESOLVED" in one.title for one in mine] == [False, True]
    assert host.check_output(f"ls -A {RULES}") == before


def test_everything_is_scraped_and_there_is_data() -> None:
    """Prevents: a check that finds something in every estate, or that looks at nothing."""
    run = verify("--tags", "data")
    assert run.code == 0, run.output[-3000:]
    found = re.search(
        r"(\d+) targets of the inventory are up, and there are recent samples of (\d+) metrics", run.output
    )
    assert found, run.output[-3000:]
    assert int(found[1]) >= 4
    assert int(found[2]) > 20


def test_a_target_that_is_down_is_named(host: Any) -> None:
    """The first case of the document's troubleshooting."""
    host.check_output("systemctl stop node_exporter")
    try:
        run = verify("--tags", "data")
    finally:
        host.check_output("systemctl start node_exporter")
    assert run.code != 0
    assert re.search(r"Target down: node \S+:9100: .*connection refused", words(run))
    assert "systemctl status node_exporter" in words(run)


def test_data_of_another_job_is_named() -> None:
    """The third case: dashboards ask for a job of which there is nothing."""
    run = verify("--tags", "data", prometheus_backend_job="backend-api-prod")
    assert run.code != 0
    assert re.search(r"No data: backend-api-prod \S+:7000: it is scraped as job backend-api-dev", words(run))


def test_a_prometheus_that_is_down_is_named(host: Any, prometheus: Any) -> None:
    host.check_output("systemctl stop prometheus")
    try:
        run = verify("--tags", "data", verify_data_timeout_seconds=1)
    finally:
        host.check_output("systemctl start prometheus")
    eventually(lambda: prometheus.query("up"), within=30, what="a sample")
    assert run.code != 0
    assert "No data: Prometheus at http://127.0.0.1:9090: it does not answer" in words(run)


def test_what_is_no_page_reaches_slack_alone(sinks: SinkClient) -> None:
    run = verify(verify_severity="warning", verify_firing_timeout_seconds=60)
    assert run.code == 0, run.output[-3000:]
    assert "Route of severity=warning" in run.output
    assert not re.search(r"Mail .* received", run.output)


def test_a_broken_webhook_is_named(host: Any) -> None:
    """As after somebody has deleted the app in Slack."""
    with edited(host, SLACK, "s|/slack/.*|/nothing-is-here|", "alertmanager"):
        run = verify()
    assert run.code != 0
    assert re.search(r"did not get through\. Slack: \d+ of \d+ attempts to send failed", words(run))
    assert re.search(r"Slack +FAILED", run.output)
    assert re.search(r"Mail .* received", run.output)
    # What the other end answered, from Alertmanager's journal.
    assert "unexpected status code 405" in words(run)


def test_a_broken_mail_server_is_named(host: Any) -> None:
    with edited(host, CONFIG, "s/127.0.0.1:2525/127.0.0.1:9/", "alertmanager"):
        run = verify()
    assert run.code != 0
    assert re.search(r"did not get through\. Mail: \d+ of \d+ attempts to send failed", words(run))
    assert re.search(r"Slack .* received", run.output)
    assert "connection refused" in run.output


def test_a_broken_route_is_named(host: Any) -> None:
    with edited(host, CONFIG, "s/severity *= *.\\?critical.\\?$/severity = page/", "alertmanager"):
        run = verify()
    assert run.code != 0
    assert "did not get through. Route of severity=critical: it goes to" in words(run)
    assert "so Mail would not learn of it" in words(run)


def test_a_broken_rule_is_named(host: Any) -> None:
    host.check_output(f"echo 'groups: [{{name: x, rules: [{{alert: X, expr: sum(}}]}}]' > {RULES}/99-broken.yml")
    try:
        run = verify()
    finally:
        host.check_output(f"rm {RULES}/99-broken.yml && systemctl reload prometheus")
    assert run.code != 0
    assert "did not get through. Rule in Prometheus: Prometheus refuses its configuration" in words(run)
    assert "99-broken.yml" in run.output


@pytest.mark.parametrize(
    ("fault", "hop"),
    [
        ({"slack": {"status": 500, "body": "x"}}, "Slack"),
        ({"smtp": {"code": 554, "text": "no", "stage": "rcpt"}}, "Mail"),
    ],
)
def test_a_receiver_that_refuses_is_named(sinks: SinkClient, fault: dict[str, Any], hop: str) -> None:
    sinks.fault(**fault)
    try:
        run = verify(verify_receipts=[])
    finally:
        sinks.clear_faults()
    assert run.code != 0
    assert f"did not get through. {hop}:" in words(run)


@pytest.fixture(autouse=True)
def healthy_again(prometheus: Any, alertmanager: Any) -> Iterator[None]:
    """A test that broke something has mended it."""
    yield
    answers: list[Callable[[], Any]] = [lambda: prometheus.api("status/buildinfo"), lambda: alertmanager.api("status")]
    assert all(answer() for answer in answers)
