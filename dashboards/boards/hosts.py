"""Hosts: what node_exporter sees of the machines below everything else."""

from __future__ import annotations

from typing import Final

from dashboards.board import Board, Row, choice
from dashboards.names import Folder, Uid
from dashboards.panels import (
    BLUE,
    GREEN,
    HALF,
    ORANGE,
    QUARTER,
    RED,
    THIRD,
    YELLOW,
    Column,
    Unit,
    bad_below,
    bad_from,
    column,
    graph,
    listing,
    more,
    query,
)
from dashboards.queries import highest, increase, of_host, rate, ratio, total
from dashboards.targets import LIMITS

_DISK: Final = LIMITS["host_disk_space_low"]
_MEMORY: Final = LIMITS["host_memory_low"]
_BUSY: Final = LIMITS["host_cpu_saturated"]["ratio"]
# Real disks and networks: what is made of them, or inside of them, would be counted twice.
_DEVICES: Final = 'device!~"(ram|loop|fd|dm-|sr).*"'
_NETWORKS: Final = 'device!~"(lo|veth.*|br-.*|docker.*|virbr.*)"'
# What lives in memory or behind a program keeps nothing.
_KEPT: Final = 'fstype!~"tmpfs|ramfs|fuse.*"'
_NOT_SCRAPED: Final = "node_exporter is not scraped"

_AVAILABLE: Final = of_host("job_instance_device:node_filesystem_avail:ratio")
_UP: Final = of_host("up", 'host!=""')
_IDLE: Final = of_host("node_cpu_seconds_total", 'mode="idle"')
_WORK: Final = rate(of_host("node_cpu_seconds_total", 'mode!="idle"'))
_FAILED: Final = of_host("node_systemd_unit_state", 'state="failed"')

_ALL: Final = Row(
    "All chosen hosts",
    [
        listing(
            "Hosts at a glance",
            "One line for each host. Bad: red in any column; a host that is down has no values but its state. Load"
            " is for each core: above 1 something waits. A click on a host leaves the others out.",
            column(f"max by (host) ({_UP})", "A"),
            column(highest(of_host("job_instance:node_cpu_busy:ratio_rate5m"), "host"), "B"),
            column(
                f"max by (host) ({of_host('node_load5')}) / count by (host) ({_IDLE})",
                "C",
            ),
            column(f"1 - min by (host) ({of_host('job_instance:node_memory_available:ratio')})", "D"),
            column(f"1 - min by (host) ({_AVAILABLE})", "E"),
            column(f"sum by (host) ({_FAILED})", "F"),
            column(f"max by (host) ({of_host('node_boot_time_seconds')}) * 1000", "G"),
            columns=[
                Column(
                    "host",
                    "Host",
                    link=("This host alone", f"/d/{Uid.HOSTS}?var-host=${{__value.text}}&${{__url_time_range}}"),
                ),
                Column("A", "State", of_query=True, texts={1: ("up", GREEN), 0: ("DOWN", RED)}, width=75),
                Column(
                    "B",
                    "CPU",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(0.7, _BUSY),
                    high=1,
                    low=0,
                    decimals=0,
                    width=80,
                ),
                Column("C", "Load a core", Unit.TIMES, of_query=True, steps=bad_from(1, 2), decimals=2, width=110),
                Column(
                    "D",
                    "Memory",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(1 - _MEMORY["warning_ratio"], 1 - _MEMORY["critical_ratio"]),
                    low=0,
                    high=1,
                    bar=True,
                    decimals=0,
                    width=150,
                ),
                Column(
                    "E",
                    "Fullest disk",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(1 - _DISK["warning_ratio"], 1 - _DISK["critical_ratio"]),
                    low=0,
                    high=1,
                    bar=True,
                    decimals=0,
                    width=150,
                ),
                Column("F", "Failed units", Unit.COUNT, of_query=True, steps=bad_from(1), width=105),
                Column("G", "Booted", Unit.MOMENT, of_query=True, width=125),
            ],
            sort="Host",
            descending=False,
            height=6,
            empty=_NOT_SCRAPED,
            alerts=["HostDown", "TargetDown"],
        ),
    ],
)

