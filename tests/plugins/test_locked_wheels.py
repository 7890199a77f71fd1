"""`locked_wheels`: whether the backend's Python packages are to be had, and what is said when they are not."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from plugins.action.built_releases import ActionModule
from plugins.action.locked_wheels import Needed, look, needed, public, reason
from plugins.action.missing_artifacts import table, ways

TAGS = ["manylinux2014", "manylinux_2_28"]
PYTHONS = ["3.11", "3.13"]
NOWHERE = "http://127.0.0.1:9/simple"


def wheel(folder: Path, name: str, tag: str = "py3-none-any") -> str:
    """Write a wheel; return its line in a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}.py", "")
        packed.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        packed.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        packed.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture(autouse=True)
def no_other_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's own settings of this machine must not supply what a test takes away."""
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index that has what is in the folder `served`, and nothing before something is put there."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
            return

    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://someone:secret@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def serve(tmp_path: Path, name: str, tag: str = "py3-none-any") -> str:
    """Put a wheel on the index; return its line in a lock."""
    line = wheel(tmp_path / "served" / name, name, tag)
    (tmp_path / "served" / name / "index.html").write_text(f'<a href="{name}-1.0-{tag}.whl">it</a>')
    return line


def looked(tmp_path: Path, requirements: str, folder: str = "", index_url: str = "", python: str = "3.13") -> Needed:
    """Look for the packages of a lock."""
    one = Needed(python, "x86_64", ["app1"])
    packed = str(tmp_path / "packed-{python}-{machine}.tar")
    look(one, requirements, TAGS, packed, folder, index_url)
    return one


# --- Who needs what ---------------------------------------------------------------------------------------------------


def test_a_host_needs_the_packages_of_its_own_python() -> None:
    told = {"python": "3.11", "machine": "aarch64", "releases": ["0.9"]}
    (one,) = needed({"app1": told, "app2": told}, {}, PYTHONS, "1.0")
    assert (one.python, one.machine, one.hosts) == ("3.11", "aarch64", ["app1", "app2"])


def test_who_has_the_release_needs_nothing() -> None:
    """Prevents: a way back that is refused because the index is down."""
    told = {"python": "3.13", "machine": "x86_64", "releases": ["0.9", "1.0"]}
    assert needed({"app1": told}, {}, PYTHONS, "1.0") == []
    assert needed({"app1": told}, {}, PYTHONS, "1.1") != []


def test_who_says_nothing_may_have_any_python() -> None:
    found = needed({"app1": {}, "app2": {"python": "", "releases": []}}, {"app2": "arm64"}, PYTHONS, "1.0")
    assert {(one.python, one.machine, *one.hosts) for one in found} == {
        ("3.11", "x86_64", "app1"),
        ("3.13", "x86_64", "app1"),
        ("3.11", "aarch64", "app2"),
        ("3.13", "aarch64", "app2"),
    }


# --- Where they are ---------------------------------------------------------------------------------------------------


def test_what_an_earlier_run_has_packed_is_enough(tmp_path: Path) -> None:
    (tmp_path / "packed-3.13-x86_64.tar").touch()
    assert looked(tmp_path, "far==1.0 --hash=sha256:00\n", index_url=NOWHERE).found
    assert not looked(tmp_path, "far==1.0 --hash=sha256:00\n", index_url=NOWHERE, python="3.11").found


def test_a_folder_that_has_all_of_them_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    lock = wheel(folder, "near") + wheel(folder, "fast", "cp313-cp313-manylinux2014_x86_64")
    one = looked(tmp_path, lock, folder=str(folder), index_url=NOWHERE)
    assert one.found, one.looked
    assert one.looked[-1] == (f"folder (backend_wheels_dir) {folder}", "has all of them")


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    lock = "".join(wheel(folder, name) for name in ("a", "b", "c", "d", "e", "near"))
    for name in "abcde":
        (folder / f"{name}-1.0-py3-none-any.whl").unlink()
    one = looked(tmp_path, lock, folder=str(folder))
    assert not one.found
    assert one.looked[-1][1] == "5 of 6 are not there: a==1.0, b==1.0, c==1.0, d==1.0 and 1 more"
    assert looked(tmp_path, lock, folder=str(tmp_path / "none")).looked[-1][1] == "no such folder"


