"""Containers and services: what cAdvisor sees of Docker's containers and of systemd's services."""

from __future__ import annotations

from typing import Final

from dashboards.board import Board, Row, choice
from dashboards.names import Folder, Uid
from dashboards.panels import (
    HALF,
    QUARTER,
    THIRD,
    Column,
    Unit,
    bad_from,
    column,
    graph,
    listing,
    more,
    query,
)
from dashboards.queries import highest, increase, of_host, rate, ratio, total
from dashboards.targets import LIMITS

_NO_CONTAINERS: Final = "No containers: none run here, or cAdvisor may not ask Docker"
_NO_SERVICES: Final = "cAdvisor is not scraped"
_NEAR: Final = LIMITS["container_memory_near_limit"]["ratio"]
_THROTTLED: Final = LIMITS["container_cpu_throttled"]["ratio"]


def _container(metric: str, *matchers: str) -> str:
    return of_host(metric, 'name=~"$name"', 'name!=""', *matchers)


def _service(metric: str) -> str:
    return of_host(metric, 'service!=""')


_MEMORY: Final = highest(_container("container_memory_working_set_bytes"), "host", "name")
_LIMIT: Final = highest(_container("container_spec_memory_limit_bytes"), "host", "name")
_CPU: Final = total(rate(_container("container_cpu_usage_seconds_total")), "host", "name")
_RECEIVED: Final = total(rate(_container("container_network_receive_bytes_total")), "host", "name")
_SENT: Final = total(rate(_container("container_network_transmit_bytes_total")), "host", "name")
_STARTED: Final = _container("container_start_time_seconds")
# From 0.57 on cAdvisor tells the last start; before, each restart is a series of its own.
_RESTARTS: Final = (
    f"changes(max by (host, name) ({_STARTED})[1h:30s]) + count by (host, name) (count_over_time({_STARTED}[1h])) - 1"
)

_CONTAINERS: Final = Row(
    "Containers",
    [
        listing(
            "Containers at a glance",
            "Every container that runs, or ran within minutes. Bad: restarts, processes killed for lack of memory,"
            " memory near its limit. A container that is missing here does not run: ContainerAbsent tells of those"
            " that must.",
            column(_CPU, "A"),
            column(_MEMORY, "B"),
            column(f"{_MEMORY} / ({_LIMIT} > 0)", "C"),
            column(_RESTARTS, "D"),
            column(total(increase(_container("container_oom_events_total"), "1h"), "host", "name"), "E"),
            column(f"max by (host, name, image) ({_STARTED}) * 1000", "F"),
            columns=[
                Column("name", "Container"),
                Column("host", "Host", width=120),
                Column("image", "Image"),
                Column("A", "Cores", Unit.CORES, of_query=True, decimals=2, width=70),
                Column("B", "Memory", Unit.BYTES, of_query=True, width=90),
                Column(
                    "C", "Of its limit", Unit.RATIO, of_query=True, steps=bad_from(0.8, _NEAR), decimals=0, width=100
                ),
                Column("D", "Restarts, 1 h", Unit.COUNT, of_query=True, steps=bad_from(1, 3), decimals=0, width=110),
                Column("E", "Killed, 1 h", Unit.COUNT, of_query=True, steps=bad_from(1), decimals=0, width=95),
                Column("F", "Started", Unit.MOMENT, of_query=True, width=130),
            ],
            sort="Memory",
            height=9,
            empty=_NO_CONTAINERS,
            alerts=["ContainerAbsent", "ContainerRestarting"],
        ),
        graph(
            "CPU of containers",
            "Cores that each container uses. Bad: one that takes the whole host. Then see the dashboard Hosts for"
            " whether it is at its end.",
            query(_CPU, "{{host}} {{name}}"),
            unit=Unit.CORES,
            width=THIRD,
            stacked=True,
            decimals=2,
            empty=_NO_CONTAINERS,
            links=[more(Uid.HOSTS, "Hosts")],
        ),
        graph(
            "Memory of containers",
            "Memory that cannot be taken back (working set) of each container. Bad: a line that only rises: a leak,"
            " which ends at the limit.",
            query(_MEMORY, "{{host}} {{name}}"),
            unit=Unit.BYTES,
            width=THIRD,
            stacked=True,
            empty=_NO_CONTAINERS,
        ),
        graph(
            "Memory of its limit",
            "Share of its own limit that each container uses; those without a limit are not here. Alert at"
            f" {_NEAR:.0%}. Bad: 100 %: its processes are killed.",
            query(f"{_MEMORY} / ({_LIMIT} > 0)", "{{host}} {{name}}"),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_from(_NEAR),
            decimals=0,
            empty="No container has a memory limit",
            alerts=["ContainerMemoryNearLimit"],
        ),
        graph(
            "Network of containers",
            "Received (above zero) and sent (below), a second. Those that use the host's own network count with the"
            " host.",
            query(_RECEIVED, "{{host}} {{name}} received", "A"),
            query(_SENT, "{{host}} {{name}} sent", "B"),
            unit=Unit.BYTES_PER_SECOND,
            width=THIRD,
            low=None,
            below=[".* sent"],
            empty=_NO_CONTAINERS,
        ),
        graph(
            "Held back by the CPU limit",
            "Share of its periods in which a container had used up its CPU allowance and had to wait. Alert (info)"
            f" at {_THROTTLED:.0%}. Bad: much, with a service that is slow: raise the limit. Without a limit there is"
            " nothing here.",
            query(
                ratio(
                    total(rate(_container("container_cpu_cfs_throttled_periods_total")), "host", "name"),
                    total(rate(_container("container_cpu_cfs_periods_total")), "host", "name"),
                ),
                "{{host}} {{name}}",
            ),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_from(_THROTTLED),
            decimals=0,
            empty="No container has a CPU limit",
            alerts=["ContainerCpuThrottled"],
        ),
        graph(
            "Restarts and kills",
            "Restarts of each container, and processes killed for lack of memory, in the hour before. Zero is"
            " normal. Bad: a container that restarts again and again: its log says why; killed: its limit is too"
            " low, or it leaks.",
            query(f"{_RESTARTS} > 0", "{{host}} {{name}} restarts", "A"),
            query(
                f"{total(increase(_container('container_oom_events_total'), '1h'), 'host', 'name')} > 0",
                "{{host}} {{name}} killed",
                "B",
            ),
            unit=Unit.COUNT,
            width=THIRD,
            decimals=0,
            empty="No restarts, and nothing was killed",
            alerts=["ContainerRestarting", "ContainerOomKilled"],
        ),
    ],
)

