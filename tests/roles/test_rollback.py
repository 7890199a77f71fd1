"""The way back of a service role, run by Ansible itself: systemd is played by a script, the service by a thread."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
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
        return self.play("rollback.yml", variables, *options, works=works)

    def play(self, name: str, variables: dict[str, Any], *options: str, works: bool) -> str:
        """Run a play, which must work or not, and return what it says."""
        run = subprocess.run(
            ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), *options, f"tests/roles/{name}"],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{self.directory}/bin:{os.environ['PATH']}"},
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


# Each start of the release 2 migrates the database; the release 1 does not start with that.
MIGRATING = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
show)
    state=$(cat {directory}/state)
    printf 'Id=example.service\\nLoadState=loaded\\nActiveState=%s\\nSubState=%s\\n' $state $state ;;
stop) echo inactive > {directory}/state ;;
start | restart)
    echo active > {directory}/state
    exec {python} {directory}/bin/start.py {directory} ;;
esac
"""
START = """
import pathlib, sqlite3, sys
directory = pathlib.Path(sys.argv[1])
version = (directory / "example/current").resolve().name
database = sqlite3.connect(directory / "data/example.db")
with database:
    if version == "2":
        database.execute("PRAGMA user_version = 2")
    schema = database.execute("PRAGMA user_version").fetchone()[0]
database.close()
(directory / "read").write_text("SECRET-good" if schema <= int(version) else "fails")
"""


class Upgraded(Service):
    """A service of which release 1 runs, and release 2 is unpacked."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (directory / "bin/systemctl").write_text(
            MIGRATING.format(log=self.log, directory=directory, python=sys.executable)
        )
        (directory / "bin/start.py").write_text(START)
        (directory / "state").write_text("active")
        for version in "12":
            (directory / "example/releases" / version).mkdir(parents=True)
        (directory / "example/current").symlink_to(directory / "example/releases/1")
        self.database = directory / "data/example.db"
        self.database.parent.mkdir()
        with contextlib.closing(sqlite3.connect(self.database)) as database, database:
            database.execute("PRAGMA user_version = 1")
        self.read("SECRET-good")

    def upgrade(self, version: str, *options: str, works: bool) -> str:
        """Run the play and return what it says."""
        variables = {
            "directory": str(self.directory),
            "__managed_service_root": str(self.directory / "example"),
            "version": version,
            "works": works,
            "url": f"http://127.0.0.1:{self.server.server_port}/ready",
        }
        return self.play("upgrade.yml", variables, *options, works=works)

    def schema(self, name: str = "example.db") -> int:
        """Return the schema of the database or of a copy."""
        with contextlib.closing(sqlite3.connect(self.database.with_name(name))) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])

    def current(self) -> str:
        """Return which release is the current one."""
        return (self.directory / "example/current").resolve().name

    def beside_database(self) -> list[str]:
        """Return what is in the directory of the database."""
        return sorted(entry.name for entry in self.database.parent.iterdir())


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Upgraded]:
    service = Upgraded(tmp_path)
    yield service
    service.end()


def test_a_release_that_does_not_work_leaves_the_database_as_it_was(upgraded: Upgraded) -> None:
    """Prevents: a release that is put back to a database which the other one has migrated."""
    said = upgraded.upgrade("2", works=False)
    assert "What ran before was put back and answers" in said
    assert "Put back: the release, the database as 1 left it (nothing is lost" in said
    assert (upgraded.current(), upgraded.schema(), upgraded.beside_database()) == ("1", 1, ["example.db"])
    assert (upgraded.directory / "state").read_text() == "active\n"


def test_the_copy_stays_for_a_way_back_by_hand(upgraded: Upgraded) -> None:
    upgraded.upgrade("2", works=True)
    assert (upgraded.current(), upgraded.schema(), upgraded.schema("example.db.of-1")) == ("2", 2, 1)
    calls = [line.split()[0] for line in upgraded.log.read_text().splitlines() if not line.startswith("show")]
    assert calls == ["stop", "start"]
    upgraded.upgrade("2", works=True)
    assert upgraded.beside_database() == ["example.db", "example.db.of-1"]

    # As docs/operations.md has it.
    (upgraded.database.with_name("example.db.of-1")).replace(upgraded.database)
    upgraded.upgrade("1", works=True)
    assert (upgraded.current(), upgraded.schema()) == ("1", 1)


def test_a_copy_that_has_no_room_stops_the_run_before_anything_runs_otherwise(upgraded: Upgraded) -> None:
    with upgraded.database.open("r+b") as file:
        file.truncate(8 * 1024**4)
    said = upgraded.upgrade("2", works=False)
    assert "MiB free, and a copy of example.db needs 8388624 MiB" in said
    assert "Nothing that runs had been replaced, so nothing was put back. The service answers at" in said
    assert upgraded.current() == "1"
    assert not upgraded.log.exists()


def test_a_database_that_cannot_be_copied_leaves_the_service_running(upgraded: Upgraded) -> None:
    """It was stopped for the copy."""
    upgraded.database.write_bytes(b"not a database" * 100)
    # What runs has the database open and does not mind.
    (upgraded.directory / "bin/start.py").write_text("")
    said = upgraded.upgrade("2", works=False)
    assert "could not be copied: file is not a database" in said
    assert "What ran before was put back and answers" in said
    assert upgraded.current() == "1"
    assert (upgraded.directory / "state").read_text() == "active\n"


def test_a_check_copies_and_stops_nothing(upgraded: Upgraded) -> None:
    upgraded.upgrade("2", "--check", works=True)
    assert (upgraded.current(), upgraded.beside_database()) == ("1", ["example.db"])
    assert "stop" not in upgraded.log.read_text()


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