def test_a_wheel_for_another_python_does_not_do(tmp_path: Path) -> None:
    """Prevents: a folder that was filled for Debian 13 taken for one that serves Debian 12."""
    folder = tmp_path / "wheels"
    lock = wheel(folder, "fast", "cp313-cp313-manylinux2014_x86_64")
    one = looked(tmp_path, lock, folder=str(folder), python="3.11")
    assert not one.found
    assert one.looked[-1][1] == "fast==1.0: none that fits"


def test_an_index_that_has_all_of_them_is_enough(tmp_path: Path, index: str) -> None:
    one = looked(tmp_path, serve(tmp_path, "near"), index_url=index)
    assert one.found, one.looked
    assert "secret" not in str(one.looked)


def test_what_an_index_lacks_is_named(tmp_path: Path, index: str) -> None:
    serve(tmp_path, "near")
    one = looked(tmp_path, f"near==1.0 --hash=sha256:{'0' * 64}\n", index_url=index)
    assert one.looked[-1][1] == "near==1.0: not the hash that is locked"
    one = looked(tmp_path, f"far==1.0 --hash=sha256:{'0' * 64}\n", index_url=index)
    assert one.looked[-1][1] == "far==1.0: none that fits"
    assert "secret" not in str(one.looked)


def test_an_index_that_does_not_answer_is_told(tmp_path: Path) -> None:
    one = looked(tmp_path, f"far==1.0 --hash=sha256:{'0' * 64}\n", index_url=NOWHERE)
    assert one.looked[-1] == (f"index {NOWHERE}", "far==1.0: no answer: Connection refused")


def test_an_error_that_nobody_foresaw_is_told_as_it_is() -> None:
    assert reason("WARNING: x\nERROR: Invalid URL https://a:b@c\n") == "Invalid URL https://c"
    assert reason("") == "pip failed, and did not say why"


# --- What is said -----------------------------------------------------------------------------------------------------


def test_they_stand_in_the_table_with_ways_to_supply_them(tmp_path: Path) -> None:
    one = public(looked(tmp_path, f"far==1.0 --hash=sha256:{'0' * 64}\n", index_url=NOWHERE), "1.0-abc")
    lines = table([one])
    assert lines[1].split()[:8] == ["backend", "1.0-abc", "amd64", "Python", "packages", "for", "3.13", "app1"]
    assert lines[2].endswith("far==1.0: no answer: Connection refused")
    text = "\n".join(ways([one]))
    assert text.startswith("Two ways")
    for words in ("playbooks/artifacts.yml", "backend_wheels_dir: /path/wheels", "backend_wheels_index_url: "):
        assert words in text
    assert "artifacts_dir: " not in text
    both = "\n".join(ways([one, {**one, "role": "prometheus"}]))
    assert both.startswith("Four ways")
    assert "artifacts_dir: /path, backend_wheels_dir: /path/wheels" in both


# --- What a host says -------------------------------------------------------------------------------------------------


def ask(monkeypatch: pytest.MonkeyPatch, answers: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    """Return what `built_releases` makes of a host's answers, by module; None: it cannot be reached."""

    def execute(_: object, module: str, **__: object) -> dict[str, Any]:
        if answers is None:
            raise AnsibleConnectionFailure("no route to host")
        return answers[module]

    monkeypatch.setattr(ActionModule, "_execute_module", execute)
    monkeypatch.setattr(ActionModule, "validate_argument_spec", lambda *_, **__: (None, {"name": "allin-backend"}))
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    return dict(ActionModule.__new__(ActionModule).run(task_vars={}))


def test_a_host_tells_its_python_and_what_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"ansible_architecture": "x86_64", "ansible_python": {"version": {"major": 3, "minor": 13, "micro": 5}}}
    found = [
        {"path": "/opt/allin-backend/releases/1.1/.complete"},
        {"path": "/opt/allin-backend/releases/1.0/.complete"},
    ]
    told = ask(
        monkeypatch, {"ansible.builtin.setup": {"ansible_facts": facts}, "ansible.builtin.find": {"files": found}}
    )
    assert told == {"changed": False, "python": "3.13", "machine": "x86_64", "releases": ["1.0", "1.1"]}


def test_silence_is_no_answer_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ask(monkeypatch, None)
    assert (told["python"], told["machine"], told["releases"]) == ("", "", [])
    assert "failed" not in told
    # A container that is not there yet is a module's failure, no exception.
    nothing = {"failed": True, "msg": "no such container"}
    told = ask(monkeypatch, {"ansible.builtin.setup": nothing, "ansible.builtin.find": nothing})
    assert (told["python"], told["machine"], told["releases"]) == ("", "", [])
    assert "failed" not in told