_SERVICE_CPU: Final = total(rate(_service("container_cpu_usage_seconds_total")), "host", "service")
_SERVICE_MEMORY: Final = highest(_service("container_memory_working_set_bytes"), "host", "service")
_SERVICE_LIMIT: Final = highest(_service("container_spec_memory_limit_bytes"), "host", "service")
_SERVICE_STARTED: Final = highest(_service("container_start_time_seconds"), "host", "service")
_SERVICE_KILLED: Final = total(increase(_service("container_oom_events_total"), "1h"), "host", "service")


_SERVICES: Final = Row(
    "Services of systemd",
    [
        listing(
            "Services at a glance",
            "Every service that runs. Bad: restarts that nobody made, processes killed for lack of memory. A unit"
            " that failed is in the dashboard Hosts.",
            column(_SERVICE_CPU, "A"),
            column(_SERVICE_MEMORY, "B"),
            column(f"changes({_SERVICE_STARTED}[1h:30s])", "C"),
            column(_SERVICE_KILLED, "D"),
            column(f"{_SERVICE_STARTED} * 1000", "E"),
            column(f"{_SERVICE_MEMORY} / ({_SERVICE_LIMIT} > 0)", "F"),
            columns=[
                Column("service", "Service"),
                Column("host", "Host", width=130),
                Column("A", "Cores", Unit.CORES, of_query=True, decimals=3, width=80),
                Column("B", "Memory", Unit.BYTES, of_query=True, width=95),
                Column(
                    "F",
                    "Of its limit",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(0.8, LIMITS["service_memory_near_limit"]["ratio"]),
                    decimals=0,
                    width=105,
                ),
                Column("C", "Restarts, 1 h", Unit.COUNT, of_query=True, steps=bad_from(1, 3), decimals=0, width=115),
                Column("D", "Killed, 1 h", Unit.COUNT, of_query=True, steps=bad_from(1), decimals=0, width=100),
                Column("E", "Started", Unit.MOMENT, of_query=True, width=130),
            ],
            sort="Memory",
            height=9,
            empty=_NO_SERVICES,
            alerts=["ServiceMemoryNearLimit", "HostUnitRestarting"],
            links=[more(Uid.HOSTS, "Hosts")],
        ),
        graph(
            "CPU of services",
            "Cores that each service uses, the ten that use most. Bad: one that takes the whole host, or one that"
            " worked little until its last start.",
            query(f"topk(10, {_SERVICE_CPU})", "{{host}} {{service}}"),
            unit=Unit.CORES,
            width=HALF,
            stacked=True,
            decimals=3,
            empty="Nothing counts the CPU time of services here (cgroup v1), or cAdvisor is not scraped",
        ),
        graph(
            "Memory of services",
            "Memory that cannot be taken back (working set) of each service, the ten that hold most. Bad: a line"
            " that only rises.",
            query(f"topk(10, {_SERVICE_MEMORY})", "{{host}} {{service}}"),
            unit=Unit.BYTES,
            width=HALF,
            stacked=True,
            empty=_NO_SERVICES,
        ),
        graph(
            "Restarts of services",
            "Starts of each service in the hour before. Bad: any that nobody made: the journal says why it ended.",
            query(f"changes({_SERVICE_STARTED}[1h:30s]) > 0", "{{host}} {{service}}"),
            unit=Unit.COUNT,
            width=HALF,
            decimals=0,
            empty="No restarts",
        ),
        graph(
            "Killed for lack of memory",
            "Processes of each service that the kernel killed in the hour before. Bad: any: its limit is too low, or"
            " it leaks.",
            query(f"{_SERVICE_KILLED} > 0", "{{host}} {{service}}"),
            unit=Unit.COUNT,
            width=QUARTER,
            decimals=0,
            empty="Nothing was killed",
            alerts=["HostOomKill"],
        ),
        graph(
            "Scrapes of cAdvisor",
            "How long Prometheus needs to ask each cAdvisor. Bad: seconds: it watches more than it can; see its flags.",
            query(of_host("scrape_duration_seconds", 'job="cadvisor"'), "{{host}}"),
            unit=Unit.SECONDS,
            width=QUARTER,
            empty=_NO_SERVICES,
            alerts=["ScrapeSlow"],
        ),
    ],
)

BOARD: Final = Board(
    Uid.CONTAINERS,
    Folder.INFRASTRUCTURE,
    "Containers and services",
    "What runs on the hosts, as cAdvisor sees it: containers of Docker and services of systemd.",
    [_CONTAINERS, _SERVICES],
    [
        choice("host", "Host", 'label_values(up{job="cadvisor"}, host)'),
        choice("name", "Container", 'label_values(container_last_seen{name!="", host=~"$host"}, name)'),
    ],
    mine='component="container", host=~"$host"',
    span="3h",
)
