"""Reads a directory over and over, as a service would, until stdin is closed; then prints what was wrong.

Arguments: a JSON object with `path`, `beside` (where an old tree may be kept), `trees` (each a complete tree: relative
path to content), `foreign` (relative path to inode) and `may_be_missing`.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any


def read(directory: int, rel: str) -> str | None:
    """Return a file's content through the opened directory, or None if it is not there."""
    try:
        descriptor = os.open(rel, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor) as stream:
        return stream.read()


def inode(path: str, directory: int | None = None) -> int | None:
    """Return the inode at a path, or None."""
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def main() -> None:
    task: dict[str, Any] = json.loads(sys.argv[1])
    names = sorted({rel for tree in task["trees"] for rel in tree})
    reads, missing, bad = 0, 0, []
    seen: list[int] = [0] * len(task["trees"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0.001)[0]:  # leaves some of the machine to the others
        try:
            directory = os.open(task["path"], os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            missing += 1
            if not task["may_be_missing"]:
                bad.append("the path is missing")
            continue
        try:
            tree = {rel: text for rel in names if (text := read(directory, rel)) is not None}
            foreign = {rel: inode(rel, directory) for rel in task["foreign"]}
            if tree in task["trees"] and foreign == task["foreign"]:
                reads += 1
                seen[task["trees"].index(tree)] += 1
            elif os.fstat(directory).st_ino in {inode(place) for place in (task["path"], *task["beside"])}:
                # Otherwise two switches happened since the directory was opened, and it is being deleted.
                bad.append(f"{tree} {foreign}")
        finally:
            os.close(directory)
    sys.stdout.write(json.dumps({"reads": reads, "missing": missing, "bad": bad[:5], "seen": seen}) + "\n")


if __name__ == "__main__":
    main()
