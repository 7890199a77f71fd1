"""The module alert_probe on the real path, and each hop of the path broken in turn: it must name that hop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alert_path.stack import ROOT, SUITES, Stack, call, until

MODULE = ROOT / "plugins/modules/alert_probe.py"


@pytest.fixture(scope="module", params=SUITES)
def every_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / request.param, request.param)
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "sid", "sid")
    yield stack
    stack.stop()


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """A stack in order, which a test may break: afterwards it is put in order again."""
    config = (shared_stack.folder / "alertmanager0.yml").read_text()
    yield shared_stack
    shared_stack.fault()
    shared_stack.configure_alertmanager(0, config)
    if "alertmanager0" not in shared_stack.processes:
        shared_stack.start_again("alertmanager0")
    call(f"{shared_stack.urls['alertmanager0']}/-/reload", {})


def command(stack: Stack, **arguments: Any) -> list[str]:
    """The module, as Ansible runs it."""
    arguments = {
        "prometheus_url": stack.urls["prometheus"],
        "rules_file": str(stack.folder / "rules/90-probe.rules.yml"),
        "reload": ["kill", "-HUP", str(stack.processes["prometheus"].pid)],
        "check": [str(stack.root / "usr/bin/promtool"), "check", "config", str(stack.folder / "prometheus.yml")],
        "labels": {"severity": "critical"},
        "integrations": ["slack", "email"],
        "settle": 1,
        "firing_timeout": 15,
        "resolved_timeout": 30,
    } | arguments
    program = (
        "import sys, runpy; from ansible.module_utils import basic; "
        "basic._ANSIBLE_ARGS = sys.argv[1].encode(); basic._ANSIBLE_PROFILE = 'legacy'; "
        f"runpy.run_path({str(MODULE)!r}, run_name='__main__')"
    )
    return [sys.executable, "-c", program, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})]


def run(stack: Stack, **arguments: Any) -> dict[str, Any]:
    """Run the module to its end; return what it said. Whatever it says, it must have tidied up."""
    done = subprocess.run(command(stack, **arguments), check=False, capture_output=True, text=True)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert not list((stack.folder / "rules").glob("*90-probe*"))
    assert "SECRET" not in done.stdout
    print(answer.get("msg"), *answer.get("table", []), sep="\n")
    return answer


def receipts(stack: Stack) -> list[dict[str, str]]:
    """Ask the sinks."""
    return [
        {"integration": "slack", "url": f"{stack.sinks}/api/messages?kind=slack", "authorization": "Bearer SECRET"},
        {"integration": "email", "url": f"{stack.sinks}/api/messages?kind=mail"},
    ]


def is_blind(stack: Stack) -> bool:
    """Say whether it is Debian 12's Alertmanager, 0.25."""
    return stack.root.name == "bookworm"


def row(answer: dict[str, Any], start: str) -> str:
    return str(next(line for line in answer["table"] if line.startswith(start)))


def test_it_arrives_firing_and_resolved(every_stack: Stack) -> None:
    """Also prevents: a table that says so of messages which nobody got."""
    answer = run(every_stack, receipts=receipts(every_stack)[:1], settle=10)
    assert not answer.get("failed"), answer
    assert answer["changed"] is False
    assert answer["broken"] == []
    assert row(answer, "Slack").endswith("received")
    # Where nobody can be asked, Alertmanager's counts tell of what was sent.
    assert row(answer, "Mail").endswith("0.28 does)" if is_blind(every_stack) else "sent without error")
    assert row(answer, "Route of severity=critical").endswith("to critical: email, slack")
    for kind in ("slack", "mail"):
        mine = [json.dumps(one) for one in every_stack.messages(kind) if answer["id"] in json.dumps(one)]
        assert ["RESOLVED" in one for one in mine] == [False, True]
        assert f"Test of the alert path (id {answer['id']})" in mine[0]


def test_a_mail_refused_after_its_text_is_seen_or_said_to_be_unseen(every_stack: Stack) -> None:
    """Prevents: "sent without error", and no more, of a mail that a spam filter has refused."""
    every_stack.fault(smtp={"code": 554, "text": "spam", "stage": "data"})
    try:
        answer = run(every_stack, settle=10)
    finally:
        every_stack.fault()
    if is_blind(every_stack):
        assert not answer.get("failed"), answer
        assert "does not see a mail that the server refuses after its text" in row(answer, "Mail")
    else:
        assert "Mail" in answer["broken"]


BROKEN = [
    ({"slack": {"status": 404, "body": "no_service"}}, "Slack", "Mail"),
    ({"slack": {"status": 500, "body": "x"}}, "Slack", "Mail"),
    ({"smtp": {"code": 554, "text": "no", "stage": "rcpt"}}, "Mail", "Slack"),
    ({"smtp": {"code": 451, "text": "later", "stage": "data"}}, "Mail", "Slack"),
]


