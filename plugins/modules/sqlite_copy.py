#!/usr/bin/python
"""Ansible module `sqlite_copy`: keep a service's SQLite database as one version leaves it, and put it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_copy
author: AllIN operations
short_description: Keep a service's SQLite database as one version leaves it, and put it back
description:
  - A new version of a service may migrate its database when it first starts, and the one before may not work with that.
    So before another version starts, the database is copied to C(<path>.of-<version>) beside it.
  - The copy is made by SQLite itself, so that it is consistent and has what is still in a write-ahead log. It has the
    owner and the mode of the database, and its name only when it is complete.
  - Everything is done as the owner of the database, so that no link in a directory of theirs leads root astray.
  - Where there is no database yet, nothing is done.
options:
  path:
    description: The database, an absolute path.
    type: path
    required: true
  version:
    description: The version that leaves the database so.
    type: str
    required: true
  keep:
    description: Further versions whose copies stay when a new one is made; those of all others are removed.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(room) finds out whether a copy has room, and fails where it has not; it changes nothing.
      - V(copied) makes the copy, in place of an earlier one of the same version. The service must not run, or what it
        writes meanwhile is not in it.
      - V(restored) puts the copy in the place of the database, which is gone then. The service must not run.
    type: str
    choices: [room, copied, restored]
    default: copied
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Copy the database as 12.4.0 leaves it
  sqlite_copy:
    path: /var/lib/grafana/grafana.db
    version: 12.4.0
  register: copy

- name: Put it back
  sqlite_copy:
    path: /var/lib/grafana/grafana.db
    version: 12.4.0
    state: restored
  when: copy is changed
"""

RETURN = r"""
copy:
  description: Where the copy is, or would be.
  returned: success
  type: str
removed:
  description: Copies of other versions that went.
  returned: success
  type: list
  elements: str
msg:
  description: What happened, in one sentence.
  returned: always
  type: str
"""

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

try:
    import sqlite3
except ImportError:  # not every Python is built with it
    HAS_SQLITE = False
else:
    HAS_SQLITE = True

# What belongs to an open database, beside it.
BESIDE = ("-wal", "-shm", "-journal")
# What shall be free beside the copy, for the service to go on writing.
MARGIN_BYTES = 16 * 1024**2
BUSY_SECONDS = 10.0


class CopyError(Exception):
    """A refusal or failure; its text tells a person what to do."""


def find_copy(path: Path, version: str) -> Path:
    """Return where the copy of a version is."""
    return path.with_name(f"{path.name}.of-{version}")


def check_room(path: Path) -> None:
    """Raise CopyError where a copy of the database does not fit beside it."""
    needed = MARGIN_BYTES
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(FileNotFoundError):
            needed += file.stat().st_size
    filesystem = os.statvfs(path.parent)
    free = filesystem.f_bavail * filesystem.f_frsize
    if free < needed:
        raise CopyError(
            f"{path.parent} has {free // 1024**2} MiB free, and a copy of {path.name} needs"
            f" {-(-needed // 1024**2)} MiB. Another version may migrate the database for good, so it is not started"
            " without a copy. Make room, then run again."
        )


def sync(path: Path) -> None:
    """Make a file, or the entries of a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_files(files: list[Path]) -> None:
    """Remove files, which may be gone."""
    for file in files:
        file.unlink(missing_ok=True)


def remove_beside(path: Path) -> None:
    """Remove the logs of a database."""
    remove_files([path.with_name(path.name + ending) for ending in BESIDE])


def copy_database(path: Path, copy: Path, mode: int) -> None:
    """Make the copy; it gets its name when it is complete."""
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    remove_beside(partial)
    try:
        source = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)
        with contextlib.closing(source):
            # Nobody but the owner may look into it while it is made.
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            with contextlib.closing(sqlite3.connect(partial)) as target:
                source.backup(target)
        remove_beside(partial)
        partial.chmod(mode)
        sync(partial)
        partial.replace(copy)
        sync(copy.parent)
    except (sqlite3.Error, OSError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
            remove_beside(partial)
        raise CopyError(
            f"{path} could not be copied: {error}. Another version may migrate the database for good, so it is not"
            " started without a copy. Mend the cause, then run again."
        ) from error


def restore_database(path: Path, copy: Path) -> None:
    """Put the copy in the place of the database."""
    # First the logs: with the copy they would be taken for its own.
    remove_beside(path)
    copy.replace(path)
    sync(path.parent)


def find_others(path: Path, versions: set[str]) -> list[Path]:
    """Return the copies of all but these versions."""
    prefix = f"{path.name}.of-"
    kept = {prefix + version for version in versions}
    return [file for file in sorted(path.parent.iterdir()) if file.name.startswith(prefix) and file.name not in kept]


def as_owner(owner: os.stat_result, work: Callable[[], None]) -> None:
    """Do something in a process that is the owner of a file; raise CopyError with what it says when it fails."""
    if os.geteuid() != 0 or owner.st_uid == 0:
        work()
        return
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        code = 0
        try:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
            work()
        except Exception as error:  # all of them are told to the parent
            os.write(write, str(error).encode()[:4096])
            code = 1
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        message = said.read().decode(errors="replace")
    _, status = os.waitpid(process, 0)
    if status:
        raise CopyError(message or f"The process that worked on the database ended with status {status}.")


def run(parameters: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what is asked and return the result."""
    path = Path(parameters["path"])
    if not path.is_absolute():
        raise CopyError(f"path: {path} must be an absolute path, such as /var/lib/name/name.db.")
    if not HAS_SQLITE:
        raise CopyError(
            "The Python of this host has no module sqlite3. Install python3 of the distribution, or its libraries."
        )
    version, state = parameters["version"], parameters["state"]
    if not version or "/" in version:
        raise CopyError(f"version: {version!r} must be a version, such as 1.2.3.")
    copy = find_copy(path, version)
    result: dict[str, Any] = {"changed": False, "copy": str(copy), "removed": [], "msg": f"There is no {path}."}

    found = copy if state == "restored" else path
    try:
        status = found.lstat()
    except (FileNotFoundError, NotADirectoryError):
        if state == "restored":
            raise CopyError(f"There is no {copy} to put back.") from None
        return result
    if not stat.S_ISREG(status.st_mode):
        raise CopyError(
            f"{found} is not a regular file. Have the service name the file itself instead of a link to it."
        )

    if state == "restored":
        if not check_mode:
            as_owner(status, lambda: restore_database(path, copy))
        return {**result, "changed": True, "msg": f"{path} is as {version} left it."}
    check_room(path)
    if state == "room":
        return {**result, "msg": f"There is room for {copy}."}
    if not check_mode:
        as_owner(status, lambda: copy_database(path, copy, stat.S_IMODE(status.st_mode)))
        others = find_others(path, {version, *parameters["keep"]})
        as_owner(status, lambda: remove_files(others))
        result["removed"] = [str(file) for file in others]
    return {**result, "changed": True, "msg": f"{copy} is {path} as {version} leaves it."}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["room", "copied", "restored"], "default": "copied"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except CopyError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{module.params['path']}: {error}. Mend the cause, then run again.")
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
