"""Several workers of the backend, what must not happen to them, and one again.

The tests build on each other in this order: one process becomes two, which survive every bad change, and become one.
"""

from __future__ import annotations

import json
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from apis import Prometheus, get
from conftest import HOST
from estate import Run, run_site
from waiting import eventually

JOB = "backend-api-dev"
UNITS = "systemctl list-units --plain --no-legend --state active 'allin-backend*' | cut -d ' ' -f 1 | sort"
ONE = ["allin-backend.service"]
TWO = ["allin-backend.target", "allin-backend@1.service", "allin-backend@2.service"]


def deploy(workers: int, **variables: Any) -> Run:
    """Run site.yml for the backend and Prometheus with so many workers, and these variables on top."""
    variables = {"backend_workers": workers} | variables
    return run_site("--tags", "backend,prometheus", "--extra-vars", json.dumps(variables))


def active(host: Any) -> list[str]:
    return str(host.check_output(UNITS)).split()


def files(host: Any) -> str:
    """What the units and the settings are, and which processes run them."""
    return str(
        host.check_output(
            "sha256sum /etc/systemd/system/allin-backend* $(find /etc/allin-backend -type f -not -name '.*' | sort);"
            "readlink /opt/allin-backend/current;"
            "systemctl show --property=Id,MainPID 'allin-backend*.service'"
        )
    )


def ready(address: str, *ports: int) -> list[str]:
    return [json.loads(get(f"http://{address}:{port}/ready"))["status"] for port in ports]


@contextmanager
def taken(host: Any, port: int) -> Iterator[None]:
    """Somebody else has this port of the host."""
    host.check_output(f"systemd-run --quiet --unit=squatter --collect python3 -m http.server {port}")
    try:
        yield
    finally:
        host.check_output("systemctl stop squatter.service")


def test_a_port_that_is_taken_gives_the_one_process_back(host: Any, address: str) -> None:
    """Prevents: a change from one unit to several that fails half-way and leaves neither."""
    assert active(host) == ONE
    with taken(host, 7002):
        run = deploy(2)
    assert run.code != 0
    assert "What ran before was put back and answers" in run.output
    assert "127.0.0.1:7002/ready" in run.output
    assert active(host) == ONE
    assert host.run("ls /etc/systemd/system/allin-backend@.service /etc/systemd/system/allin-backend.target").rc != 0
    assert not host.file("/etc/allin-backend/worker-1.env").exists
    assert ready(address, 7000) == ["ready"]


def test_two_workers_share_the_requests_and_each_is_scraped(
    host: Any, address: str, backend: str, prometheus: Prometheus
) -> None:
    """Prevents: a worker that gets no requests, and one that nobody watches."""
    run = deploy(2)
    assert run.code == 0, run.output[-3000:]
    assert active(host) == TWO
    assert not host.file("/etc/systemd/system/allin-backend.service").exists
    assert ready(address, 7000, 7001, 7002) == ["ready"] * 3

    def of_the_job() -> dict[str, str]:
        return {instance: health for (job, instance), health in prometheus.targets().items() if job == JOB}

    wanted = {f"{HOST}:7001": "up", f"{HOST}:7002": "up"}
    eventually(of_the_job, lambda seen: seen == wanted, within=30, what=f"targets {wanted}")

    def counts() -> list[float]:
        counter = f'allin_http_requests_total{{job="{JOB}",route="/health",method="GET",status_code="200"}}'
        return [float(one["value"][1]) for one in prometheus.query(counter)]

    before = sum(eventually(counts, lambda seen: len(seen) == 2, within=20, what="a counter of each worker"))
    # A new connection each, which the kernel gives to one of the two. All 64 to the same: once in 2**63.
    for _ in range(64):
        get(f"{backend}/health")
    after = eventually(counts, lambda seen: sum(seen) == before + 64, within=20, what=f"{before + 64} in all")
    assert min(after) > 0


def test_a_second_run_with_workers_changes_nothing(host: Any) -> None:
    before = files(host)
    run = deploy(2)
    assert run.code == 0, run.output[-3000:]
    assert run.changed(HOST) == 0
    assert files(host) == before


def test_a_migration_that_fails_leaves_what_runs_alone(host: Any, address: str) -> None:
    """Prevents: a release that is switched to a database which it cannot use."""
    before = files(host)
    run = deploy(2, backend_database_url="sqlite+aiosqlite:////var/lib/allin-backend/missing/allin.db")
    assert run.code != 0
    assert "cannot migrate the database" in run.output
    assert "Nothing that runs had been replaced" in run.output
    assert files(host) == before
    assert ready(address, 7000, 7001, 7002) == ["ready"] * 3


def test_a_change_reaches_one_worker_after_the_other_and_loses_no_request(host: Any, backend: str) -> None:
    """Prevents: an outage at each deployment."""
    done = threading.Event()
    failures: list[str] = []
    answered = 0

    def ask() -> None:
        nonlocal answered
        while not done.is_set():
            try:
                get(f"{backend}/health")
                answered += 1
            except (OSError, urllib.error.URLError) as error:
                failures.append(repr(error))

    before = host.check_output("systemctl show --property=MainPID 'allin-backend@*.service'")
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        run = deploy(2, backend_extra_settings={"ALLIN_KEEP_ALIVE_SECONDS": "70"})
    finally:
        done.set()
        asking.join()
    assert run.code == 0, run.output[-3000:]
    after = host.check_output("systemctl show --property=MainPID 'allin-backend@*.service'")
    assert not set(before.split()) & set(after.split()), "a worker was not restarted"
    assert failures == []
    assert answered > 0


def test_the_target_stands_for_all_workers(host: Any, address: str) -> None:
    """Prevents: an operator who stops one of several and wonders who still answers."""
    host.check_output("systemctl stop allin-backend.target")
    assert active(host) == []
    with pytest.raises(urllib.error.URLError):
        get(f"http://{address}:7000/health")
    host.check_output("systemctl start allin-backend.target")
    eventually(lambda: ready(address, 7001, 7002), within=30, what="both workers are ready")
    assert active(host) == TWO


def test_two_become_one_again(host: Any, address: str, prometheus: Prometheus) -> None:
    """Prevents: workers that nobody deploys any more and that still answer with an old release."""
    run = deploy(1)
    assert run.code == 0, run.output[-3000:]
    assert active(host) == ONE
    assert ready(address, 7000) == ["ready"]
    assert host.run("ls /etc/systemd/system/allin-backend@.service /etc/systemd/system/allin-backend.target").rc != 0
    assert not host.file("/etc/allin-backend/worker-1.env").exists
    eventually(
        lambda: {instance for job, instance in prometheus.targets() if job == JOB},
        lambda seen: seen == {f"{HOST}:7000"},
        within=30,
        what="one target",
    )
    again = deploy(1)
    assert again.code == 0, again.output[-3000:]
    assert again.changed(HOST) == 0