@pytest.mark.parametrize("asked", [False, True], ids=["counted", "asked"])
@pytest.mark.parametrize(("fault", "hop", "other"), BROKEN, ids=["404", "500", "554", "451"])
def test_a_receiver_that_refuses_is_named_and_the_other_one_is_not(
    stack: Stack, fault: dict[str, Any], hop: str, other: str, asked: bool
) -> None:
    stack.fault(**fault)
    answer = run(stack, firing_timeout=5, receipts=receipts(stack) if asked else [])
    assert answer["failed"]
    assert answer["broken"] == [hop]
    assert "attempts to send failed" in answer["msg"]
    assert "journalctl --unit alertmanager" in answer["msg"]
    assert "FAILED" in row(answer, hop)
    # The rest of the way is followed to its end all the same.
    assert "FAILED" not in row(answer, other)
    assert "not reached" not in row(answer, other)


def test_an_attempt_that_is_made_again_and_goes_well_is_no_failure(every_stack: Stack) -> None:
    """Prevents: "did not get through", after minutes of waiting, where a server had closed an idle connection."""
    once = {"text": "later", "times": 1}
    every_stack.fault(slack={"status": 503, "body": "x", "times": 1}, smtp={"code": 451, "stage": "rcpt"} | once)
    try:
        answer = run(every_stack, settle=10)
    finally:
        every_stack.fault()
    assert not answer.get("failed"), answer
    assert "sent after 1 failed attempt" in row(answer, "Slack")
    assert "sent after 1 failed attempt" in row(answer, "Mail")


def test_a_message_that_is_taken_and_lost_is_found_where_the_receiver_can_be_asked(stack: Stack) -> None:
    """Prevents: believing Alertmanager, which has heard "ok"."""
    stack.fault(slack={"status": 200, "body": "ok"})
    assert "Slack" in run(stack, firing_timeout=5, receipts=receipts(stack))["broken"]
    assert not run(stack).get("failed")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("'severity = critical'", "'severity = page'", "it goes to nobody (tells nobody), so Slack, Mail would not"),
        ("    email_configs:", "  - name: mail\n    email_configs:", "it goes to critical (slack), so Mail would not"),
    ],
)
def test_a_route_that_leads_elsewhere_is_named(stack: Stack, old: str, new: str, words: str) -> None:
    config = (stack.folder / "alertmanager0.yml").read_text()
    stack.configure_alertmanager(0, config.replace(old, new))
    call(f"{stack.urls['alertmanager0']}/-/reload", {})
    answer = run(stack)
    assert answer["failed"]
    assert answer["broken"] == ["Route of severity=critical"]
    assert words in answer["msg"]
    assert "not reached" in row(answer, "Slack")
    assert "amtool config routes test" in answer["msg"]


def test_a_silence_that_swallows_everything_is_named(stack: Stack) -> None:
    silences = f"{stack.urls['alertmanager0']}/api/v2/silence"
    body = {
        "matchers": [{"name": "severity", "value": "critical", "isRegex": False, "isEqual": True}],
        "startsAt": "2020-01-01T00:00:00Z",
        "endsAt": "2100-01-01T00:00:00Z",
        "createdBy": "somebody",
        "comment": "forgotten",
    }
    silence = json.loads(call(f"{silences}s", body))["silenceID"]
    try:
        answer = run(stack)
    finally:
        call(f"{silences}/{silence}", method="DELETE")
    assert answer["broken"] == ["Route of severity=critical"]
    assert f"the alert is silenced by {silence}" in answer["msg"]


MUTED = """
    - matchers: ['severity = warning']
      receiver: critical
      group_wait: 2s
      routes:
        - matchers: ['alertname = AlertPathProbe']
          mute_time_intervals: [nights]
          routes: [{matchers: [team = nobody], receiver: nobody}]
    - matchers: ['severity = info']
      mute_time_intervals: [days]
receivers:"""
ALL_DAY = "[{times: [{start_time: '00:00', end_time: '24:00'}]}]"
TIME_INTERVALS = f"""
time_intervals:
  - {{name: nights, time_intervals: {ALL_DAY}}}
  - {{name: days, time_intervals: {ALL_DAY}}}
"""


def test_a_mute_time_is_named_and_not_those_whom_it_spares(every_stack: Stack) -> None:
    """Prevents: searching Slack's address for a mistake, while Alertmanager does as it was told."""
    config = (every_stack.folder / "alertmanager0.yml").read_text()
    every_stack.configure_alertmanager(0, config.replace("\nreceivers:", MUTED) + TIME_INTERVALS)
    call(f"{every_stack.urls['alertmanager0']}/-/reload", {})
    try:
        answer = run(every_stack, labels={"severity": "warning"}, settle=10, firing_timeout=8)
    finally:
        every_stack.configure_alertmanager(0, config)
        call(f"{every_stack.urls['alertmanager0']}/-/reload", {})
    assert answer["failed"]
    assert "Look at: alertmanager_mute_times" in answer["msg"]
    assert "-e verify_severity=critical" in answer["msg"]
    if is_blind(every_stack):
        assert answer["broken"] == ["Slack", "Mail"]
        assert (
            "has not tried to send it yet; a mute time may be why (nights), which Alertmanager says from 0.28 on"
            in answer["msg"]
        )
        assert "alertmanager_slack_api_url" in answer["msg"]
    else:
        assert answer["broken"] == ["Route of severity=warning"]
        assert "the alert is muted by nights. Look at: alertmanager_mute_times" in answer["msg"]
        assert "not reached" in row(answer, "Slack")
        assert "not reached" in row(answer, "Mail")
        assert "alertmanager_slack_api_url" not in answer["msg"]


