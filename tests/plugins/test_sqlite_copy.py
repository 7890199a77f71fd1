"""The module sqlite_copy, on databases with a write-ahead log as Grafana's is, run as Ansible runs it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.module_process import said_by

MODULE = Path(__file__).parents[2] / "plugins/modules/sqlite_copy.py"


def run(path: Path, version: str = "1.0", state: str = "copied", check: bool = False, **more: Any) -> dict[str, Any]:
    """Run the module as a process; return what it said."""
    arguments = {"path": str(path), "version": version, "state": state, "_ansible_check_mode": check, **more}
    return said_by(MODULE, arguments)


def write(path: Path, *values: str) -> None:
    """Add rows, in a log as Grafana has it."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS one (value TEXT)")
        database.executemany("INSERT INTO one VALUES (?)", [(value,) for value in values])


def values(path: Path) -> list[str]:
    """Return the rows."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [str(value) for (value,) in database.execute("SELECT value FROM one")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database, and the directory in which nothing else is."""
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    write(path, "first")
    path.chmod(0o640)
    return path


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sqlite_copy", MODULE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(path: Path) -> list[str]:
    """Return what is in the directory of the database."""
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_copy_goes_back_when_the_database_was_migrated(path: Path) -> None:
    result = run(path)
    assert (result["changed"], result["copy"]) == (True, f"{path}.of-1.0")
    write(path, "migrated")
    assert run(path, state="restored")["changed"]
    assert values(path) == ["first"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(path) == ["app.db"]


def test_what_is_in_the_log_of_a_process_that_was_killed_is_in_the_copy(path: Path) -> None:
    """As after a kill: the log is there, and nobody has it open."""
    program = (
        "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "d.execute('INSERT INTO one VALUES (\"second\")'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.with_name("app.db-wal").stat().st_size
    run(path)
    assert values(path.with_name("app.db.of-1.0")) == ["first", "second"]


def test_a_log_of_the_migrated_database_does_not_get_into_the_copy(path: Path) -> None:
    run(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO one VALUES ('migrated')")
        assert path.with_name("app.db-wal").stat().st_size
        run(path, state="restored")
        assert names(path) == ["app.db"]
    assert values(path) == ["first"]


def test_copies_of_versions_that_are_gone_go(path: Path) -> None:
    """Those that could be gone back to stay; what else is there is nobody's business."""
    (path.parent / "app.db.backup").write_text("by hand")
    run(path, "1.0")
    run(path, "1.1", keep=["1.0"])
    result = run(path, "1.2", keep=["1.1"])
    assert result["removed"] == [f"{path}.of-1.0"]
    assert names(path) == ["app.db", "app.db.backup", "app.db.of-1.1", "app.db.of-1.2"]


def test_an_earlier_copy_of_the_same_version_is_replaced(path: Path) -> None:
    run(path)
    write(path, "second")
    path.with_name("app.db.of-1.0.partial").write_text("left by a run that was killed")
    run(path)
    assert values(path.with_name("app.db.of-1.0")) == ["first", "second"]
    assert "app.db.of-1.0.partial" not in names(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner needs root")
def test_all_is_done_as_the_owner() -> None:
    """The owner's links lead root nowhere, and the copy belongs to the service."""
    # Not below pytest's own directory, which nobody else may enter.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "data" / "app.db"
        path.parent.mkdir()
        write(path, "first")
        path.chmod(0o640)
        for entry in (path.parent, path):
            os.chown(entry, 65534, 65534)
        precious = Path(directory) / "precious"
        precious.write_text("of root")
        path.with_name("app.db.of-1.0.partial").symlink_to(precious)
        result = run(path)
        assert result.get("changed"), result
        assert precious.read_text() == "of root"
        status = path.with_name("app.db.of-1.0").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o640)
        path.parent.chmod(0o500)
        refused = run(path)
        assert refused["failed"]
        assert "could not be copied" in refused["msg"]


def test_without_room_it_is_refused_before_anything_is_done(
    path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=1024**2))
    before = names(path)
    for state in ("room", "copied"):
        with pytest.raises(module.CopyError, match=r"has 1 MiB free, and a copy of app.db needs 17 MiB"):
            module.run({"path": str(path), "version": "1.0", "keep": [], "state": state}, False)
    assert names(path) == before


def test_what_is_no_database_is_refused_and_leaves_nothing(path: Path) -> None:
    path.write_text("not a database" * 100)
    refused = run(path)
    assert refused["failed"]
    assert "could not be copied: file is not a database" in refused["msg"]
    assert names(path) == ["app.db"]


def test_a_host_without_a_database_has_nothing_to_copy(tmp_path: Path) -> None:
    for state in ("room", "copied"):
        assert run(tmp_path / "none" / "app.db", state=state)["changed"] is False


def test_check_mode_says_the_same_and_does_nothing(path: Path) -> None:
    assert run(path, check=True)["changed"]
    assert names(path) == ["app.db"]
    assert not run(path, state="room", check=True)["changed"]
    run(path)
    write(path, "migrated")
    assert run(path, state="restored", check=True)["changed"]
    assert values(path) == ["first", "migrated"]


def test_there_must_be_something_to_put_back(path: Path) -> None:
    refused = run(path, state="restored")
    assert refused["failed"]
    assert "There is no" in refused["msg"]
    assert values(path) == ["first"]
