"""Deployments page nobody, and what one of them leaves broken is told as soon as it is over."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from apis import Alertmanager, Prometheus
from client import SinkClient
from conftest import ONLY
from estate import Run, run_playbook
from injection import start
from observing import OUTAGES, Observation

ALERT = "BackendDown"
# Longer than the alert takes to fire and to be told.
DEPLOYMENT_SECONDS = 90


def deploy(*, fails: bool) -> Run:
    """Run a deployment during which the backend is down."""
    variables = {"deployment_seconds": DEPLOYMENT_SECONDS, "deployment_fails": fails}
    return run_playbook("molecule/faults/deployment.yml", "--extra-vars", json.dumps(variables))


@pytest.mark.skipif(ONLY not in ("", "deployment"), reason="another case is asked for")
def test_a_deployment_pages_nobody_unless_it_leaves_something_broken(
    host: Any, prometheus: Prometheus, alertmanager: Alertmanager, sinks: SinkClient
) -> None:
    """Prevents: a page for every deployment, and a silence that outlives the deployment which broke something."""
    before = Observation.begin(prometheus, sinks)
    before.wait(lambda: before.states().keys() <= OUTAGES, within=900, what="no alert before the deployment")
    watch = Observation.begin(prometheus, sinks)
    run = deploy(fails=False)
    assert run.code == 0, run.output[-3000:]
    watch.wait(lambda: ALERT not in watch.states(), within=120, what=f"{ALERT} is over")
    assert watch.fired() - OUTAGES == {ALERT}
    assert watch.names() - OUTAGES == set()
    print(f"\nA deployment kept the backend down for {DEPLOYMENT_SECONDS} s: {ALERT} fired, and nobody was told.")

    watch = Observation.begin(prometheus, sinks)
    run = deploy(fails=True)
    try:
        ended = time.time()
        assert run.code != 0
        watch.wait(lambda: ALERT in watch.names(), within=180, what=f"what was left broken is told: {ALERT}")
        told = watch.told[ALERT, "critical"] - ended
    finally:
        start(host)
    watch.wait(lambda: (ALERT, "critical") in watch.resolved, within=420, what=f"the message that {ALERT} is over")
    assert watch.names() - OUTAGES == {ALERT}
    active = [one for one in alertmanager.api("silences") if one["status"]["state"] == "active"]
    assert active == []
    print(f"One that failed and left it down: told {told:.1f} s after its end, and not before.")
    assert told > -1
