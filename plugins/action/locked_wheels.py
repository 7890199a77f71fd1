"""Action `locked_wheels`: find out whether the locked Python packages of some hosts are to be had."""

from __future__ import annotations

DOCUMENTATION = r"""
module: locked_wheels
author: AllIN operations
short_description: Find out whether the locked Python packages of some hosts are to be had
description:
  - Works on the controller alone. For each Python and architecture that a host needs it looks for the file into which
    an earlier run has packed them, and else has pip look for every package of the lock, by its hashes, as a deployment
    will. Pip keeps what it looks at in its cache; nothing is installed. Never fails for what is missing.
  - A host that has the release already needs nothing. One that has told nothing needs every Python that is named.
options:
  release:
    description: Release that is to be built.
    type: str
    required: true
  lock:
    description: Requirements file with hashes.
    type: path
    required: true
  hosts:
    description: Host -> what C(built_releases) has returned there, empty where it was not asked.
    type: dict
    required: true
  machines:
    description: Host -> architecture where it has told nothing, amd64, arm64, or as C(uname -m) says it.
    type: dict
    default: {}
  pythons:
    description: Pythons to look for where a host has told nothing.
    type: list
    elements: str
    required: true
  tags:
    description: Kinds of wheels that are taken, without their architecture.
    type: list
    elements: str
    required: true
  packed:
    description: Path of the packed wheels, with C({python}) and C({machine}).
    type: path
    required: true
  folder:
    description: Folder of wheels that is looked into instead of any index.
    type: str
    default: ""
  index_url:
    description: Index that pip asks instead of its own.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look for the locked packages
  locked_wheels:
    release: 1.2.0-0123456789ab
    lock: app/requirements/runtime.txt
    hosts: {app1: {python: "3.13", machine: x86_64, releases: []}}
    pythons: ["3.11", "3.13"]
    tags: [manylinux2014, manylinux_2_28]
    packed: /var/cache/wheels-py{python}-{machine}.tar
"""