_MODES: Final = {"user": BLUE, "system": ORANGE, "iowait": RED, "steal": "purple", "softirq": YELLOW, "nice": GREEN}
_CPU: Final = Row(
    "CPU",
    [
        graph(
            "CPU busy",
            "Share of all CPUs of each host that works, or is taken away by the hypervisor; waiting for a disk is"
            f" not work. Alert at {_BUSY:.0%}. Bad: near 100 % for long: everything on the host gets slower. Then see"
            " 'Containers and services' for who it is.",
            query(of_host("job_instance:node_cpu_busy:ratio_rate5m"), "{{host}}"),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_from(_BUSY),
            decimals=0,
            empty=_NOT_SCRAPED,
            alerts=["HostCpuSaturated"],
            links=[more(Uid.CONTAINERS, "Containers and services")],
        ),
        graph(
            "CPU by mode",
            "What the CPUs of the chosen hosts do, idle left out; 100 % is all of them. Bad: iowait (a slow disk),"
            " steal (a neighbour of the virtual machine), system alone (the kernel: network, or very many small"
            " calls).",
            query(
                f"sum by (mode) ({_WORK}) / scalar(count({_IDLE}))",
                "{{mode}}",
            ),
            unit=Unit.RATIO,
            width=THIRD,
            stacked=True,
            high=1,
            colors=_MODES,
            decimals=0,
            empty=_NOT_SCRAPED,
        ),
        graph(
            "Load",
            "Processes that run or wait, averaged over one and over fifteen minutes, and the number of cores"
            " (dashed). Bad: load far above the cores with CPUs that are not busy: processes wait for a disk.",
            query(of_host("node_load1"), "{{host}} 1m", "A"),
            query(of_host("node_load15"), "{{host}} 15m", "B"),
            query(f"count by (host) ({_IDLE})", "cores {{host}}", "C"),
            unit=Unit.TIMES,
            width=THIRD,
            dashed=["cores .*"],
            decimals=2,
            empty=_NOT_SCRAPED,
        ),
        graph(
            "Waiting for resources",
            "Share of time in which something had to wait for CPU, memory or disk (pressure stall information of the"
            " kernel). The most honest sign of a host that is too small. Bad: memory above a few per cent; CPU or"
            " disk above a third.",
            query(rate(of_host("node_pressure_cpu_waiting_seconds_total")), "{{host}} CPU", "A"),
            query(rate(of_host("node_pressure_memory_waiting_seconds_total")), "{{host}} memory", "B"),
            query(rate(of_host("node_pressure_io_waiting_seconds_total")), "{{host}} disk", "C"),
            unit=Unit.RATIO,
            width=HALF,
            decimals=1,
            empty="The kernel does not tell (it was built or started without psi)",
        ),
        graph(
            "Processes",
            "Processes that can run now, and those that wait for a disk or a network file system. Bad: blocked ones"
            " that stay.",
            query(total(of_host("node_procs_running"), "host"), "{{host}} running", "A"),
            query(total(of_host("node_procs_blocked"), "host"), "{{host}} blocked", "B"),
            unit=Unit.COUNT,
            width=QUARTER,
            empty=_NOT_SCRAPED,
        ),
        graph(
            "Context switches",
            "Switches between processes, a second. Bad: many times what is usual with the same traffic.",
            query(rate(of_host("node_context_switches_total")), "{{host}}"),
            unit=Unit.PER_SECOND,
            width=QUARTER,
            empty=_NOT_SCRAPED,
        ),
    ],
)

