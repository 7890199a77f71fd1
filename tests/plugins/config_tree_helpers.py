"""What the tests of `config_tree` share: running the module, and looking at trees."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ansible

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "plugins" / "modules" / "config_tree.py"
DRIVER = Path(__file__).with_name("config_tree_driver.py")
READER = Path(__file__).with_name("config_tree_reader.py")
MANIFEST = ".config_tree"
# The interpreter of the "remote host": set it to run the same tests with another one than the controller's.
PYTHON = os.environ.get("CONFIG_TREE_PYTHON", sys.executable)

Result = dict[str, Any]


def environment() -> dict[str, str]:
    """Return the environment of a module process: another interpreter must find our ansible, too."""
    return {**os.environ, "PYTHONPATH": str(Path(ansible.__file__).parents[1])}


def spell(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return `files` as the module wants them: what is plain text gets wrapped."""
    return {rel: {"content": entry} if isinstance(entry, str) else entry for rel, entry in files.items()}


def arguments(path: Path, files: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return module arguments; `check` and `diff` are Ansible's switches."""
    args: dict[str, Any] = {"path": str(path), **({} if files is None else {"files": spell(files)}), **more}
    args["_ansible_check_mode"] = args.pop("check", False)
    args["_ansible_diff"] = args.pop("diff", True)
    return args


def run(path: Path, files: Mapping[str, Any] | None = None, alone: bool = False, **more: Any) -> Result:
    """Run the module and return its result (failed or not).

    It runs in a process forked by a `Driver`, which has loaded ansible already; `alone`: as Ansible would run it, its
    file executed, with the arguments on stdin (ansible-core then assumes the profile "legacy").
    """
    args = arguments(path, files, **more)
    if not alone:
        result: Result = shared_driver().ask(args)["result"]
        return result
    done = subprocess.run(
        [PYTHON, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": args}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return parse(done.stdout)


def parse(output: str) -> Result:
    """Return the module's result, with warnings as plain text."""
    result: Result = json.loads(output)
    result["warnings"] = [
        warning if isinstance(warning, str) else warning["event"]["msg"] for warning in result.get("warnings", [])
    ]
    return result


def succeed(path: Path, files: Mapping[str, Any] | None = None, **more: Any) -> Result:
    """Run the module and return its result, which must not be a failure."""
    result = run(path, files, **more)
    assert not result.get("failed"), result["msg"]
    return result


def refuse(path: Path, files: Mapping[str, Any] | None = None, **more: Any) -> str:
    """Run the module, which must fail, and return what it says."""
    result = run(path, files, **more)
    assert result.get("failed"), result
    return str(result["msg"])


class Driver:
    """Runs the module in forked processes that can be stopped at a given step; see `config_tree_driver.py`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [PYTHON, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def ask(self, args: dict[str, Any], **how: Any) -> Result:
        """Run once and return what became of the process; `result` is the module's, or None if it was killed."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"args": args, **how}) + "\n")
        self.process.stdin.flush()
        answer: Result = json.loads(self.process.stdout.readline())
        assert answer["signal"] or answer["stdout"], answer["stderr"]
        assert "Traceback" not in answer["stderr"], answer["stderr"]
        answer["result"] = parse(answer["stdout"]) if answer["stdout"] else None
        return answer

    def run(self, args: dict[str, Any], **how: Any) -> Result:
        """Run to the end and return the module's result, which must not be a failure."""
        result: Result = self.ask(args, **how)["result"]
        assert not result.get("failed"), result["msg"]
        return result

    def close(self) -> None:
        """End the driver."""
        self.process.communicate()


@functools.cache
def shared_driver() -> Driver:
    """Return this process's driver, which ends with it."""
    driver = Driver()
    atexit.register(driver.close)
    return driver


class Reader:
    """A process that reads the live tree all the time; see `config_tree_reader.py`."""

    def __init__(self, path: Path, trees: list[dict[str, str]], foreign: Iterable[str], may_be_missing: bool) -> None:
        store = store_of(path)
        beside = [staged_of(path), *(store / name for name in ("previous", "rejected", "parked"))]
        task = {
            "path": str(path),
            "beside": [str(place) for place in beside],
            "trees": trees,
            "foreign": {rel: (path / rel).lstat().st_ino for rel in foreign},
            "may_be_missing": may_be_missing,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(READER), json.dumps(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def stop(self) -> Result:
        """End the reader and return what it has seen."""
        out, _ = self.process.communicate()
        result: Result = json.loads(out)
        return result


def store_of(path: Path) -> Path:
    """Return where the module keeps the previous tree and its journal."""
    return path.with_name(f".{path.name}.config_tree")


def staged_of(path: Path) -> Path:
    """Return where the module stages a tree."""
    return path.with_name(f".{path.name}.config_tree.new")


def tree(root: Path) -> dict[str, str]:
    """Return all files of a tree but the manifest, with their content; also links and empty directories."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        rel = str(path.relative_to(root))
        if path.is_symlink():
            found[rel] = f"-> {path.readlink()}"
        elif path.is_dir():
            if not any(path.iterdir()):
                found[rel + "/"] = "dir"
        elif rel != MANIFEST:
            found[rel] = path.read_text(errors="replace")
    return found


def surroundings(path: Path) -> dict[str, Any]:
    """Return everything below the parent of `path` that could change: names, inodes, modes, owners and times."""
    return {
        str(entry.relative_to(path.parent)): (
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
        )
        for entry in sorted(path.parent.rglob("*"))
        for status in [entry.lstat()]
    }
