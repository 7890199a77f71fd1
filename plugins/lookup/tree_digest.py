"""Lookup `tree_digest`: one short digest for the contents of files and directories on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: tree_digest
author: AllIN operations
short_description: Digest of the contents of files and directories on the controller
description:
  - Returns the first 12 hexadecimal digits of a SHA-256 over the relative paths and the contents below the given paths.
  - Two checkouts of the same commit give the same digest on every machine, so it can be part of a release id.
  - Times, modes, owners, locale and the place of the tree do not count. Names, contents, the targets of symbolic
    links and the order of the given paths do.
  - Left out are C(__pycache__), C(*.pyc), C(*.pyo), C(*.egg-info) and directories whose name starts with a dot.
options:
  _terms:
    description:
      - Files and directories. A relative path starts at the directory of the playbook.
      - Symbolic links below them are not followed; their target counts as content.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Name the release after its version and its contents
  ansible.builtin.set_fact:
    __backend_release: "{{ backend_version }}-{{ lookup('tree_digest', src ~ '/src', src ~ '/pyproject.toml') }}"
  vars:
    src: "{{ playbook_dir }}/../app"
"""

RETURN = r"""
_raw:
  description: One element, 12 hexadecimal digits.
  type: list
  elements: str
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DIGITS = 12


def is_left_out(name: str, *, is_directory: bool) -> bool:
    """Say whether an entry of this name is made by tools and so no part of the source."""
    if name == "__pycache__" or name.endswith((".pyc", ".pyo", ".egg-info")):
        return True
    return is_directory and name.startswith(".")


def walk(root: Path) -> Iterator[tuple[bytes, Path]]:
    """Yield every file and link below `root` with its relative path, in no particular order.

    The path is bytes with `/` between its parts, so that sorting does not depend on the locale.
    """
    pending: list[tuple[bytes, Path]] = [(b"", root)]
    while pending:
        prefix, directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_left_out(entry.name, is_directory=is_directory):
                    continue
                relative = prefix + os.fsencode(entry.name)
                if is_directory:
                    pending.append((relative + b"/", Path(entry.path)))
                else:
                    yield relative, Path(entry.path)


def content_digest(path: Path) -> bytes:
    """Return the kind of a file and the digest of its content.

    Raises AnsibleLookupError for what is neither a file nor a link, such as a socket.
    """
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return b"l" + hashlib.sha256(os.fsencode(path.readlink())).digest()
    if not stat.S_ISREG(mode):
        raise AnsibleLookupError(f"tree_digest: {path} is neither a file nor a directory nor a link; remove it.")
    with path.open("rb") as stream:
        return b"f" + hashlib.file_digest(stream, "sha256").digest()


def tree_digest(paths: list[Path]) -> str:
    """Return the first 12 hexadecimal digits of a SHA-256 over the names and contents below `paths`.

    Raises AnsibleLookupError when a path is missing, cannot be read, or holds no file at all.
    """
    whole = hashlib.sha256()
    for path in paths:
        try:
            real = path.resolve(strict=True)
            found = sorted(walk(real)) if real.is_dir() else [(b"", real)]
            if not found:
                raise AnsibleLookupError(f"tree_digest: {path} holds no file, so there is nothing to release.")
            # A length before each name keeps two different trees from giving the same bytes.
            name = os.fsencode(path.name)
            whole.update(b"t%d:%b%d\n" % (len(name), name, len(found)))
            for relative, entry in found:
                whole.update(b"%d:%b" % (len(relative), relative) + content_digest(entry))
        except FileNotFoundError as error:
            raise AnsibleLookupError(f"tree_digest: {error.filename} does not exist; check the path.") from error
        except OSError as error:
            raise AnsibleLookupError(f"tree_digest: cannot read {error.filename}: {error.strerror}.") from error
    return whole.hexdigest()[:DIGITS]


class LookupModule(LookupBase):  # type: ignore[misc]
    """Entry point for Ansible."""

    def run(self, terms: list[object], variables: dict[str, object] | None = None, **kwargs: object) -> list[str]:
        """Return a list with one digest over all `terms`."""
        self.set_options(var_options=variables, direct=kwargs)
        if not terms:
            raise AnsibleLookupError("tree_digest: give at least one path.")
        wrong = [term for term in terms if not isinstance(term, str) or not term]
        if wrong:
            raise AnsibleLookupError(f"tree_digest: {wrong[0]!r} is not a path.")
        return [tree_digest([Path(self._loader.path_dwim(str(term))) for term in terms])]
