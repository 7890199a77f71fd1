"""What runs on a host with a Docker engine is seen: containers under their names, services under their units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from apis import Prometheus
from conftest import HOST, firing, version_on
from estate import run_site
from waiting import eventually

LABELS = {
    "job",
    "instance",
    "host",
    "id",
    "image",
    "name",
    "service",
    "container_label_team",
    "container_label_restartcount",
}
# Ran out of memory: counted from here on.
COUNTS_KILLS = [0, 57]


def names(prometheus: Prometheus, label: str) -> set[str]:
    """Values of a label of what is seen now."""
    return {one["metric"][label] for one in prometheus.query(f'container_last_seen{{{label}!=""}}')}


def test_a_container_appears_under_its_name_and_goes_when_it_ends(
    host: Any, prometheus: Prometheus, container: Callable[..., str]
) -> None:
    """Prevents: containers that nobody sees, and containers that are seen long after they have ended."""
    container("blue-whale", "sleep", "600", options="--label team=sea --label secret=x")
    (sample,) = eventually(
        lambda: prometheus.query('container_memory_working_set_bytes{name="blue-whale"}'),
        within=60,
        what="the container in Prometheus",
    )
    assert sample["metric"]["image"] == "allin-test:1"
    assert sample["metric"]["container_label_team"] == "sea"
    assert set(sample["metric"]) <= LABELS | {"__name__"}
    host.check_output("docker rm --force blue-whale")
    eventually(lambda: "blue-whale" in names(prometheus, "name"), lambda there: not there, within=30, what="it is gone")


FIGURES = {
    "container_cpu_usage_seconds_total",
    "container_memory_usage_bytes",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "container_start_time_seconds",
    "container_spec_memory_limit_bytes",
}


def test_a_container_has_its_figures(prometheus: Prometheus, container: Callable[..., str]) -> None:
    """Prevents: an exception to the sandbox that is missing, and some metrics with it."""
    container("figures", "sleep", "600", options="--memory 64m")
    eventually(
        lambda: {one["metric"]["__name__"] for one in prometheus.query('{name="figures"}')},
        lambda seen: seen >= FIGURES,
        within=30,
        what=f"{FIGURES}",
    )


def test_a_container_that_nearly_fills_its_memory_is_named(
    prometheus: Prometheus, container: Callable[..., str]
) -> None:
    # Files in memory are the container's memory, and cannot be given back as those on a disk can.
    fill = "dd if=/dev/zero of=/fill/file bs=1M count=60; sleep 600"
    container("greedy", "sh", "-c", fill, options="--memory 64m --tmpfs /fill:size=64m")
    eventually(
        lambda: firing(prometheus, "ContainerMemoryNearLimit"),
        lambda seen: seen == {"greedy"},
        within=60,
        what="ContainerMemoryNearLimit",
        explain=lambda: str(prometheus.query('container_memory_working_set_bytes{name="greedy"}')),
    )


def test_a_container_that_runs_out_of_memory_is_named(
    host: Any, prometheus: Prometheus, container: Callable[..., str], version: list[int]
) -> None:
    if version < COUNTS_KILLS:
        pytest.skip(
            f"cAdvisor {version} counts nothing that ran out of memory; put 0.57 or newer into the artifacts folder"
        )
    # What the kernel kills is a child: the container lives on, as a server with a greedy request does.
    container(
        "eater", "sh", "-c", "while :; do tail /dev/zero; sleep 5; done", options="--memory 64m --memory-swap 64m"
    )
    eventually(
        lambda: firing(prometheus, "ContainerOomKilled"),
        lambda seen: seen == {"eater"},
        within=90,
        what="ContainerOomKilled",
        explain=lambda: str(host.run("journalctl --unit cadvisor --lines 20 --output cat").stdout),
    )


def test_a_container_that_keeps_restarting_is_named(prometheus: Prometheus, container: Callable[..., str]) -> None:
    container("unsteady", "sh", "-c", "sleep 4; exit 1", options="--restart always")
    eventually(
        lambda: firing(prometheus, "ContainerRestarting"),
        lambda seen: "unsteady" in seen,
        within=120,
        what="ContainerRestarting",
        explain=lambda: str(prometheus.query('container_start_time_seconds{name="unsteady"}')),
    )


def test_services_appear_under_their_units(prometheus: Prometheus) -> None:
    wanted = {"prometheus.service", "cadvisor.service", "docker.service"}
    eventually(lambda: names(prometheus, "service"), lambda seen: wanted <= seen, within=30, what=f"{wanted}")
    # Nothing else of the machine below is: its own services, its other containers.
    ids = {one["metric"]["id"] for one in prometheus.query(f'container_last_seen{{host="{HOST}", name=""}}')}
    roots = {one.partition("/system.slice/")[0] for one in ids - {"/"}}
    assert len(roots) == 1


def test_the_engine_and_the_release_are_told(prometheus: Prometheus, version: list[int]) -> None:
    (info,) = prometheus.query(f'cadvisor_version_info{{host="{HOST}"}}')
    assert info["metric"]["cadvisorVersion"] == version_on(HOST)
    assert version[:2] >= [0, 38]


NO_KERNEL_LOG = "Could not configure a source for OOM detection"


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("ProtectProc=invisible", "container_network_"),
        ("SupplementaryGroups=", 'name="watched"'),
        ("CapabilityBoundingSet=~CAP_DAC_READ_SEARCH", 'name="watched"'),
        ("PrivateDevices=true", NO_KERNEL_LOG),
        ("ProtectKernelLogs=true", NO_KERNEL_LOG),
        ("CapabilityBoundingSet=~CAP_SYSLOG", NO_KERNEL_LOG),
    ],
)
def test_every_exception_to_the_sandbox_is_needed(
    host: Any, container: Callable[..., str], without: str, missing: str
) -> None:
    """Prevents: a privilege that is given for nothing. Each is taken away in turn."""
    folder = "/run/systemd/system/cadvisor.service.d"

    def metrics() -> list[str]:
        return str(host.check_output("curl -fsS http://127.0.0.1:8080/metrics")).splitlines()

    def restart() -> None:
        host.check_output("systemctl daemon-reload && systemctl restart cadvisor")
        # The services are there as soon as anything is.
        eventually(lambda: [one for one in metrics() if "docker.service" in one], within=30, what="it measures")

    def has_it() -> bool:
        if missing == NO_KERNEL_LOG:
            run = host.check_output("systemctl show --value --property InvocationID cadvisor")
            return missing not in host.check_output(f"journalctl _SYSTEMD_INVOCATION_ID={run} --output cat")
        return any(missing in one and not one.startswith("#") for one in metrics())

    container("watched", "sleep", "600")
    eventually(has_it, within=30, what=f"{missing} with everything")
    host.check_output(f"mkdir -p {folder} && printf '[Service]\\n{without}\\n' > {folder}/without.conf")
    try:
        restart()
        assert not has_it()
    finally:
        host.check_output(f"rm -r {folder}")
        restart()


def test_the_sandbox_is_as_tight_as_it_was(host: Any) -> None:
    """Prevents: an exception that nobody decided. systemd rates 0 (nothing exposed) to 10.

    Without Docker it is 2.1, and without the kernel's log 1.6.
    """
    rating = host.run("systemd-analyze security --no-pager --threshold=24 cadvisor.service")
    assert rating.rc == 0, rating.stdout


def test_a_second_run_changes_nothing() -> None:
    run = run_site("--tags", "cadvisor", "--limit", HOST)
    assert run.code == 0, run.output[-3000:]
    assert run.changed(HOST) == 0
