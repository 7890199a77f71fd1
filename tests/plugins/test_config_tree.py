"""`config_tree` as a process: what it does to a directory, what it reports, what it refuses."""

from __future__ import annotations

import errno
import fcntl
import grp
import importlib.util
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.plugins.config_tree_helpers import (
    MANIFEST,
    MODULE,
    PYTHON,
    REPOSITORY,
    Driver,
    arguments,
    environment,
    parse,
    refuse,
    shared_driver,
    spell,
    store_of,
    succeed,
    surroundings,
    tree,
)

ONE = {"main.yml": "one: 1\n", "rules/a.yml": "a: 1\n", "rules/deep/b.yml": "b: 1\n"}
TWO = {"main.yml": "one: 2\n", "rules/a.yml": "a: 1\n", "file_sd/c.yml": "c: 2\n"}
LISTS = ("created", "updated", "removed", "repaired", "adopted")
SHELL = ["/bin/sh", "-c"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tree will be; its parent has nothing else in it."""
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "app"


@pytest.fixture
def driver() -> Driver:
    """What runs the module and tells more about it than its result."""
    return shared_driver()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module under test, imported."""
    spec = importlib.util.spec_from_file_location("config_tree", MODULE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "config_tree", module)
    spec.loader.exec_module(module)
    return module


def mode(path: Path) -> str:
    """Return the permission bits."""
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def lists(result: dict[str, Any]) -> dict[str, list[str]]:
    """Return the lists of a result that are not empty."""
    return {name: result[name] for name in LISTS if result[name]}


def shown(result: dict[str, Any], path: Path) -> dict[str, tuple[str, str]]:
    """Return before and after of each diff, by the headers without the path."""
    return {
        entry["before_header"].removeprefix(f"{path}/").removesuffix(" (absent)"): (entry["before"], entry["after"])
        for entry in result["diff"]
    }


# -- placing files


def test_first_install(path: Path) -> None:
    result = succeed(path, ONE, alone=True)
    assert result["changed"]
    assert tree(path) == ONE
    assert lists(result) == {"created": ["./", "main.yml", "rules/", "rules/a.yml", "rules/deep/", "rules/deep/b.yml"]}
    assert (result["previous"], result["rejected"], result["switch"]) == (None, None, "first")
    assert shown(result, path) == {rel: ("", content) for rel, content in ONE.items()}
    assert {mode(path), mode(path / "rules"), mode(path / "rules/deep")} == {"0750"}
    assert mode(path / "main.yml") == "0640"
    assert mode(path / MANIFEST) == "0600"
    assert [entry.name for entry in path.parent.iterdir()] == ["app"]


def test_modes_and_owners_whatever_the_umask(path: Path) -> None:
    user, group = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    before = os.umask(0o077)
    try:
        files = {"a": {"content": ""}, "d/b": {"content": "b", "mode": "0604"}}
        succeed(path, files, owner="nobody", group=str(group.gr_gid), file_mode="0644", dir_mode="2755", alone=True)
    finally:
        os.umask(before)
    assert {mode(path), mode(path / "d")} == {"2755"}
    assert (mode(path / "a"), mode(path / "d/b")) == ("0644", "0604")
    for rel in ("", "a", "d", "d/b"):
        status = (path / rel).lstat()
        assert (status.st_uid, status.st_gid) == (user.pw_uid, group.gr_gid)


def test_a_second_run_changes_nothing_and_says_that_it_did_not_validate(path: Path, tmp_path: Path) -> None:
    succeed(path, ONE)
    before = surroundings(path)
    result = succeed(path, ONE, validate=[[*SHELL, f"touch {tmp_path}/ran", "%s"]], alone=True)
    assert not result["changed"]
    assert (result["diff"], lists(result), result["validated"]) == ([], {}, False)
    assert "nothing was validated" in result["msg"]
    assert surroundings(path) == before
    assert not (tmp_path / "ran").exists()


def test_update_and_prune(path: Path) -> None:
    succeed(path, ONE)
    result = succeed(path, TWO, alone=True)
    assert tree(path) == TWO
    assert lists(result) == {
        "created": ["file_sd/", "file_sd/c.yml"],
        "updated": ["main.yml"],
        "removed": ["rules/deep/", "rules/deep/b.yml"],
    }
    assert shown(result, path) == {
        "file_sd/c.yml": ("", "c: 2\n"),
        "main.yml": ("one: 1\n", "one: 2\n"),
        "rules/deep/b.yml": ("b: 1\n", ""),
        "rules/deep": ("(directory)\n", ""),
    }
    assert result["switch"] == "exchange"
    assert result["previous"] == str(store_of(path) / "previous")
    assert tree(Path(result["previous"])) == ONE
    assert [entry.name for entry in store_of(path).iterdir()] == ["previous"]
    assert {entry.name for entry in path.parent.iterdir()} == {"app", store_of(path).name}


def test_prune_only(path: Path) -> None:
    succeed(path, {"a": "a", "b": "b"})
    assert lists(succeed(path, {"a": "a"})) == {"removed": ["b"]}
    assert tree(path) == {"a": "a"}


def test_a_managed_file_that_is_gone_and_no_longer_wanted_is_forgotten(path: Path) -> None:
    """Or whatever others put there later would be pruned as ours."""
    succeed(path, {"a": "a", "b": "b"})
    (path / "b").unlink()
    result = succeed(path, {"a": "a"})
    assert (result["changed"], lists(result)) == (True, {})
    assert shown(result, path) == {".config_tree (list of managed files)": ("a\nb\n", "a\n")}
    (path / "b").write_text("theirs")
    succeed(path, {"a": "new"})
    assert tree(path) == {"a": "new", "b": "theirs"}


def test_only_the_last_tree_is_kept(path: Path) -> None:
    for content in ("1", "2", "3"):
        succeed(path, {"a": content})
    assert tree(store_of(path)) == {
        "previous/a": "2",
        "previous/.config_tree": (store_of(path) / "previous" / MANIFEST).read_text(),
    }


def test_a_file_becomes_a_directory_and_back(path: Path) -> None:
    succeed(path, {"a": "file\n", "b": "b"})
    succeed(path, {"a/inner": "inner\n", "b": "b"})
    assert tree(path) == {"a/inner": "inner\n", "b": "b"}
    result = succeed(path, {"a": "file\n", "b": "b"})
    assert tree(path) == {"a": "file\n", "b": "b"}
    assert lists(result) == {"created": ["a"], "removed": ["a/", "a/inner"]}


def test_odd_names_and_contents(path: Path) -> None:
    files = {"with space": "x", "ümläut.yml": "grün\n", ".hidden": "", "%s": "100 %s\n", "-rf": "\r\n\t"}
    result = succeed(path, files)
    assert {entry.name: entry.read_bytes().decode() for entry in path.iterdir() if entry.name != MANIFEST} == files
    assert shown(result, path)[".hidden"] == ("", "(empty file)\n")
    assert not succeed(path, files)["changed"]


def test_missing_parents_are_made(path: Path) -> None:
    succeed(path / "x" / "y", ONE, alone=True)
    assert (mode(path), mode(path / "x"), mode(path / "x" / "y")) == ("0755", "0755", "0750")


# -- foreign files


def foreigners(path: Path) -> dict[str, tuple[int, ...]]:
    """Put things of all kinds into the tree that the module did not make; return what must stay of them."""
    (path / "own.txt").write_text("own")
    (path / "rules" / "own.yml").write_text("own")
    (path / "rules" / "deep" / "own.yml").write_text("own")
    (path / "link").symlink_to("/nonexistent/target")
    (path / "linked_dir").symlink_to("rules")
    os.mkfifo(path / "pipe")
    (path / "empty").mkdir()
    (path / "dir" / "sub").mkdir(parents=True)
    (path / "dir" / "sub" / "file").write_text("x")
    os.chown(path / "dir" / "sub", 1234, 1235)
    (path / "dir" / "sub").chmod(0o2711)
    (path / os.fsdecode(b"undecodable\xff")).write_text("x")
    os.utime(path / "dir", ns=(10**18, 10**18))
    return foreign_state(path)


def foreign_state(path: Path) -> dict[str, tuple[int, ...]]:
    """Return inode, type, mode and owner of foreign files; of directories mode, owner and time."""
    names = ["own.txt", "rules/own.yml", "rules/deep/own.yml", "link", "linked_dir", "pipe", "dir/sub/file"]
    names.append(os.fsdecode(b"undecodable\xff"))
    state: dict[str, tuple[int, ...]] = {}
    for rel in names:
        status = (path / rel).lstat()
        state[rel] = (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    for rel in ("empty", "dir", "dir/sub"):
        status = (path / rel).lstat()
        state[rel] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    return state


def test_foreign_files_stay_the_same_inodes(path: Path) -> None:
    succeed(path, ONE)
    before = foreigners(path)
    assert not succeed(path, ONE)["changed"]
    result = succeed(path, TWO, alone=True)
    assert foreign_state(path) == before
    assert lists(result)["removed"] == ["rules/deep/b.yml"]
    succeed(path, state="previous")
    assert foreign_state(path) == before


def test_a_directory_of_ours_goes_when_the_last_foreign_file_has_gone(path: Path) -> None:
    succeed(path, ONE)
    (path / "rules/deep/own.yml").write_text("own")
    succeed(path, TWO)
    assert tree(path / "rules/deep") == {"own.yml": "own"}
    assert not succeed(path, TWO)["changed"]
    (path / "rules/deep/own.yml").unlink()
    assert lists(succeed(path, TWO)) == {"removed": ["rules/deep/"]}
    assert not (path / "rules/deep").exists()


def test_a_foreign_directory_stays_when_our_files_leave_it(path: Path) -> None:
    (path / "theirs").mkdir(parents=True)
    succeed(path, {"theirs/a": "a", "b": "b"})
    succeed(path, {"b": "b"})
    assert (path / "theirs").is_dir()


def test_a_directory_is_taken_over(path: Path) -> None:
    """As a distribution's package leaves it: files with names of ours and others."""
    path.mkdir()
    (path / "main.yml").write_text("distribution\n")
    (path / "web.yml").write_text("distribution\n")
    (path / "rules").mkdir()
    (path / "rules" / "a.yml").symlink_to("../web.yml")
    result = succeed(path, ONE)
    assert tree(path) == {**ONE, "web.yml": "distribution\n"}
    assert lists(result)["adopted"] == ["main.yml", "rules/a.yml"]
    assert lists(result)["updated"] == ["main.yml", "rules/a.yml"]
    assert shown(result, path)["main.yml"] == ("distribution\n", "one: 1\n")
    assert shown(result, path)["rules/a.yml"][0] == "(symbolic link to ../web.yml)\n"
    was = {"main.yml": "distribution\n", "web.yml": "distribution\n", "rules/a.yml": "-> ../web.yml"}
    assert tree(Path(result["previous"])) == was
    assert succeed(path, state="previous")["changed"]
    assert tree(path) == was
    # Foreign again: the next call adopts them again.
    assert lists(succeed(path, ONE))["adopted"] == ["main.yml", "rules/a.yml"]


def test_taking_over_identical_files_is_a_change_with_a_diff(path: Path) -> None:
    path.mkdir(mode=0o750)
    (path / "a").write_text("a\n")
    (path / "a").chmod(0o640)
    result = succeed(path, {"a": "a\n"})
    assert result["changed"]
    assert lists(result) == {"adopted": ["a"]}
    assert shown(result, path) == {".config_tree (list of managed files)": ("", "a\n")}
    assert not succeed(path, {"a": "a\n"})["changed"]


def test_an_unreadable_list_of_managed_files_prunes_nothing(path: Path) -> None:
    succeed(path, ONE)
    (path / MANIFEST).write_text("{")
    result = succeed(path, TWO)
    assert "is unreadable" in result["warnings"][0]
    assert tree(path) == ONE | TWO
    assert not succeed(path, TWO)["changed"]


# -- drift


def test_an_edit_by_hand_is_shown_overwritten_and_kept(path: Path) -> None:
    succeed(path, ONE)
    (path / "main.yml").write_text("by hand\n")
    result = succeed(path, ONE)
    assert shown(result, path) == {"main.yml": ("by hand\n", "one: 1\n")}
    assert lists(result) == {"updated": ["main.yml"]}
    assert tree(Path(result["previous"])) == {**ONE, "main.yml": "by hand\n"}


def test_an_edit_in_place_does_not_reach_the_previous_tree(path: Path) -> None:
    succeed(path, ONE)
    succeed(path, TWO)
    with (path / "rules/a.yml").open("a") as stream:  # a file that the last switch did not change
        stream.write("more")
    assert tree(store_of(path) / "previous") == ONE


@pytest.mark.parametrize(
    ("rel", "what", "listed", "before", "after"),
    [
        ("main.yml", lambda path: path.chmod(0o666), "main.yml", "mode: 0666", "mode: 0640"),
        ("main.yml", lambda path: os.chown(path, 1, 0), "main.yml", "owner: daemon", "owner: root"),
        ("rules/a.yml", lambda path: os.chown(path, 0, 4242), "rules/a.yml", "group: 4242", "group: root"),
        ("rules", lambda path: path.chmod(0o777), "rules/", "mode: 0777", "mode: 0750"),
        (".", lambda path: path.chmod(0o755), "./", "mode: 0755", "mode: 0750"),
        (".", lambda path: os.chown(path, 1, 0), "./", "owner: daemon", "owner: root"),
    ],
)
def test_mode_and_owner_are_repaired(
    path: Path, rel: str, what: Callable[[Path], None], listed: str, before: str, after: str
) -> None:
    succeed(path, ONE)
    right = (path / rel).lstat()
    what(path / rel)
    foreseen = succeed(path, ONE, check=True)
    result = succeed(path, ONE)
    assert lists(result) == lists(foreseen) == {"repaired": [listed]}
    (entry,) = result["diff"]
    assert entry["before_header"].endswith(" (mode and owner)")
    assert before in entry["before"]
    assert after in entry["after"]
    now = (path / rel).lstat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (right.st_mode, right.st_uid, right.st_gid)
    assert not succeed(path, ONE)["changed"]


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "directory"])
def test_a_managed_file_of_the_wrong_kind(path: Path, tmp_path: Path, kind: str) -> None:
    succeed(path, ONE)
    target = tmp_path / "elsewhere"
    target.write_text("one: 1\n")
    (path / "main.yml").unlink()
    if kind == "link":
        (path / "main.yml").symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path / "main.yml")
    elif kind == "directory":
        (path / "main.yml").mkdir()
        assert "is a directory that is not ours" in refuse(path, ONE)
        return
    assert succeed(path, ONE)["changed"]
    assert tree(path) == ONE
    assert target.read_text() == "one: 1\n"