def test_a_mute_time_of_one_receiver_is_told_of_that_one_alone(stack: Stack) -> None:
    """Also prevents: waiting for a message that is not going to come."""
    config = (stack.folder / "alertmanager0.yml").read_text()
    slack = "      receiver: critical\n      mute_time_intervals: [nights]\n      continue: true\n"
    mail = "    - matchers: ['severity = critical']\n      receiver: mail\n"
    muted = config.replace("      receiver: critical\n", slack + mail)
    muted = muted.replace("    email_configs:", "  - name: mail\n    email_configs:") + TIME_INTERVALS
    stack.configure_alertmanager(0, muted)
    call(f"{stack.urls['alertmanager0']}/-/reload", {})
    began = time.monotonic()
    answer = run(stack, firing_timeout=60, receipts=receipts(stack))
    assert time.monotonic() - began < 60
    assert answer["broken"] == ["Slack"]
    assert "Slack: the alert is muted by nights. Look at: alertmanager_mute_times" in answer["msg"]
    assert "verify_severity=critical" not in answer["msg"]
    assert row(answer, "Mail").endswith("received")


def test_a_rule_file_that_prometheus_refuses_is_named(stack: Stack) -> None:
    broken = stack.folder / "rules/20-backend.rules.yml"
    broken.write_text("groups: [{name: x, rules: [{alert: X, expr: 'sum('}]}]")
    try:
        answer = run(stack)
    finally:
        broken.unlink()
    assert answer["failed"]
    assert answer["broken"] == ["Rule in Prometheus"]
    assert "Prometheus refuses its configuration" in answer["msg"]
    assert "20-backend.rules.yml" in answer["msg"]
    assert "not reached" in row(answer, "Alertmanager")


def test_a_directory_that_prometheus_does_not_read_is_named(stack: Stack, tmp_path: Path) -> None:
    answer = run(stack, rules_file=str(tmp_path / "probe.yml"), firing_timeout=3)
    assert answer["broken"] == ["Rule in Prometheus"]
    assert "do its rule_files match this path?" in answer["msg"]


def test_an_alertmanager_that_is_down_is_named(stack: Stack) -> None:
    stack.kill("alertmanager0")
    answer = run(stack, firing_timeout=3)
    assert answer["broken"] == [f"Alertmanager {stack.urls['alertmanager0']}"]
    assert "Connection refused" in answer["msg"]
    assert "not reached" in row(answer, "Slack")


def test_a_prometheus_that_is_down_is_named(stack: Stack) -> None:
    answer = run(stack, prometheus_url="http://127.0.0.1:9")
    assert answer["broken"] == ["Rule in Prometheus"]
    assert "Connection refused" in answer["msg"]


def test_of_two_alertmanagers_one_tells_and_the_dead_one_is_named(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "pair", "sid", alertmanagers=2)
    try:
        answer = run(stack, receipts=receipts(stack))
        assert not answer.get("failed"), answer
        assert sum(line.startswith("Alertmanager http") for line in answer["table"]) == 2
        stack.kill("alertmanager1")
        answer = run(stack, receipts=receipts(stack), firing_timeout=10)
        assert answer["broken"] == [f"Alertmanager {stack.urls['alertmanager1']}"]
        # The message got there all the same.
        assert row(answer, "Slack").endswith("received")
        assert row(answer, "Mail").endswith("received")
    finally:
        stack.stop()


def test_check_mode_sends_nothing_and_an_alertmanager_that_tells_nobody_is_refused(stack: Stack) -> None:
    assert run(stack, _ansible_check_mode=True)["msg"] == "No probe is sent in check mode."
    answer = run(stack, integrations=[])
    assert answer["failed"]
    assert "tells nobody" in answer["msg"]


def test_the_rule_ends_by_itself_and_goes_with_the_process(stack: Stack) -> None:
    """Prevents: an alert that fires for ever because the process was killed."""
    process = subprocess.Popen(command(stack, firing_timeout=600), stdout=subprocess.PIPE, text=True)
    rules_file = stack.folder / "rules/90-probe.rules.yml"
    until(rules_file.exists, "the probe is sent")
    expression = json.loads(rules_file.read_text())["groups"][0]["rules"][0]["expr"]
    begin, end = (float(word) for word in expression.split() if word.isdigit())
    assert end - begin == 600 + 30 + 2
    process.terminate()
    answer = json.loads(process.communicate(timeout=30)[0])
    assert "ended by signal 15" in answer["msg"]
    assert not rules_file.exists()
