"""Runs `config_tree` again and again in forked processes, so that it can be stopped at each step of its work.

A request is one line of JSON on stdin, an answer one line on stdout. In the child every function of `os` that
changes a filesystem is counted; at the wanted count the child kills itself with SIGKILL, before that call.
`fsync` is noted instead of done: it makes no difference to a killed process, and hundreds of runs are much quicker.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.module_utils import basic

SOURCE = Path(__file__).resolve().parents[2] / "plugins" / "modules" / "config_tree.py"
COUNTED = ("link", "rename", "replace", "unlink", "mkdir", "rmdir", "chmod", "chown", "write", "utime")


def load() -> ModuleType:
    """Import the module under test."""
    spec = importlib.util.spec_from_file_location("config_tree", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["config_tree"] = module
    spec.loader.exec_module(module)
    return module


def act(root: Path, actions: list[list[str]]) -> None:
    """Do what a foreign process would do to the files below `root`."""
    for verb, rel, *more in actions:
        path = root / rel
        if verb == "write":  # as careful writers do: a new inode, renamed into place
            path.parent.mkdir(exist_ok=True, parents=True)
            draft = path.with_name(path.name + ".draft")
            draft.write_text(more[0])
            draft.rename(path)
        elif verb == "unlink":
            path.unlink()
        elif verb == "rename":
            path.rename(root / more[0])
        elif verb == "mkdir":
            path.mkdir()
        elif verb == "rmdir":
            path.rmdir()
        else:
            raise ValueError(verb)


class Tampering:
    """Counts the steps of one run, and does the foreign actions that belong to a moment of it."""

    def __init__(self, module: ModuleType, request: dict[str, Any]) -> None:
        self.module = module
        self.kill_at: int = request.get("kill_at", 0)
        self.exchange_error: str = request.get("exchange_error", "")
        self.fail: dict[str, str] = request.get("fail", {})
        self.live = Path(request["args"]["path"])
        self.moments: dict[str, list[list[str]]] = request.get("moments", {})
        self.steps = 0
        self.exchanges = 0
        self.busy = False
        self.events: list[str] = []

    def step(self) -> None:
        if self.busy:
            return
        self.steps += 1
        if self.steps == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def moment(self, name: str) -> None:
        """Let others act, uncounted: only the module's own steps are cut short."""
        self.busy = True
        act(self.live, self.moments.pop(name, []))
        self.busy = False

    def install(self) -> None:
        for name in COUNTED:
            setattr(os, name, self.counted(name, getattr(os, name)))
        os.fsync = self.fsync  # type: ignore[assignment]
        self.module.exchange = self.exchange(self.module.exchange)  # type: ignore[attr-defined]

    def fsync(self, descriptor: Any) -> None:
        self.events.append(f"sync {os.readlink(f'/proc/self/fd/{descriptor}')}")  # noqa: PTH115 - as it is, unresolved

    def counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            self.step()
            if name == "rename":
                self.events.append(f"rename {args[1]}")
            if f"{name} {args[0]}" in self.fail and not self.busy:
                code = getattr(errno, self.fail[f"{name} {args[0]}"])
                raise OSError(code, os.strerror(code), str(args[0]))
            return original(*args, **keywords)

        return call

    def exchange(self, original: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def call(first: Path, second: Path) -> None:
            self.exchanges += 1
            number = self.exchanges
            self.moment(f"before {number}")
            self.step()
            if self.exchange_error:
                code = getattr(errno, self.exchange_error)
                raise OSError(code, os.strerror(code), str(first))
            self.events.append(f"exchange {second}")
            original(first, second)
            self.moment(f"after {number}")

        return call


def child(module: ModuleType, request: dict[str, Any], out: int, err: int, steps: int) -> None:
    """Run the module once; does not return."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": request["args"]}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    basic.AnsibleModule.log = lambda *_args, **_keywords: None  # hundreds of runs are no news for the system log
    tampering = Tampering(module, request)
    tampering.install()
    code = 0
    try:
        module.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    tampering.busy = True
    os.write(steps, json.dumps([tampering.steps, tampering.events]).encode())
    os._exit(code)


def temporary() -> int:
    return os.memfd_create("config_tree")


def content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor) as stream:
        return stream.read()


def serve() -> None:
    module = load()
    for line in sys.stdin:
        request = json.loads(line)
        out, err, steps = temporary(), temporary(), temporary()
        process = os.fork()
        if process == 0:
            try:
                child(module, request, out, err, steps)
            finally:
                os._exit(70)
        started = time.monotonic()
        if "kill_after" in request:
            # Waits on a descriptor of the process: over at once when it ends by itself.
            descriptor = os.pidfd_open(process)
            select.select([descriptor], [], [], request["kill_after"])
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)
        _, status, usage = os.wait4(process, 0)
        counted, events = json.loads(content(steps) or "[0, []]")
        answer = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "seconds": time.monotonic() - started,
            "cpu": usage.ru_utime + usage.ru_stime,
            "stdout": content(out),
            "stderr": content(err),
            "steps": counted,
            "events": events,
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
