"""tools/check_machine.py: every problem is seen and comes with a remedy."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import check_machine as tool

DEBIAN = {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)"}
GIB = tool.GIB


def test_os_release_is_read_with_and_without_quotes() -> None:
    text = '# comment\nID=ubuntu\nPRETTY_NAME="Ubuntu 24.04"\nID_LIKE=debian\n\n'
    assert tool.parse_os_release(text) == {"ID": "ubuntu", "PRETTY_NAME": "Ubuntu 24.04", "ID_LIKE": "debian"}


@pytest.mark.parametrize("os_release", [DEBIAN, {"ID": "ubuntu"}, {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}])
def test_debian_and_its_relatives_will_do(os_release: dict[str, str]) -> None:
    assert tool.check_system(os_release, "x86_64", "Linux") == []


@pytest.mark.parametrize(
    ("os_release", "machine", "system", "named"),
    [
        ({"ID": "fedora", "PRETTY_NAME": "Fedora Linux 42"}, "x86_64", "Linux", "Fedora Linux 42"),
        ({}, "x86_64", "Darwin", "Darwin"),
        ({"ID": "debian", "PRETTY_NAME": "Debian GNU/Hurd"}, "x86_64", "GNU", "Debian GNU/Hurd"),
        (DEBIAN, "riscv64", "Linux", "riscv64"),
    ],
)
def test_other_systems_and_processors_are_named(
    os_release: dict[str, str], machine: str, system: str, named: str
) -> None:
    (problem,) = tool.check_system(os_release, machine, system)
    assert named in problem.what
    assert problem.remedy


def docker_problems(
    version: str = "", *, is_root: bool = True, has_apt: bool = True, docker_host: str = ""
) -> list[tool.Problem]:
    """Check an engine of the given version ("" is none)."""
    return tool.check_docker(
        tool.Docker(version=version), is_root=is_root, has_apt=has_apt, environment={"DOCKER_HOST": docker_host}
    )


def test_an_engine_that_answers_or_can_be_installed_will_do() -> None:
    assert docker_problems("26.1.5", is_root=False) == []
    assert docker_problems(is_root=True, has_apt=True) == []


def test_no_engine_and_no_root_says_whom_to_ask() -> None:
    (problem,) = docker_problems(is_root=False)
    assert "sudo tools/ensure_docker.sh" in problem.remedy


def test_a_remote_engine_that_is_silent_is_named() -> None:
    (problem,) = docker_problems(docker_host="tcp://far.example:2375")
    assert "tcp://far.example:2375" in problem.what


def test_no_engine_and_no_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = docker_problems(has_apt=False)
    assert "apt-get" in problem.what


def test_docker_is_described_from_what_it_says() -> None:
    def call(command: Sequence[str]) -> str:
        if "info" in command:
            return '"20.10.24" "/srv/docker"\n'
        return '{"7000/tcp":[{"HostIp":"127.0.0.1","HostPort":"7000"}],"9100/tcp":null}\n'

    docker = tool.look_at_docker(call)
    assert docker == tool.Docker("20.10.24", Path("/srv/docker"), frozenset({7000}), container=True)


def test_a_silent_docker_is_described_as_none() -> None:
    # A client without an engine: older ones fail, newer ones print empty strings and succeed.
    assert tool.look_at_docker(lambda _: None) == tool.Docker()
    assert tool.look_at_docker(lambda _: '"" ""\n') == tool.Docker()


def test_our_container_need_not_exist() -> None:
    docker = tool.look_at_docker(lambda command: '"26.1.5" "/var/lib/docker"\n' if "info" in command else None)
    assert docker == tool.Docker("26.1.5", Path("/var/lib/docker"), frozenset(), container=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  # for a moment, and nothing is served
def test_a_port_that_somebody_listens_on_is_a_problem(address: str) -> None:
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        (problem,) = tool.check_ports({port: "the backend"}, frozenset(), owner=lambda _: "nginx (process 12)")
        assert f"Port {port} of 127.0.0.1 (for the backend) is held by nginx (process 12)" in problem.what
        assert "local_host_published_ports" in problem.remedy
        assert tool.check_ports({port: "the backend"}, frozenset({port})) == []
    assert tool.check_ports({port: "the backend"}, frozenset()) == []


def test_a_connection_that_is_just_closing_does_not_hold_the_port() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        server.close()  # the server closes first, so its side stays in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    assert tool.port_is_free(port)


def test_the_holder_of_a_port_is_named() -> None:
    line = 'LISTEN 0 4096 127.0.0.1:9090 0.0.0.0:* users:(("prometheus",pid=4711,fd=7))\n'
    assert tool.port_owner(9090, lambda _: line) == "prometheus (process 4711)"
    assert tool.port_owner(9090, lambda _: None) == "another program"


def test_a_full_disk_is_named_with_both_numbers() -> None:
    places = {Path("/var/lib/docker"): "Docker's images", Path("/repo"): "this repository"}
    problems = tool.check_disk(places, 3 * GIB, lambda path: GIB if path == Path("/repo") else 5 * GIB)
    assert [problem.what for problem in problems] == ["/repo (this repository) has 1.0 GiB left; 3 GiB are needed."]
    assert tool.check_disk(places, 3 * GIB, lambda _: 3 * GIB) == []


def test_the_disk_of_a_directory_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    assert tool.nearest_existing(tmp_path / "var" / "lib" / "docker") == tmp_path
    assert tool.free_bytes(tmp_path / "not" / "there") > 0


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("", 2 * GIB), ("max\n", 2 * GIB), (f"{GIB}\n", GIB), ("9223372036854771712\n", 2 * GIB)],
)
def test_memory_is_the_machines_or_the_control_groups(limit: str, expected: int) -> None:
    assert tool.memory_bytes(f"MemTotal:  {2 * GIB // 1024} kB\nMemFree: 1 kB\n", limit) == expected


def test_too_little_memory_is_a_problem() -> None:
    (problem,) = tool.check_memory(GIB)
    assert problem.what == "The machine has 1.0 GiB of memory; 1.5 GiB are needed."
    assert tool.check_memory(int(1.5 * GIB)) == []


def test_all_problems_come_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tool, "look_at_docker", lambda: tool.Docker("26.1.5"))
    monkeypatch.setattr(tool, "read_text", lambda path: "MemTotal: 1024 kB" if path == "/proc/meminfo" else "")
    monkeypatch.setattr(tool, "check_disk", lambda *_: [tool.Problem("disk", "free it")])
    monkeypatch.setattr(tool, "check_ports", lambda *_: [tool.Problem("port", "stop it")])
    assert tool.main(["up"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n  - ") == 4  # system, disk, memory, port
    assert "make up" in text


def test_tests_need_no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "look_at_docker", lambda: tool.Docker("26.1.5"))
    monkeypatch.setattr(tool, "check_disk", lambda *_: [])
    monkeypatch.setattr(tool, "check_ports", lambda *_: [tool.Problem("port", "stop it")])
    assert tool.main(["test"]) == 0
    assert tool.main(["up"]) == 1