def test_binary_content_is_not_poured_into_the_diff(path: Path) -> None:
    succeed(path, ONE)
    (path / "main.yml").write_bytes(b"\xff\xfe\0")
    assert shown(succeed(path, ONE), path)["main.yml"][0] == "(binary, 3 bytes)\n"


def test_no_diff_without_diff_mode(path: Path) -> None:
    """Also so that `diff: false` keeps contents out of registered results and logs."""
    result = succeed(path, ONE, diff=False)
    assert (result["changed"], result["diff"]) == (True, [])


# -- refusals


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"files": {}}, "is empty, which would remove every managed file"),
        ({"files": None}, "is empty, which would remove every managed file"),
        ({"files": {"/etc/passwd": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {"../passwd": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {"a/../b": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {"./a": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {"a/": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {"a//b": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {".": {"content": ""}}}, "must be a plain path relative"),
        ({"files": {"": {"content": ""}}}, "is not a file name"),
        ({"files": {"a\0b": {"content": ""}}}, "is not a file name"),
        ({"files": {".config_tree": {"content": ""}}}, "choose another name"),
        ({"files": {"a": {"content": ""}, "a/b": {"content": ""}}}, "cannot be a file and the directory of 'a/b'"),
        ({"files": {"a": "text"}}, "must be a dictionary with `content`"),
        ({"files": {"a": {"content": "", "owner": "root"}}}, "must be a dictionary with `content`"),
        ({"files": {"a": {"mode": "0644"}}}, "content must be text, not NoneType"),
        ({"files": {"a": {"content": {"key": 1}}}}, "to_nice_yaml"),
        ({"files": {"a": {"content": "", "mode": "u=rw"}}}, "is not a mode"),
        ({"files": {"a": {"content": "", "mode": 420}}}, "is not a mode"),
        ({"file_mode": 416}, "file_mode: 416 is not a mode"),
        ({"dir_mode": "0790"}, "dir_mode: '0790' is not a mode"),
        ({"owner": "nobody-has-this-name"}, "owner: 'nobody-has-this-name' does not exist"),
        ({"group": "nobody-has-this-name"}, "group: 'nobody-has-this-name' does not exist"),
        ({"path": "/"}, "below a top-level one"),
        ({"path": "/etc"}, "below a top-level one"),
        ({"path": "/etc/"}, "below a top-level one"),
        ({"path": "/etc/app/.."}, "below a top-level one"),
        ({"path": "etc/app"}, "below a top-level one"),
        ({"validate": ["true"]}, "has no %s"),
        ({"validate": [[]]}, "is not a command"),
        ({"validate": ["check '%s"]}, "No closing quotation"),
        ({"validate": [{"argv": ["true", "%s"], "shell": True}]}, "a dictionary has `argv`"),
        ({"validate": [{"argv": ["true", "%s"], "forbid_output": "no"}]}, "must be true or false"),
    ],
)
def test_refused(path: Path, driver: Driver, more: dict[str, Any], said: str) -> None:
    succeed(path, ONE)
    before = surroundings(path)
    # In check mode where it is about this machine's own directories: a module that wrongly accepts them must not act.
    # (One did, during a run with deliberate faults, and took over /etc.)
    asked = {"path": str(path), "files": spell(TWO), **more, "_ansible_check_mode": "path" in more}
    result = driver.ask(asked)["result"]
    assert result.get("failed"), result
    assert said in result["msg"]
    assert surroundings(path) == before


def a_directory(path: Path) -> None:
    path.mkdir()


def a_full_directory(path: Path) -> None:
    path.mkdir()
    (path / "theirs").write_text("x")


def a_link(path: Path) -> None:
    path.symlink_to("rules")


@pytest.mark.parametrize(
    ("rel", "make", "files", "said"),
    [
        ("x", a_directory, {"x": ""}, "is a directory that is not ours"),
        ("x", a_full_directory, {"x": ""}, "is a directory that is not ours"),
        ("rules/theirs", Path.touch, {"rules": ""}, "is a directory that is not ours"),
        ("x", Path.touch, {"x/y": ""}, "is a file or link that is not ours"),
        ("x", a_link, {"x/y": ""}, "is a file or link that is not ours"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_collisions_with_foreign_entries(
    path: Path, rel: str, make: Callable[[Path], None], files: dict[str, str], said: str, check: bool
) -> None:
    succeed(path, ONE)
    make(path / rel)
    before = surroundings(path)
    assert said in refuse(path, {"main.yml": "new", **files}, check=check)
    assert surroundings(path) == before


def test_a_file_where_the_directory_should_be(path: Path) -> None:
    path.touch()
    assert "is not a directory" in refuse(path, ONE)


def test_something_else_with_the_name_of_the_store(path: Path) -> None:
    store_of(path).symlink_to("/")
    assert "was not made by this module" in refuse(path, ONE)


def test_a_mount_point_is_refused(path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.mount_points(Path("/proc"))[0] == "/proc"
    assert module.mount_points(path.parent) == []
    succeed(path, ONE)
    before = surroundings(path)
    monkeypatch.setattr(module, "mount_points", lambda root: [f"{root}/rules"])
    request = module.parse_request(
        {
            "path": str(path),
            "state": "present",
            "files": spell(TWO),
            "owner": "root",
            "group": "root",
            "file_mode": "0640",
            "dir_mode": "0750",
            "validate": [],
            "keep_previous": True,
            "until_proven": False,
        },
        False,
        False,
    )
    with pytest.raises(module.TreeError, match="rules is a mount point"):
        module.run(request, [])
    assert surroundings(path) == before


def test_a_foreign_file_that_cannot_be_linked_stops_it(path: Path, driver: Driver) -> None:
    """An immutable file: hard links to it are refused, so the tree cannot be built without losing it."""
    succeed(path, ONE)
    (path / "fixed").write_text("x")
    before = surroundings(path)
    answer = driver.ask(arguments(path, TWO), fail={f"link {path}/fixed": "EPERM"})["result"]
    assert answer["failed"]
    assert "lsattr" in answer["msg"]
    assert surroundings(path) == before


# -- validators


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        [*SHELL, 'test "$(cat "$0/main.yml")" = "one: 2" && test -f "$0/own.txt" && test ! -e "$0/rules/deep"', "%s"],
        """/bin/sh -c 'grep -q 2 "$0"' %s/main.yml""",
        {"argv": ["grep", "-q", "2", "%s/main.yml"], "forbid_output": True},
        {"argv": "ls %s"},
    ],
)
def test_validators_see_the_whole_new_tree(path: Path, command: Any, check: bool) -> None:
    succeed(path, ONE)
    (path / "own.txt").write_text("own")
    result = succeed(path, TWO, validate=[command, command], check=check)
    assert (result["changed"], result["validated"], result["warnings"]) == (True, True, [])


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([*SHELL, "echo bad $0/main.yml; echo worse >&2; exit 3", "%s"], ["exited with 3\nbad {}/main.yml\nworse"]),
        ("grep nothing %s/main.yml", ["grep nothing {}/main.yml: exited with 1\n(it said nothing)"]),
        ({"argv": ["ls", "%s/main.yml"], "forbid_output": True}, ["any output counts", "{}/main.yml"]),
        ({"argv": [*SHELL, "echo hint >&2", "%s"], "forbid_output": True}, ["any output counts", "hint"]),
        ([*SHELL, "kill -9 $$", "%s"], ["exited with -9"]),
        ([*SHELL, "touch $0/rules/x.pyc", "%s"], ["wrote to the staged tree: rules/x.pyc"]),
        ([*SHELL, "echo >> $0/main.yml", "%s"], ["wrote to the staged tree: main.yml"]),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_a_refused_tree_changes_nothing(
    path: Path, command: Any, said: list[str], check: bool, installed: bool
) -> None:
    target = path if installed else path / "deep" / "app"
    if installed:
        succeed(target, ONE)
    before = surroundings(path)
    message = refuse(target, TWO, validate=["true %s", command, "true %s"], check=check)
    for part in said:
        assert part.format(target) in message
    assert ".config_tree.new" not in message
    assert surroundings(path) == before


def test_a_missing_program(path: Path) -> None:
    before = surroundings(path)
    missing = ["/opt/nothing/here", "%s"]
    assert "/opt/nothing/here" in refuse(path, ONE, validate=[missing])
    assert surroundings(path) == before
    result = succeed(path, ONE, validate=["ls %s", missing], check=True)
    assert (result["changed"], result["validated"]) == (True, False)
    assert "there is no program /opt/nothing/here" in result["warnings"][0]
    # One that is there must still agree.
    refuse(path, ONE, validate=[missing, "false %s"], check=True)


def test_validators_of_other_users_reach_the_staged_tree(path: Path, tmp_path: Path) -> None:
    """A checker that runs as the service's user reads through the group."""
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    command = [
        sys.executable,
        "-c",
        "import os,sys; os.setgid(1); os.setuid(1); open(sys.argv[1]).read()",
        "%s/main.yml",
    ]
    assert succeed(path, ONE, group="daemon", validate=[command], alone=True)["validated"]


def test_relative_references_out_of_the_tree_work_while_staged(path: Path) -> None:
    path.with_name("beside").write_text("x")
    assert succeed(path, ONE, validate=["ls %s/../beside"])["validated"]


def test_nothing_is_validated_without_validators(path: Path) -> None:
    assert succeed(path, ONE)["validated"] is False


# -- check mode


def nothing(_: Path) -> None:
    """Leave the host clean."""


def installed(path: Path) -> None:
    """Have ONE live."""
    succeed(path, ONE)


def switched(path: Path) -> None:
    """Have TWO live and ONE as the previous tree."""
    installed(path)
    succeed(path, TWO)


def undone(path: Path) -> None:
    """Have gone back from TWO to ONE."""
    switched(path)
    succeed(path, state="previous")


def distribution(path: Path) -> None:
    """Have an unmanaged directory."""
    path.mkdir()
    (path / "main.yml").write_text("theirs")
    (path / "other.yml").write_text("theirs")


def drifted(path: Path) -> None:
    """Have a tree that was changed by hand."""
    installed(path)
    (path / "main.yml").chmod(0o600)
    (path / "rules/deep/b.yml").unlink()
    (path / "rules/a.yml").write_text("by hand")


@pytest.mark.parametrize("state", ["present", "previous", "proven"])
@pytest.mark.parametrize("keep_previous", [True, False])
@pytest.mark.parametrize("until_proven", [False, True])
@pytest.mark.parametrize("setup", [nothing, installed, switched, undone, distribution, drifted])
def test_check_mode_is_exact(
    path: Path, driver: Driver, setup: Callable[[Path], None], state: str, keep_previous: bool, until_proven: bool
) -> None:
    """The same report as a real run that follows, and nothing left behind."""
    setup(path)
    before = surroundings(path)
    more: dict[str, Any] = {"files": TWO, "state": state, "keep_previous": keep_previous, "validate": ["ls %s"]}
    more["until_proven"] = until_proven
    foreseen = driver.ask(arguments(path, **more, check=True))["result"]
    assert surroundings(path) == before
    result = driver.ask(arguments(path, **more))["result"]
    ignored = {"switch", "msg", "invocation"}
    assert {k: v for k, v in foreseen.items() if k not in ignored} == {
        k: v for k, v in result.items() if k not in ignored
    }
    if not result.get("changed"):  # refused, as there is no previous tree; or nothing to do
        assert surroundings(path) == before
    after = surroundings(path)
    again = driver.ask(arguments(path, **more, check=True))["result"]
    assert not again.get("changed")
    assert surroundings(path) == after


def test_check_mode_on_a_clean_host(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither parent nor owner nor group exist: earlier tasks of the play would have made them."""
    before = surroundings(path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    result = succeed(
        path / "a" / "b",
        ONE,
        alone=True,
        owner="nobody-yet",
        group="nobody-yet",
        check=True,
        validate=["grep -q 1 %s/main.yml"],
    )
    assert (result["changed"], result["validated"]) == (True, True)
    assert surroundings(path) == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_check_mode_with_an_owner_that_will_exist(path: Path) -> None:
    succeed(path, ONE)
    result = succeed(path, ONE, owner="nobody-yet", check=True)
    assert len(result["repaired"]) == 6
    assert "owner: nobody-yet" in result["diff"][0]["after"]


# -- where the directory is


def test_a_link_to_a_directory_is_resolved_and_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path.symlink_to(tmp_path / "real" / "app")
    (tmp_path / "real" / "app").mkdir()
    succeed(path, ONE)
    succeed(path, TWO)
    assert path.is_symlink()
    assert tree(tmp_path / "real" / "app") == TWO
    assert [entry.name for entry in path.parent.iterdir()] == ["app"]


def test_a_link_to_a_top_level_directory_is_refused(path: Path) -> None:
    path.symlink_to("/etc")
    assert "/etc must be an absolute directory below" in refuse(path, ONE, check=True)  # check: see test_refused


# -- the way back


def test_the_previous_tree_comes_back_exactly(path: Path) -> None:
    files = {"main.yml": {"content": "1\n", "mode": "0604"}, "rules/a.yml": {"content": "a"}}
    succeed(path, files, owner="daemon", dir_mode="0711")
    before = {rel: facts[1:] for rel, facts in surroundings(path).items() if rel.startswith("app")}
    succeed(path, TWO)
    (path / "own.txt").write_text("new, and not ours")
    result = succeed(path, state="previous", alone=True)
    assert result["changed"]
    assert tree(path) == {"main.yml": "1\n", "rules/a.yml": "a", "own.txt": "new, and not ours"}
    (path / "own.txt").unlink()
    assert {
        rel: facts[1:] for rel, facts in surroundings(path).items() if rel.startswith("app") and MANIFEST not in rel
    } == {rel: facts for rel, facts in before.items() if MANIFEST not in rel}
    assert lists(result)["removed"] == ["file_sd/", "file_sd/c.yml"]
    assert lists(result)["updated"] == ["main.yml", "rules/a.yml"]
    assert shown(result, path)["main.yml"] == ("one: 2\n", "1\n")
    assert result["previous"] is None
    assert tree(Path(result["rejected"])) == {**TWO, "own.txt": "new, and not ours"}
    # The list of managed files came back as well.
    assert not succeed(path, files, owner="daemon", dir_mode="0711")["changed"]


def test_going_back_twice_does_not_go_forth_again(path: Path) -> None:
    switched(path)
    first = succeed(path, state="previous")
    assert (first["changed"], first["msg"]) == (True, "The previous tree is back.")
    before = surroundings(path)
    for check in (True, False):
        second = succeed(path, state="previous", check=check)
        assert not second["changed"]
        assert "back already" in second["msg"]
        assert second["rejected"] == str(store_of(path) / "rejected")
    assert surroundings(path) == before
    assert tree(path) == ONE
    # The next switch ends that: its predecessor is the tree that came back.
    result = succeed(path, TWO)
    assert (result["previous"], result["rejected"]) == (str(store_of(path) / "previous"), None)
    assert {entry.name for entry in store_of(path).iterdir()} == {"previous"}
    succeed(path, state="previous")
    assert tree(path) == ONE


@pytest.mark.parametrize("setup", [nothing, installed, distribution])
@pytest.mark.parametrize("check", [False, True])
def test_no_previous_tree(path: Path, setup: Callable[[Path], None], check: bool) -> None:
    setup(path)
    before = surroundings(path)
    assert "There is no previous tree" in refuse(path, state="previous", check=check, alone=True)
    assert surroundings(path) == before


def test_foreign_files_that_went_do_not_come_back(path: Path) -> None:
    succeed(path, ONE)
    (path / "went.txt").write_text("x")
    succeed(path, TWO)
    (path / "went.txt").unlink()
    succeed(path, state="previous")
    assert tree(path) == ONE


def test_a_removed_directory_comes_back_whole(path: Path) -> None:
    succeed(path, ONE)
    (path / "own.txt").write_text("x")
    succeed(path, TWO)
    shutil.rmtree(path)
    succeed(path, state="previous")
    assert tree(path) == {**ONE, "own.txt": "x"}


def test_keep_previous_off(path: Path) -> None:
    path.mkdir()
    (path / "main.yml").write_text("theirs")
    result = succeed(path, ONE, keep_previous=False)
    assert "no copy kept (keep_previous: false): main.yml" in result["warnings"][0]
    result = succeed(path, TWO)
    result = succeed(path, ONE, keep_previous=False)
    assert result["previous"] is None
    assert [entry.name for entry in path.parent.iterdir()] == ["app"]


# -- until the service has proved that it works


def test_what_last_worked_is_kept_until_the_service_has_proved_itself(path: Path) -> None:
    """Also over further switches: what a run that was cut off has left may never have worked."""
    secret: dict[str, Any] = {"until_proven": True}
    first = succeed(path, ONE, **secret)
    assert (first["previous"], first["unproven"]) == (None, False)
    second = succeed(path, TWO, **secret)
    assert (second["previous"], second["unproven"]) == (str(store_of(path) / "previous"), False)
    assert store_of(path).stat().st_mode & 0o777 == 0o700

    third = succeed(path, {"main.yml": "third"}, **secret)
    assert third["unproven"]
    again = succeed(path, {"main.yml": "third"}, **secret)
    assert (again["changed"], again["unproven"]) == (False, True)
    assert tree(store_of(path) / "previous") == ONE

    back = succeed(path, state="previous", **secret)
    assert (back["previous"], back["rejected"]) == (None, None)
    assert tree(path) == ONE
    assert [entry.name for entry in path.parent.iterdir()] == ["app"]
    assert not succeed(path, ONE, **secret)["unproven"]


def test_nothing_is_kept_of_a_tree_that_is_proven(path: Path) -> None:
    succeed(path, ONE, until_proven=True)
    succeed(path, TWO, until_proven=True)
    before = surroundings(path)
    assert succeed(path, state="proven", check=True)["changed"]
    assert surroundings(path) == before
    proven = succeed(path, state="proven")
    assert (proven["changed"], proven["previous"], proven["rejected"]) == (True, None, None)
    assert tree(path) == TWO
    assert [entry.name for entry in path.parent.iterdir()] == ["app"]
    assert not succeed(path, state="proven")["changed"]
    assert "There is no previous tree" in refuse(path, state="previous", until_proven=True)


def test_an_attempt_cut_off_and_taken_back_in_the_inventory_counts_as_unproven(path: Path) -> None:
    """The service may run with what was live in between."""
    succeed(path, ONE, until_proven=True)
    succeed(path, TWO, until_proven=True)
    succeed(path, ONE, until_proven=True)
    assert succeed(path, ONE, until_proven=True)["unproven"]
    succeed(path, state="proven")
    assert not succeed(path, ONE, until_proven=True)["unproven"]


# -- at once, quick, quiet


def open_when_read(pipe: Path, reader: subprocess.Popen[str]) -> int:
    """Return a descriptor for writing to a pipe as soon as somebody reads it; fail if the reader's process ends."""
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or reader.poll() is not None:
                raise
            time.sleep(0.01)


def test_two_runs_at_once_wait_for_each_other(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    log = tmp_path / "log"

    def start(files: dict[str, str], script: str) -> subprocess.Popen[str]:
        args = arguments(path, files, validate=[[*SHELL, script, "%s"]])
        process = subprocess.Popen(
            [PYTHON, str(MODULE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert process.stdin
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}))
        process.stdin.close()
        process.stdin = None
        return process

    first = start(ONE, f"echo one >> {log}; read x < {tmp_path}/gate; ls $0/rules/deep/b.yml && echo over >> {log}")
    gate = open_when_read(tmp_path / "gate", first)
    second = start(TWO, f"echo two >> {log}")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(2)
    os.write(gate, b"\n")
    os.close(gate)
    results = [parse(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert [result["changed"] for result in results] == [True, True]
    assert log.read_text().split() == ["one", "over", "two"]
    assert tree(path) == TWO
    assert tree(store_of(path) / "previous") == ONE


def test_waiting_for_the_lock_has_an_end(path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_SECONDS", 0.0)
    descriptor = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with (
        pytest.raises(module.TreeError, match="Another run of config_tree has held its lock"),
        module.locked(path.parent),
    ):
        pass
    os.close(descriptor)
    with module.locked(path.parent):
        pass


def test_a_run_without_a_change_is_quick(path: Path, driver: Driver) -> None:
    """Processor time of the module without Python's start: 20 ms for 30 files."""
    files = {f"rules/{number}.yml": "- alert: x\n" * 200 for number in range(30)}
    driver.run(arguments(path, files))
    assert min(driver.ask(arguments(path, files))["cpu"] for _ in range(5)) < 0.02


def test_contents_are_not_written_to_the_system_log(
    path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(module.ConfigTreeModule, "log", lambda _self, message, **_: logged.append(message))
    from ansible.module_utils.testing import patch_module_args

    with patch_module_args(arguments(path, {"a": "confidential"})), pytest.raises(SystemExit):
        module.main()
    assert logged == [f"Invoked with path={path} state=present"]


# -- through Ansible


def no_settings(directory: Path) -> Path:
    """Return an empty settings file, so that neither the repository's nor the user's count."""
    (directory / "ansible.cfg").touch()
    return directory / "ansible.cfg"


def test_through_ansible_playbook(path: Path, tmp_path: Path) -> None:
    path.mkdir()
    (path / "main.yml").write_text("theirs\n")
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Own a tree",
                    "config_tree": {
                        "path": str(path),
                        "files": {
                            "main.yml": {"content": "{{ ['ours'] | join }}\n"},
                            "rules/a.yml": {"content": "{{ {'a': 1} | to_nice_yaml }}", "mode": "0644"},
                        },
                        "validate": [["ls", "%s/rules/a.yml"]],
                    },
                }
            ],
        }
    ]
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump(play))

    def play_it(*options: str) -> str:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "-i",
                "localhost,",
                "-c",
                "local",
                "-D",
                *options,
                playbook,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={
                **os.environ,
                "ANSIBLE_LIBRARY": str(REPOSITORY / "plugins" / "modules"),
                "ANSIBLE_PYTHON_INTERPRETER": PYTHON,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_CONFIG": str(no_settings(tmp_path)),
            },
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    before = surroundings(path)
    foreseen = play_it("--check")
    assert surroundings(path) == before
    for part in (
        f"--- before: {path}/main.yml\n+++ after: {path}/main.yml\n@@ -1 +1 @@\n-theirs\n+ours\n",
        f"--- before: {path}/rules/a.yml (absent)\n+++ after: {path}/rules/a.yml\n@@ -0,0 +1 @@\n+a: 1\n",
        "changed=1",
    ):
        assert part in foreseen
    assert play_it().split("PLAY RECAP")[0] == foreseen.split("PLAY RECAP")[0]
    assert tree(path) == {"main.yml": "ours\n", "rules/a.yml": "a: 1\n"}
    assert "changed=0" in play_it()
    assert "changed=0" in play_it("--check")


def test_the_documentation_is_complete(module: ModuleType, tmp_path: Path) -> None:
    """`ansible-doc` renders it, and it names each parameter and each field of a result."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "-t", "module", "-M", MODULE.parent, "--json", "config_tree"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(no_settings(tmp_path))},
    )
    document = json.loads(done.stdout)["config_tree"]
    spec = {name: option.get("default") for name, option in module.ARGUMENTS.items()}
    assert {name: option.get("default") for name, option in document["doc"]["options"].items()} == spec
    assert yaml.safe_load(module.EXAMPLES)
    returned = {*LISTS, "validated", "previous", "unproven", "rejected", "switch", "recovered", "msg"}
    assert set(document["return"]) == returned