RETURN = r"""
artifacts:
  description: One for each Python and architecture, as C(artifacts) returns them and C(missing_artifacts) takes them.
  type: list
  elements: dict
  returned: always
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

ROLE = "backend"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
ARCHITECTURES = {machine: architecture for architecture, machine in MACHINES.items()}
SILENCE_SECONDS = "15"
NAMED = 4
"""How many packages a message names."""


@dataclass
class Needed:
    """What hosts of one Python and machine need."""

    python: str
    machine: str
    hosts: list[str] = field(default_factory=list)
    looked: list[tuple[str, str]] = field(default_factory=list)
    found: bool = False
    path: str = ""


def needed(
    hosts: Mapping[str, Mapping[str, Any]], machines: Mapping[str, str], pythons: Sequence[str], release: str
) -> list[Needed]:
    """Return what the hosts need that have not built the release."""
    found: dict[tuple[str, str], Needed] = {}
    for host in sorted(hosts):
        told = hosts[host] or {}
        if release in (told.get("releases") or []):
            continue
        machine = str(told.get("machine") or machines.get(host, "amd64"))
        machine = MACHINES.get(machine, machine)
        for python in [str(told["python"])] if told.get("python") else pythons:
            found.setdefault((python, machine), Needed(python, machine)).hosts.append(host)
    return list(found.values())


def shown(url: str) -> str:
    """Return an address without the password that may stand in it."""
    return re.sub(r"//[^/@\s]*@", "//", url)


def locked(requirements: str) -> dict[str, set[str]]:
    """Return package==version -> SHA-256 of its files."""
    found: dict[str, set[str]] = {}
    for entry in requirements.replace("\\\n", " ").splitlines():
        name, *options = entry.split() or [""]
        hashes = {one.removeprefix("--hash=sha256:") for one in options if one.startswith("--hash=sha256:")}
        if hashes:
            found[name] = hashes
    return found


def absent(folder: Path, requirements: str) -> list[str]:
    """Return the locked packages of which no file at all is in the folder."""
    if not folder.is_dir():
        return list(locked(requirements))
    there = {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}
    return [name for name, hashes in locked(requirements).items() if not hashes & there]


def some(names: Sequence[str]) -> str:
    """Return names, of many only the first."""
    return ", ".join(names) if len(names) <= NAMED else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def reason(output: str) -> str:
    """Return in one line what pip says of a package that it cannot have."""
    if unlike := re.findall(r"^ +(\S+==\S+) from .+\n +Expected", output, re.MULTILINE):
        return f"{some(unlike)}: not the hash that is locked"
    if package := re.findall(r"No matching distribution found for (\S+)", output):
        if broken := re.findall(r"connection broken by (.+)", output):
            told = re.findall(r"Errno -?\d+\] ([^'\"()]+)", broken[-1]) or re.findall(r"^'?(\w+)", broken[-1])
            return f"{package[-1]}: no answer: {told[0]}"
        return f"{package[-1]}: none that fits"
    errors = re.findall(r"^ERROR: (.+)", output, re.MULTILINE)
    return shown(errors[-1] if errors else " ".join(output.split())[-200:]) or "pip failed, and did not say why"


def look(one: Needed, requirements: str, tags: Sequence[str], packed: str, folder: str, index_url: str) -> None:
    """Look for what is needed; write down where, and what came back."""
    path = Path(packed.replace("{python}", one.python).replace("{machine}", one.machine)).expanduser()
    if path.is_file():
        one.found, one.path = True, str(path)
        one.looked.append((f"earlier downloads {path.parent}", "found"))
        return
    one.looked.append((f"earlier downloads {path.parent}", "no such file"))
    if folder:
        place, source = f"folder (backend_wheels_dir) {folder}", ["--no-index", "--find-links", folder]
    elif index_url:
        place, source = f"index {shown(index_url)}", ["--index-url", index_url]
    else:
        place, source = "pip's index", []
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as lock:
        lock.write(requirements)
        lock.flush()
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--dry-run",
                    "--ignore-installed",
                    "--target",
                    "/nonexistent",
                ),
                *("--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps"),
                *("--only-binary", ":all:", "--implementation", "cp", "--python-version", one.python),
                *("--retries", "1", "--timeout", SILENCE_SECONDS),
                *(f"--platform={tag}_{one.machine}" for tag in tags),
                *source,
                *("--requirement", lock.name),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    one.found = done.returncode == 0
    if one.found:
        said = "has all of them"
    elif folder and not Path(folder).is_dir():
        said = "no such folder"
    elif folder and (names := absent(Path(folder), requirements)):
        said = f"{len(names)} of {len(locked(requirements))} are not there: {some(names)}"
    else:
        said = reason(done.stdout)
    one.looked.append((place, said))


class ActionModule(ActionBase):  # type: ignore[misc]
    """Entry point for Ansible."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "release": {"type": "str", "required": True},
                "lock": {"type": "path", "required": True},
                "hosts": {"type": "dict", "required": True},
                "machines": {"type": "dict", "default": {}},
                "pythons": {"type": "list", "elements": "str", "required": True},
                "tags": {"type": "list", "elements": "str", "required": True},
                "packed": {"type": "path", "required": True},
                "folder": {"type": "str", "default": ""},
                "index_url": {"type": "str", "default": ""},
            }
        )
        release = arguments["release"].strip()
        text = Path(arguments["lock"]).read_text(encoding="utf-8")
        for_host = self._shared_loader_obj.filter_loader.get("requirements_for").j2_function
        wanted = needed(arguments["hosts"], arguments["machines"], arguments["pythons"], release)

        def find(one: Needed) -> None:
            look(
                one,
                for_host(text, version=f"{one.python}.0", machine=one.machine),
                arguments["tags"],
                arguments["packed"],
                arguments["folder"],
                arguments["index_url"],
            )

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(find, wanted))
        return {"changed": False, "artifacts": [public(one, release) for one in wanted]}


def public(one: Needed, release: str) -> dict[str, Any]:
    """Return it for a result, as the action C(artifacts) does."""
    return {
        "role": ROLE,
        "version": release,
        "architecture": ARCHITECTURES.get(one.machine, one.machine),
        "file": f"Python packages for {one.python}",
        "sha256": "",
        "pin": "",
        "hosts": one.hosts,
        "optional": False,
        "found": one.found,
        "path": one.path,
        "looked": [{"place": place, "said": said} for place, said in one.looked],
    }
