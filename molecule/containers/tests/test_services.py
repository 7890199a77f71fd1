"""A host that has services alone: each is seen under its unit, and a release that does not start is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apis import Prometheus
from conftest import SERVICES, firing, version_on
from estate import run_site
from waiting import eventually

FIGURES = {
    "container_memory_working_set_bytes",
    "container_spec_memory_limit_bytes",
    "container_start_time_seconds",
}


def tells_cpu_time(host: Any) -> bool:
    """Say whether its control groups tell a service's CPU time: version 2, or 1 as systemd mounts it."""
    return any(host.file(f"/sys/fs/cgroup/{name}").exists for name in ("cgroup.controllers", "cpu,cpuacct/tasks"))


def seen(prometheus: Prometheus) -> set[str]:
    """Return the metrics that Prometheus has of a service of this host."""
    question = f'{{job="cadvisor", host="{SERVICES}", service="node_exporter.service"}}'
    return {one["metric"]["__name__"] for one in prometheus.query(question)}


def test_its_services_have_their_figures(prometheus: Prometheus) -> None:
    """Prevents: a host without Docker that is scraped and of which nothing is known."""
    eventually(lambda: seen(prometheus), lambda found: found >= FIGURES, within=30, what=f"{FIGURES}")
    # The containers of the host beside it are not this one's.
    assert not prometheus.query(f'{{job="cadvisor", host="{SERVICES}", name!=""}}')


def test_its_services_have_their_cpu_time(services: Any, prometheus: Prometheus) -> None:
    if not tells_cpu_time(services):
        pytest.skip("these control groups do not tell the CPU time of services: neither version 2, nor 1 as usual")
    eventually(lambda: "container_cpu_usage_seconds_total" in seen(prometheus), within=30, what="CPU time")


def test_a_service_that_nearly_fills_its_memory_is_named(
    services: Any, prometheus: Prometheus, unit: Callable[..., None]
) -> None:
    fill = "dd if=/dev/zero of=/run/{0} bs=1M count=60; sleep 600"
    unit("modest", fill.format("modest"))
    unit("greedy", fill.format("greedy"), "MemoryMax=64M")
    eventually(
        lambda: firing(prometheus, "ServiceMemoryNearLimit"),
        lambda seen: seen == {"greedy.service"},
        within=60,
        what="ServiceMemoryNearLimit",
        explain=lambda: str(prometheus.query('{service="greedy.service"}')),
    )
    services.check_output("rm /run/greedy /run/modest")
    eventually(
        lambda: firing(prometheus, "ServiceMemoryNearLimit"),
        lambda seen: not seen,
        within=30,
        what="its end",
        explain=lambda: str(prometheus.query('{service="greedy.service"}')),
    )


def test_a_service_that_ends_again_and_again_is_named(
    services: Any, prometheus: Prometheus, unit: Callable[..., None]
) -> None:
    services.check_output("rm -f /run/mended")
    restarts = 'node_systemd_service_restart_total{name="unsteady.service"}'
    unit(
        "unsteady",
        "test -e /run/mended && exec sleep 600; exit 1",
        "Restart=always",
        "RestartSec=2",
        "StartLimitIntervalSec=0",
    )
    eventually(
        lambda: firing(prometheus, "HostUnitRestarting"),
        lambda seen: seen == {"unsteady.service"},
        within=60,
        what="HostUnitRestarting",
        explain=lambda: str(prometheus.query(restarts)),
    )
    services.check_output("touch /run/mended")
    eventually(
        lambda: firing(prometheus, "HostUnitRestarting"),
        lambda seen: not seen,
        within=90,
        what="its end",
        explain=lambda: str(prometheus.query(restarts)),
    )
    assert services.service("unsteady").is_running


def test_without_docker_the_sandbox_is_tighter(services: Any) -> None:
    """Prevents: privileges that only Docker's containers need, on a host that has none."""
    privileges = services.check_output("systemctl show cadvisor --property=SupplementaryGroups,CapabilityBoundingSet")
    assert set(privileges.splitlines()) == {"SupplementaryGroups=", "CapabilityBoundingSet=cap_syslog"}
    rating = services.run("systemd-analyze security --no-pager --threshold=21 cadvisor.service")
    assert rating.rc == 0, rating.stdout


def test_a_release_that_does_not_start_is_taken_back(services: Any, tmp_path: Path) -> None:
    """Prevents: a host of which nothing is known any more, after an upgrade."""

    def deployed() -> tuple[str, str, str]:
        unit_file = services.file("/etc/systemd/system/cadvisor.service")
        return version_on(SERVICES), services.file("/opt/cadvisor/current").linked_to, unit_file.content_string

    before = deployed()
    architecture = services.check_output("dpkg --print-architecture")
    program = tmp_path / f"cadvisor-v9.9.9-linux-{architecture}"
    program.write_text("#!/bin/sh\necho this release is broken >&2\nexit 1\n")
    # The inventory takes what is in the folder, and its checksum for the pin.
    variables = json.dumps({"artifacts_dir": str(tmp_path)})
    run = run_site("--tags", "cadvisor", "--limit", SERVICES, "--extra-vars", variables)
    assert run.code != 0
    assert "What ran before was put back and answers" in run.output
    assert "this release is broken" in run.output
    assert services.file("/opt/cadvisor/releases/9.9.9/cadvisor").exists
    assert deployed() == before


def test_a_second_run_changes_nothing() -> None:
    """Also where another release was taken back: there is nothing to mend."""
    run = run_site("--tags", "cadvisor", "--limit", SERVICES)
    assert run.code == 0, run.output[-3000:]
    assert run.changed(SERVICES) == 0
