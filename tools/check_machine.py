#!/usr/bin/env python3
"""Look whether this machine can do `make up` or `make test`, before minutes are spent on finding out.

    tools/check_machine.py up|test

Changes nothing. All problems are named at once, each with what to do about it.
Exit code 0: it can; 1: it cannot, and stderr says why; 2: wrong argument.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GIB = 1024**3
# The local host's published ports (local_host_published_ports of inventories/local).
LOCAL_PORTS = {
    3001: "Grafana",
    7000: "the backend",
    8025: "the message sinks",
    8080: "cAdvisor",
    9090: "Prometheus",
    9093: "Alertmanager",
}
LOCAL_CONTAINER = "allin-local"
DISK_BYTES_NEEDED = 3 * GIB
# Once the image and the container exist, only data and a new release are to come.
DISK_BYTES_NEEDED_AGAIN = 1 * GIB
MEMORY_BYTES_NEEDED = int(1.5 * GIB)
ARCHITECTURES = ("x86_64", "aarch64")
COMMAND_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Problem:
    """What is wrong and what a person should do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n    {self.remedy}"


@dataclass(frozen=True)
class Docker:
    """What is known about the Docker engine.

    version: the engine's, "" when none answers; root: where it keeps images and containers;
    own_ports: ports of 127.0.0.1 that our own running container holds; container: whether that container exists.
    """

    version: str = ""
    root: Path = Path("/var/lib/docker")
    own_ports: frozenset[int] = frozenset()
    container: bool = False


def run(command: Sequence[str]) -> str | None:
    """Return a command's output, or None when it is not there, fails or hangs."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def published_ports(ports: Mapping[str, object]) -> frozenset[int]:
    """Return the host ports in what `docker container inspect` calls NetworkSettings.Ports (empty when stopped)."""
    found: set[int] = set()
    for bindings in ports.values():
        if isinstance(bindings, list):
            found.update(int(binding["HostPort"]) for binding in bindings if str(binding.get("HostPort", "")).isdigit())
    return frozenset(found)


def look_at_docker(call: Callable[[Sequence[str]], str | None] = run) -> Docker:
    """Ask the Docker engine, if there is one."""
    info = call(["docker", "info", "--format", "{{json .ServerVersion}} {{json .DockerRootDir}}"])
    # When no engine answers, some clients still exit with 0 and print an empty version.
    match = re.match(r'"([^"]+)" "([^"]+)"', info or "")
    if match is None:
        return Docker()
    inspected = call(["docker", "container", "inspect", "--format", "{{json .NetworkSettings.Ports}}", LOCAL_CONTAINER])
    ports = json.loads(inspected) if inspected else None
    return Docker(
        version=match[1], root=Path(match[2]), own_ports=published_ports(ports or {}), container=inspected is not None
    )


def parse_os_release(text: str) -> dict[str, str]:
    """Return the settings of an os-release file."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def check_system(os_release: Mapping[str, str], machine: str, system: str) -> list[Problem]:
    """Check operating system and processor."""
    problems: list[Problem] = []
    name = os_release.get("PRETTY_NAME") or os_release.get("ID") or system
    relatives = {os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()}
    if system != "Linux" or not relatives & {"debian", "ubuntu"}:
        problems.append(
            Problem(
                f"This machine runs {name}; Debian (12 or newer) or Ubuntu (22.04 or newer) is needed.",
                "Use such a machine or a virtual machine: images and test tools come from apt.",
            )
        )
    if machine not in ARCHITECTURES:
        problems.append(
            Problem(
                f"The processor is {machine}; {' or '.join(ARCHITECTURES)} is needed.",
                "Use another machine: upstream's binaries are pinned for these two only.",
            )
        )
    return problems


def check_docker(docker: Docker, *, is_root: bool, has_apt: bool, environment: Mapping[str, str]) -> list[Problem]:
    """Check that a Docker engine answers, or that tools/ensure_docker.sh will be able to provide one."""
    if docker.version:
        return []
    if environment.get("DOCKER_HOST"):
        return [
            Problem(
                f"The Docker engine that DOCKER_HOST names ({environment['DOCKER_HOST']}) does not answer.",
                "Start it, or unset DOCKER_HOST to use this machine's own.",
            )
        ]
    if not is_root:
        return [
            Problem(
                "This account cannot use a Docker engine: none runs here, or it may not talk to it.",
                "Run `sudo tools/ensure_docker.sh; sudo usermod -aG docker $USER`, log in again; or run this as root.",
            )
        ]
    if not has_apt and shutil.which("dockerd") is None:
        return [Problem("Docker is not installed and there is no apt-get to do it with.", "Install Docker by hand.")]
    return []