_MEMORY_ROW: Final = Row(
    "Memory",
    [
        graph(
            "Memory available",
            "Share of memory that processes can still have, caches that can be dropped included. Below"
            f" {_MEMORY['warning_ratio']:.0%} it warns, below {_MEMORY['critical_ratio']:.0%} it pages. Bad: a line"
            " that runs into zero: at the end the kernel kills a process.",
            query(of_host("job_instance:node_memory_available:ratio"), "{{host}}"),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_below(_MEMORY["warning_ratio"], _MEMORY["critical_ratio"]),
            decimals=0,
            empty=_NOT_SCRAPED,
            alerts=["HostMemoryLow"],
        ),
        graph(
            "What memory is used for",
            "Of the chosen hosts together. in use: by processes and the kernel; caches: given back when needed. Bad:"
            " in use that grows while caches shrink to nothing.",
            query(
                f"sum({of_host('node_memory_MemTotal_bytes')}) - sum({of_host('node_memory_MemAvailable_bytes')})",
                "in use",
                "A",
            ),
            query(
                f"sum({of_host('node_memory_MemAvailable_bytes')}) - sum({of_host('node_memory_MemFree_bytes')})",
                "caches",
                "B",
            ),
            query(f"sum({of_host('node_memory_MemFree_bytes')})", "free", "C"),
            unit=Unit.BYTES,
            width=THIRD,
            stacked=True,
            colors={"in use": ORANGE, "caches": BLUE, "free": GREEN},
            empty=_NOT_SCRAPED,
        ),
        graph(
            "Swapping and kills",
            "Pages swapped in and out, a second, and processes that the kernel killed for lack of memory in the ten"
            " minutes before. Zero is normal. Bad: swapping that goes on: the host is too small. A kill: see"
            " 'Containers and services' for who.",
            query(
                total(f"{rate(of_host('node_vmstat_pswpin'))} + {rate(of_host('node_vmstat_pswpout'))}", "host"),
                "{{host}} pages/s",
                "A",
            ),
            query(total(increase(of_host("node_vmstat_oom_kill"), "10m"), "host"), "{{host}} killed", "B"),
            unit=Unit.COUNT,
            width=THIRD,
            empty=_NOT_SCRAPED,
            alerts=["HostOomKill"],
        ),
    ],
)

