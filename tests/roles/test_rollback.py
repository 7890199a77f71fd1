"""The way back of a service role, run by Ansible itself: systemd is played by a script, the service by a thread."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
show) printf 'Id=example.service\\nLoadState=loaded\\nActiveState=active\\nSubState=running\\n' ;;
start | restart) cp {directory}/secrets/key {directory}/read ;;
esac
"""


class Service:
    """A service that works with one key alone, and that reads it when it is started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "systemctl.log"
        programs = directory / "bin"
        programs.mkdir()
        for name, script in (
            ("systemctl", SYSTEMCTL.format(log=self.log, directory=directory)),
            ("journalctl", "#!/bin/sh\necho the key does not fit\n"),
        ):
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                read = service.directory / "read"
                self.send_response(200 if read.exists() and read.read_text() == "SECRET-good" else 503)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()

    def read(self, key: str) -> None:
        """Let the service have read a key."""
        (self.directory / "read").write_text(key)

    def deploy(
        self,
        secret: str,
        *options: str,
        works: bool = False,
        read: bool = True,
        setting: str = "1",
        cut_off: bool = False,
    ) -> str:
        """Run the play and return what it says."""
        variables = {
            "directory": str(self.directory),
            "owner": str(os.getuid()),
            "group": str(os.getgid()),
            "secret": secret,
            "setting": setting,
            "works": works,
            "read": read,
            "cut_off": cut_off,
            "url": f"http://127.0.0.1:{self.server.server_port}/ready",
        }
        run = subprocess.run(
            ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), *options, "tests/roles/rollback.yml"],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{self.directory}/bin:{os.environ['PATH']}", "SYSTEMD_OFFLINE": "0"},
        )
        assert (run.returncode == 0) == works, run.stdout + run.stderr
        return re.sub(r"\\n\s*|\s+", " ", run.stdout + run.stderr)

    def key(self) -> str:
        """Return the key that is live."""
        return (self.directory / "secrets/key").read_text()

    def beside(self) -> list[str]:
        """Return what is kept of former keys."""
        return sorted(entry.name for entry in self.directory.glob(".secrets*"))

    def restarts(self) -> int:
        """Return how often the service was restarted."""
        return self.log.read_text().count("restart") if self.log.exists() else 0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One that works."""
    service = Service(tmp_path)
    service.deploy("SECRET-good", works=True)
    service.read("SECRET-good")
    yield service
    service.end()


def test_a_key_that_does_not_fit_is_taken_back(service: Service) -> None:
    """Prevents: a service that is down with a new secret, and a run that says that nothing was replaced."""
    service.read("SECRET-bad")
    said = service.deploy("SECRET-bad", "--diff", "-vvv")
    assert "What ran before was put back and answers at http://127.0.0.1" in said
    assert "Put back: the former secrets." in said
    assert (service.key(), service.beside(), service.restarts()) == ("SECRET-good", [], 1)
    assert (service.directory / "secrets/key").stat().st_mode & 0o777 == 0o640
    assert "SECRET" not in said


def test_a_key_that_works_leaves_no_copy_of_the_former_one(service: Service) -> None:
    service.deploy("better", works=True)
    assert (service.key(), service.beside(), service.restarts()) == ("better", [], 0)


def test_a_key_that_is_read_when_it_is_needed_comes_back_without_a_restart(service: Service) -> None:
    said = service.deploy("SECRET-bad", read=False)
    assert "Put back: the former secrets. Nothing was restarted for that. The service answers at" in said
    assert (service.key(), service.beside(), service.restarts()) == ("SECRET-good", [], 0)


def test_what_a_cut_off_run_has_replaced_comes_back(service: Service) -> None:
    """The run that wrote the bad key ended before it could prove anything, and so did one with another bad key."""
    for key in ("SECRET-bad", "SECRET-worse"):
        service.deploy(key, cut_off=True, works=True)
    service.read("SECRET-worse")
    said = service.deploy("SECRET-worse")
    assert "What ran before was put back and answers" in said
    assert (service.key(), service.beside(), service.restarts()) == ("SECRET-good", [], 1)


def test_a_check_takes_nothing_back(service: Service) -> None:
    said = service.deploy("SECRET-bad", "--check")
    assert "This was a check: nothing was changed." in said
    assert (service.key(), service.beside(), service.restarts()) == ("SECRET-good", [], 0)


@pytest.mark.parametrize(("read", "answers"), [("SECRET-good", "answers at"), ("other", "does not answer at")])
def test_it_says_whether_the_service_answers_where_nothing_was_replaced(
    service: Service, read: str, answers: str
) -> None:
    service.read(read)
    said = service.deploy("SECRET-good")
    assert f"Nothing that runs had been replaced, so nothing was put back. The service {answers}" in said
    assert service.restarts() == 0


def test_secrets_and_configuration_come_back_together(service: Service) -> None:
    said = service.deploy("SECRET-bad", setting="2")
    assert "Put back: the former secrets, the configuration." in said
    assert (service.directory / "example/settings").read_text() == "1"
    assert (service.key(), service.restarts()) == ("SECRET-good", 1)


def test_a_first_installation_is_left_for_a_look(tmp_path: Path) -> None:
    service = Service(tmp_path)
    said = service.deploy("SECRET-bad")
    assert "there was nothing to put back, as on a first installation" in said
    assert "The service does not answer at" in said
    service.end()


def tasks_of(role: Path) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a role, those of blocks and rescues too."""

    def walk(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            yield task
            for part in ("block", "rescue", "always"):
                yield from walk(task.get(part, []))

    for file in sorted((role / "tasks").glob("*.yml")):
        yield from walk(yaml.safe_load(file.read_text()) or [])


@pytest.mark.parametrize("name", ["alertmanager", "backend", "grafana", "heartbeat_receiver"])
def test_each_role_with_secrets_has_a_way_back_for_them(name: str) -> None:
    """Prevents: a role that writes secrets and forgets one of the steps."""
    tasks = list(tasks_of(ROOT / "roles" / name))
    trees = [task for task in tasks if "secrets" in task.get("config_tree", {}).get("path", "")]
    (written,) = [task for task in trees if "files" in task["config_tree"]]
    assert written["config_tree"]["until_proven"] is True
    assert (written["no_log"], written["diff"]) == (True, False)
    (proven,) = [task for task in trees if task["config_tree"].get("state") == "proven"]
    assert proven["config_tree"]["path"] == written["config_tree"]["path"]
    (deployed,) = [task for task in tasks if "rescue" in task]
    assert deployed["vars"]["managed_service_secrets_dir"] == written["config_tree"]["path"]
    assert written["register"] in deployed["vars"]["managed_service_secrets_previous"]


def test_no_other_role_writes_secrets() -> None:
    """Who adds one is reminded of the test above."""
    found = {role.name for role in (ROOT / "roles").iterdir() if (role / "tasks").is_dir()
             for task in tasks_of(role) if "secrets" in task.get("config_tree", {}).get("path", "")}  # fmt: skip
    assert found - {"managed_service"} == {"alertmanager", "backend", "grafana", "heartbeat_receiver"}