def port_owner(port: int, call: Callable[[Sequence[str]], str | None] = run) -> str:
    """Return the name and number of the process that listens on `port`; "another program" when it cannot be seen."""
    found = re.search(r'"([^"]+)",pid=(\d+)', call(["ss", "-ltnpH", f"sport = :{port}"]) or "")
    return f"{found[1]} (process {found[2]})" if found else "another program"


def port_is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Say whether `port` can be listened on; connections that are just closing do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def check_ports(
    ports: Mapping[int, str],
    own: frozenset[int],
    is_free: Callable[[int], bool] = port_is_free,
    owner: Callable[[int], str] = port_owner,
) -> list[Problem]:
    """Check that each port of 127.0.0.1 is free or held by our own container."""
    return [
        Problem(
            f"Port {port} of 127.0.0.1 (for {purpose}) is held by {owner(port)}.",
            f"Stop that program, or leave {port} out of local_host_published_ports in inventories/local.",
        )
        for port, purpose in sorted(ports.items())
        if port not in own and not is_free(port)
    ]


def nearest_existing(path: Path) -> Path:
    """Return `path`, or the closest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return what this account may still write at `path` (bytes)."""
    return shutil.disk_usage(nearest_existing(path)).free


def check_disk(places: Mapping[Path, str], needed: int, free: Callable[[Path], int] = free_bytes) -> list[Problem]:
    """Check that each place has `needed` bytes left."""
    problems: list[Problem] = []
    for path, purpose in places.items():
        left = free(path)
        if left < needed:
            problems.append(
                Problem(
                    f"{path} ({purpose}) has {left / GIB:.1f} GiB left; {needed / GIB:.0f} GiB are needed.",
                    f"Free some space (`du -xh -d1 {path}` shows what takes it; `docker system df` what Docker takes).",
                )
            )
    return problems


def memory_bytes(meminfo: str, cgroup_limit: str = "") -> int:
    """Return this machine's memory from /proc/meminfo, or the control group's limit where that is smaller (bytes)."""
    total = int(re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    limit = cgroup_limit.strip()
    return min(total, int(limit)) if limit.isdigit() else total


def check_memory(total: int, needed: int = MEMORY_BYTES_NEEDED) -> list[Problem]:
    """Check that there is memory enough for the whole stack on one host."""
    if total >= needed:
        return []
    return [
        Problem(
            f"The machine has {total / GIB:.1f} GiB of memory; {needed / GIB:.1f} GiB are needed.",
            "Give it more, or use another machine.",
        )
    ]


def read_text(path: str) -> str:
    """Return a file's text; "" when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Look whether this machine can do `make up` or `make test`.")
    parser.add_argument("purpose", choices=("up", "test"))
    purpose = parser.parse_args(arguments).purpose

    os_release = parse_os_release(read_text("/etc/os-release"))
    docker = look_at_docker()
    memory = memory_bytes(
        read_text("/proc/meminfo") or "MemTotal: 0 kB",
        read_text("/sys/fs/cgroup/memory.max") or read_text("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    needed = DISK_BYTES_NEEDED_AGAIN if docker.container else DISK_BYTES_NEEDED
    docker_problems = check_docker(
        docker, is_root=os.geteuid() == 0, has_apt=shutil.which("apt-get") is not None, environment=os.environ
    )
    problems = [
        *check_system(os_release, platform.machine(), platform.system()),
        *docker_problems,
        *check_disk({docker.root: "Docker's images", REPOSITORY: "this repository", cache: "downloads"}, needed),
        *check_memory(memory),
    ]
    # The tests' containers publish no port. Without Docker's word our own container would look like a stranger.
    if purpose == "up" and not docker_problems:
        problems += check_ports(LOCAL_PORTS, docker.own_ports)

    if problems:
        print(f"This machine cannot do `make {purpose}` yet:", file=sys.stderr)
        for problem in problems:
            print(f"  - {problem}", file=sys.stderr)
        return 1
    engine = f"Docker {docker.version}" if docker.version else "Docker will be installed or started"
    print(
        f"machine: {os_release.get('PRETTY_NAME', platform.system())}, {os.cpu_count()} CPUs, "
        f"{memory / GIB:.1f} GiB memory, {free_bytes(docker.root) / GIB:.0f} GiB of disk left; {engine}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