_DISKS: Final = Row(
    "Disks",
    [
        listing(
            "File systems",
            "Space and inodes of every file system that keeps data, the fullest first. Bad: red; without inodes no"
            " file can be made, whatever space there is. 'Full in' is at the pace of the last six hours.",
            column(
                "max by (host, device, mountpoint) (1 - "
                f"{of_host('node_filesystem_avail_bytes', _KEPT)}"
                f" / {of_host('node_filesystem_size_bytes')})",
                "A",
            ),
            column(f"max by (host, device, mountpoint) ({of_host('node_filesystem_size_bytes', _KEPT)})", "B"),
            column(f"max by (host, device, mountpoint) ({of_host('node_filesystem_avail_bytes', _KEPT)})", "C"),
            column(
                "max by (host, device, mountpoint) (1 - "
                f"{of_host('node_filesystem_files_free', _KEPT)} / {of_host('node_filesystem_files')})",
                "D",
            ),
            column(
                "min by (host, device, mountpoint) ("
                f"{of_host('node_filesystem_avail_bytes', _KEPT)}"
                f" / (- deriv({of_host('node_filesystem_avail_bytes')}[6h]) > 0) < 30 * 86400)",
                "E",
            ),
            columns=[
                Column("host", "Host", width=130),
                Column("mountpoint", "Mounted at"),
                Column("device", "Device", width=120),
                Column(
                    "A",
                    "Used",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(1 - _DISK["warning_ratio"], 1 - _DISK["critical_ratio"]),
                    low=0,
                    high=1,
                    bar=True,
                    decimals=0,
                    width=150,
                ),
                Column("B", "Size", Unit.BYTES, of_query=True, width=90),
                Column("C", "Free", Unit.BYTES, of_query=True, width=90),
                Column(
                    "D",
                    "Inodes used",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(0.8, 1 - LIMITS["host_inodes_low"]["ratio"]),
                    decimals=0,
                    width=110,
                ),
                Column(
                    "E",
                    "Full in",
                    Unit.SECONDS,
                    of_query=True,
                    steps=bad_below(7 * 86400, LIMITS["host_disk_filling_up"]["hours"] * 3600),
                    decimals=0,
                    width=90,
                ),
            ],
            sort="Used",
            height=7,
            empty=_NOT_SCRAPED,
            alerts=["HostDiskSpaceLow", "HostDiskFillingUp", "HostInodesLow"],
        ),
        graph(
            "Space left",
            f"Share of each device that is free. Below {_DISK['warning_ratio']:.0%} it warns, below"
            f" {_DISK['critical_ratio']:.0%} it pages. Bad: a straight line to zero. Then find what grows: logs, or"
            " data without retention.",
            query(_AVAILABLE, "{{host}} {{device}}"),
            unit=Unit.RATIO,
            width=QUARTER,
            high=1,
            steps=bad_below(_DISK["warning_ratio"], _DISK["critical_ratio"]),
            decimals=0,
            empty=_NOT_SCRAPED,
            alerts=["HostDiskSpaceLow", "HostDiskFillingUp"],
        ),
        graph(
            "Disk throughput",
            "Read (above zero) and written (below), a second. Bad: a flat top: the disk's limit, or the one that was"
            " booked.",
            query(
                total(rate(of_host("node_disk_read_bytes_total", _DEVICES)), "host", "device"),
                "{{host}} {{device}} read",
                "A",
            ),
            query(
                total(rate(of_host("node_disk_written_bytes_total", _DEVICES)), "host", "device"),
                "{{host}} {{device}} written",
                "B",
            ),
            unit=Unit.BYTES_PER_SECOND,
            width=QUARTER,
            low=None,
            below=[".* written"],
            empty="No disks are seen from here",
        ),
        graph(
            "Disk busy",
            "Share of time in which a disk had something to do. Bad: near 100 % together with rising latency; disks"
            " that work in parallel can be busy all the time and still be well.",
            query(
                total(rate(of_host("node_disk_io_time_seconds_total", _DEVICES)), "host", "device"),
                "{{host}} {{device}}",
            ),
            unit=Unit.RATIO,
            width=QUARTER,
            high=1,
            decimals=0,
            empty="No disks are seen from here",
        ),
        graph(
            "Disk latency",
            "Mean time of a read and of a write. Bad: above some 20 ms on a solid-state disk: databases feel it at"
            " once.",
            query(
                ratio(
                    total(rate(of_host("node_disk_read_time_seconds_total", _DEVICES)), "host", "device"),
                    total(rate(of_host("node_disk_reads_completed_total", _DEVICES)), "host", "device"),
                ),
                "{{host}} {{device}} read",
                "A",
            ),
            query(
                ratio(
                    total(rate(of_host("node_disk_write_time_seconds_total", _DEVICES)), "host", "device"),
                    total(rate(of_host("node_disk_writes_completed_total", _DEVICES)), "host", "device"),
                ),
                "{{host}} {{device}} write",
                "B",
            ),
            unit=Unit.SECONDS,
            width=QUARTER,
            empty="Nothing was read or written",
        ),
    ],
)

_NETWORK: Final = Row(
    "Network",
    [
        graph(
            "Network traffic",
            "Received (above zero) and sent (below), a second, by interface; loopback and those of containers are"
            " left out. Bad: a flat top: the line's limit.",
            query(
                total(rate(of_host("node_network_receive_bytes_total", _NETWORKS)), "host", "device"),
                "{{host}} {{device}} received",
                "A",
            ),
            query(
                total(rate(of_host("node_network_transmit_bytes_total", _NETWORKS)), "host", "device"),
                "{{host}} {{device}} sent",
                "B",
            ),
            unit=Unit.BYTES_PER_SECOND,
            width=HALF,
            low=None,
            below=[".* sent"],
            empty=_NOT_SCRAPED,
        ),
        graph(
            "Lost packets",
            "Packets that were dropped or broken, a second. Bad: any that last: a cable, a driver, a queue that is"
            " too short.",
            query(
                total(
                    f"{rate(of_host('node_network_receive_drop_total', _NETWORKS))}"
                    f" + {rate(of_host('node_network_transmit_drop_total', _NETWORKS))}",
                    "host",
                ),
                "{{host}} dropped",
                "A",
            ),
            query(
                total(
                    f"{rate(of_host('node_network_receive_errs_total', _NETWORKS))}"
                    f" + {rate(of_host('node_network_transmit_errs_total', _NETWORKS))}",
                    "host",
                ),
                "{{host}} broken",
                "B",
            ),
            unit=Unit.PER_SECOND,
            width=QUARTER,
            empty=_NOT_SCRAPED,
        ),
        graph(
            "TCP connections",
            "Connections that are established, and segments that had to be sent again, a second. Bad: many sent"
            " again: a bad line to somebody; established that only grow: somebody does not close.",
            query(of_host("node_netstat_Tcp_CurrEstab"), "{{host}} established", "A"),
            query(rate(of_host("node_netstat_Tcp_RetransSegs")), "{{host}} sent again/s", "B"),
            unit=Unit.COUNT,
            width=QUARTER,
            empty=_NOT_SCRAPED,
        ),
    ],
)

_REST: Final = Row(
    "System",
    [
        listing(
            "Failed units",
            "Units that systemd has given up. Bad: any; `systemctl status` and the journal of the unit say why.",
            column(f"max by (host, name) ({_FAILED}) == 1", "A"),
            columns=[Column("host", "Host", width=100), Column("name", "Unit")],
            sort="Host",
            descending=False,
            width=QUARTER,
            empty="None has failed",
            alerts=["HostUnitFailed"],
        ),
        graph(
            "Restarts of units",
            "Times that systemd started a service again after it had ended, in the hour before; what people and"
            " timers start is not counted. Bad: any that go on: the journal says why it ends. It warns above"
            f" {LIMITS['host_unit_restarting']['restarts']} in 15 minutes.",
            query(
                f"round({increase(of_host('node_systemd_service_restart_total'), '1h')}) > 0",
                "{{host}} {{name}}",
            ),
            unit=Unit.COUNT,
            decimals=0,
            empty="None was restarted",
            alerts=["HostUnitRestarting"],
        ),
        graph(
            "Open files",
            "Share of the files that the kernel allows to be open at once. Bad: above 80 %: new connections will fail.",
            query(ratio(of_host("node_filefd_allocated"), of_host("node_filefd_maximum")), "{{host}}"),
            unit=Unit.RATIO,
            width=QUARTER,
            steps=bad_from(0.8),
            decimals=2,
            empty=_NOT_SCRAPED,
        ),
        graph(
            "Clock",
            "How far each host's clock is from that of its time service. Bad: more than half a second: rates,"
            " certificates and the order of log lines go wrong.",
            query(of_host("node_timex_offset_seconds"), "{{host}}"),
            unit=Unit.SECONDS,
            width=QUARTER,
            low=None,
            empty="Clocks are not watched here",
            alerts=["HostClockNotSynchronised"],
        ),
    ],
)

BOARD: Final = Board(
    Uid.HOSTS,
    Folder.INFRASTRUCTURE,
    "Hosts",
    "The machines below everything else: CPU, memory, disks, network.",
    [_ALL, _CPU, _MEMORY_ROW, _DISKS, _NETWORK, _REST],
    [choice("host", "Host", "label_values(node_boot_time_seconds, host)")],
    mine='component="host", host=~"$host"',
    span="3h",
)
