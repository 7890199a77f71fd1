#!/usr/bin/python
"""Ansible module: own the configuration directory of a service, all or nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Own the configuration directory of a service, all or nothing
description:
  - Takes the whole tree of a directory, stages it beside the target, runs the validators on the staged tree and then
    switches over in one step. Whatever interrupts it, a reader of O(path) finds the complete old tree or the
    complete new one.
  - Files that the module managed before and that are no longer in O(files) are removed. Foreign files (those it never
    managed) are carried along as the same inodes and are never changed or removed.
  - A file that exists under a name in O(files) when a directory is taken over is replaced; the previous tree keeps it.
  - The names of the managed files are kept in C(.config_tree) in the tree itself, so that list and tree always switch
    together. The name has no extension, so that no C(*.yml) or C(*.json) matches it; it is readable by root alone.
  - The previous tree and the journal of a switch are in C(.<name>.config_tree) beside O(path). The staged tree is
    C(.<name>.config_tree.new) beside it, at the same depth, so that relative references work while it is validated.
  - If an earlier run was killed, the next one finishes or undoes its switch first. A switch that was finished this way
    counts as a change, because nobody has reloaded the service for it yet.
options:
  path:
    description:
      - The directory to own, an absolute path below a top-level directory. A symbolic link is resolved and stays a
        link; everything happens beside the directory that it points to.
      - Missing parents are created (0755). It must not be a mount point, also not in the unit of the service
        (no C(BindPaths=) of this directory), because a mount point cannot be exchanged.
    type: path
    required: true
  files:
    description:
      - The managed files, relative path to a dictionary with V(content) (text) and optionally V(mode) (a quoted octal
        string). Required and not empty for O(state=present).
    type: dict
  owner:
    description: Owner of the managed files and directories, a name or a numeric id.
    type: str
    default: root
  group:
    description: Group of the managed files and directories, a name or a numeric id.
    type: str
    default: root
  file_mode:
    description: Mode of managed files that have none of their own, a quoted octal string.
    type: raw
    default: "0640"
  dir_mode:
    description: Mode of O(path) and of each directory that holds managed files, a quoted octal string.
    type: raw
    default: "0750"
  validate:
    description:
      - Commands that must accept the staged tree, foreign files included, before anything is switched; also in check
        mode. Each is a list of words, a string (split like a shell does, run without one), or a dictionary with
        V(argv) and V(forbid_output). C(%s) stands for the staged directory and must occur.
      - Each must exit 0 within 120 seconds. With V(forbid_output=true) any output is a failure, too.
      - A program that does not exist is an error; in check mode it is a warning and RV(validated) is false.
      - Nothing is validated when nothing changes, and with O(state=previous).
    type: list
    elements: raw
    default: []
  state:
    description:
      - V(present) makes O(path) hold O(files).
      - V(previous) puts back the managed files of the tree that was live before the last switch; foreign files stay as
        they are now. The tree that was live is kept as RV(rejected) until the next switch and is never put back
        by the module, so a second call changes nothing and says so. Without a previous tree it is an error. All
        other options but O(path) and O(until_proven) are ignored.
      - Ask for V(previous) only when the O(state=present) of the same run reported a change and a previous tree; with
        O(until_proven) a previous tree suffices.
      - V(proven) deletes what is kept of earlier trees, the previous and the rejected one.
    type: str
    choices: [present, previous, proven]
    default: present
  keep_previous:
    description: Whether to keep the tree that was live before the switch.
    type: bool
    default: true
  until_proven:
    description:
      - For secrets, of which no copy shall stay. The previous tree is kept from the first switch until O(state=proven),
        in a directory that root alone may enter.
      - Switches in between leave it alone, also those of a later run after one that was cut off. So it remains the tree
        with which the service last proved that it works.
      - With O(state=previous), what that replaces is deleted instead of kept.
    type: bool
    default: false
notes:
  - Runs at once on the same parent directory wait for each other, for two minutes at most.
  - Where the filesystem cannot exchange two directories, two renames are used. Between them O(path) is missing for some
    milliseconds; the next run puts back the old tree if it was interrupted there. The result has a warning.
  - A process that watches the directory by inotify keeps watching the old one. Reload the service after a change.
attributes:
  check_mode:
    description: Reports the same change as a real run, validates, and leaves nothing behind.
    support: full
  diff_mode:
    description: A unified diff of each file, also of created and removed ones, and of modes and owners.
    support: full
author: AllIN Monitoring
"""

EXAMPLES = r"""
- name: Put Prometheus' configuration in place
  config_tree:
    path: /etc/prometheus
    group: prometheus
    files:
      prometheus.yml:
        content: "{{ lookup('ansible.builtin.template', 'prometheus.yml.j2') }}"
      rules/backend.yml:
        content: "{{ lookup('ansible.builtin.template', 'rules/backend.yml.j2') }}"
        mode: "0644"
    validate:
      - [/opt/prometheus/current/promtool, check, config, "%s/prometheus.yml"]
  register: tree
  notify: Reload prometheus

- name: Put back the tree that worked
  config_tree:
    path: /etc/prometheus
    state: previous
  when: tree is changed and tree.previous is not none

- name: Write the secrets, and keep the former ones until the service has proved that it works
  config_tree:
    path: /etc/prometheus-secrets
    group: prometheus
    files: "{{ prometheus_secrets }}"
    until_proven: true
  no_log: true
  diff: false

- name: Keep no copy of the former secrets
  config_tree:
    path: /etc/prometheus-secrets
    state: proven

- name: Accept a tree only if the checker is silent
  config_tree:
    path: /etc/example/conf.d
    files: "{{ example_files }}"
    validate:
      - argv: [example-check, --strict, "%s"]
        forbid_output: true
"""

RETURN = r"""
created:
  description: Managed files and directories (with a trailing slash) that did not exist.
  returned: success
  type: list
  elements: str
updated:
  description: Managed files whose content (or type) differed.
  returned: success
  type: list
  elements: str
removed:
  description: Files and directories that were managed and no longer are.
  returned: success
  type: list
  elements: str
repaired:
  description: Managed files and directories of which only mode, owner or group differed; V(./) is O(path) itself.
  returned: success
  type: list
  elements: str
adopted:
  description: Files that existed before they were managed; replaced if they differed.
  returned: success
  type: list
  elements: str
validated:
  description: Whether all of O(validate) ran in this run and accepted the tree. False when nothing changed.
  returned: success
  type: bool
previous:
  description: The tree that O(state=previous) would put back, or none.
  returned: success
  type: str
unproven:
  description:
    - With O(until_proven), whether an earlier run changed the tree and never came to O(state=proven). What is live may
      never have been read.
  returned: success
  type: bool
rejected:
  description: The tree that O(state=previous) replaced, kept to be looked at until the next switch, or none.
  returned: success
  type: str
switch:
  description: How the trees were switched, V(exchange), V(first), V(renames), or V(none).
  returned: success
  type: str
recovered:
  description: Whether the unreported switch of an earlier, interrupted run was finished.
  returned: success
  type: bool
msg:
  description: What happened, in one sentence.
  returned: always
  type: str
"""

import errno
import fcntl
import functools
import grp
import json
import os
import posixpath
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

MANIFEST = ".config_tree"
FORMAT = 1
LOCK_WAIT_SECONDS = 120.0
VALIDATOR_SECONDS = 120.0
# "This filesystem (or a seccomp filter) knows no exchange": the two renames are tried instead. Any other error is real.
NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM})
LISTS = ("created", "updated", "removed", "repaired", "adopted")

Snapshot = dict[str, os.stat_result]


class TreeError(Exception):
    """A refusal or failure; its text tells a person what to do, `details` are further fields of the result."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


# --------------------------------------------------------------------------------------------------------------
# What is asked for


@dataclass(frozen=True)
class Validator:
    """A command that must accept the staged tree; `%s` in its words stands for the staged directory."""

    argv: tuple[str, ...]
    forbid_output: bool


@dataclass(frozen=True)
class Account:
    """The wanted owner and group. An id is None where the name does not exist yet (check mode only)."""

    uid: int | None
    gid: int | None
    owner: str
    group: str


@dataclass(frozen=True)
class Placed:
    """A managed file (from `content`, or a link to `source`) or a managed directory (neither) as it shall be."""

    mode: int
    account: Account
    content: bytes | None = None
    source: Path | None = None

    def agrees(self, status: os.stat_result) -> bool:
        """Whether mode, owner and group are as they shall be."""
        return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (
            self.mode,
            self.account.uid,
            self.account.gid,
        )


def parse_mode(value: Any, name: str) -> int:
    """Return the permission bits of an octal string like "0640"; `name` says in the error where it was given."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value):
        raise TreeError(f'{name}: {value!r} is not a mode. Write a quoted octal string such as "0640".')
    return int(value, 8)


def parse_files(value: Any, default_mode: int, account: Account) -> dict[str, Placed]:
    """Return the managed files by relative path; raise TreeError for what cannot be placed."""
    if not value:
        raise TreeError(
            "files: is empty, which would remove every managed file. Most likely a template or a variable gave nothing;"
            " to be rid of a service's configuration, remove its directory instead."
        )
    files: dict[str, Placed] = {}
    for rel, entry in value.items():
        if not isinstance(rel, str) or not rel or "\0" in rel:
            raise TreeError(f"files: {rel!r} is not a file name.")
        if rel.startswith("/") or posixpath.normpath(rel) != rel or rel.split("/")[0] in (".", ".."):
            raise TreeError(f"files: {rel!r} must be a plain path relative to `path`, without '..', '.' or '//'.")
        if rel.split("/")[0] == MANIFEST:
            raise TreeError(f"files: {rel!r} is where the module keeps its list of managed files; choose another name.")
        if not isinstance(entry, dict) or not set(entry) <= {"content", "mode"}:
            raise TreeError(f"files: {rel}: must be a dictionary with `content` and optionally `mode`.")
        content = entry.get("content")
        if not isinstance(content, str):
            raise TreeError(
                f"files: {rel}: content must be text, not {type(content).__name__};"
                " filters such as to_nice_yaml and to_nice_json make text of data."
            )
        mode = entry.get("mode")
        files[rel] = Placed(
            mode=default_mode if mode is None else parse_mode(mode, f"files: {rel}: mode"),
            account=account,
            content=content.encode("utf-8", "surrogateescape"),
        )
    for rel in files:
        for ancestor in ancestors(rel):
            if ancestor in files:
                raise TreeError(f"files: {ancestor!r} cannot be a file and the directory of {rel!r}.")
    return files


def parse_validators(value: Any) -> list[Validator]:
    """Return the validators; raise TreeError for one that is no command or that does not look at the staged tree."""
    validators = []
    for entry in value or []:
        forbid_output = False
        words = entry
        if isinstance(entry, dict):
            if "argv" not in entry or not set(entry) <= {"argv", "forbid_output"}:
                raise TreeError(f"validate: {entry!r}: a dictionary has `argv` and optionally `forbid_output`.")
            words, forbid_output = entry["argv"], entry.get("forbid_output", False)
            if not isinstance(forbid_output, bool):
                raise TreeError(f"validate: {entry!r}: forbid_output must be true or false.")
        if isinstance(words, str):
            try:
                words = shlex.split(words)
            except ValueError as error:
                raise TreeError(f"validate: {words!r}: {error}.") from error
        if not isinstance(words, list) or not words or not all(isinstance(word, (str, int)) for word in words):
            raise TreeError(f"validate: {entry!r} is not a command (a list of words, or a string).")
        argv = tuple(str(word) for word in words)
        if not any("%s" in word for word in argv):
            raise TreeError(f"validate: {shlex.join(argv)!r} has no %s, so it would not look at the staged tree.")
        validators.append(Validator(argv, forbid_output))
    return validators


def find_account(owner: str, group: str, check_mode: bool) -> Account:
    """Return the ids of owner and group; in check mode a name may be missing, an earlier task would create it."""

    def find(name: str, what: str, lookup: Callable[[str], int]) -> int | None:
        if name.isdecimal():
            return int(name)
        try:
            return lookup(name)
        except KeyError as error:
            if check_mode:
                return None
            raise TreeError(f"{what}: {name!r} does not exist on this host; create it before.") from error

    return Account(
        uid=find(owner, "owner", lambda name: pwd.getpwnam(name).pw_uid),
        gid=find(group, "group", lambda name: grp.getgrnam(name).gr_gid),
        owner=owner,
        group=group,
    )


def find_directory(path: str) -> Path:
    """Return the directory to own, links resolved; raise TreeError for what nobody can want to own."""
    given = Path(path)
    real = given.resolve()
    for candidate in (given, real):
        # Exchanging /etc or / would be a disaster, and neither is the configuration of one service.
        if not candidate.is_absolute() or len(Path(os.path.normpath(candidate)).parts) < 3:
            raise TreeError(f"path: {candidate} must be an absolute directory below a top-level one, like /etc/name.")
    if real.exists() and not real.is_dir():
        raise TreeError(f"path: {real} exists and is not a directory; move it away.")
    return real


# --------------------------------------------------------------------------------------------------------------
# Files and directories


def ancestors(rel: str) -> Iterator[str]:
    """Yield the directories above a relative path, outermost first, without the root."""
    parts = rel.split("/")
    for end in range(1, len(parts)):
        yield "/".join(parts[:end])


def lstat(path: Path) -> os.stat_result | None:
    """Return the status of what is at `path` itself, or None if there is nothing."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_dir(status: os.stat_result | None) -> bool:
    """Whether the status is that of a directory."""
    return status is not None and stat.S_ISDIR(status.st_mode)


def scan(root: Path) -> Snapshot:
    """Return the status of everything below `root` by relative path, and of `root` itself as "."; no link is followed.

    Returns an empty snapshot if `root` does not exist. What vanishes during the scan is left out.
    """
    status = lstat(root)
    if status is None:
        return {}
    found: Snapshot = {".": status}
    pending = [("", str(root))]
    while pending:
        prefix, directory = pending.pop()
        with suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found[prefix + entry.name] = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((f"{prefix}{entry.name}/", entry.path))
    return found


def read_file(path: Path) -> bytes:
    """Return the content of a regular file; a link in its place is an OSError."""
    # O_NONBLOCK: should somebody have put a pipe there, this must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def set_attributes(path: Path, mode: int, uid: int | None, gid: int | None) -> None:
    """Set owner, group and mode of a file or directory of ours (no link); None leaves an id alone."""
    status = path.stat()
    if (uid is not None and uid != status.st_uid) or (gid is not None and gid != status.st_gid):
        os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
    # After the owner, because a change of owner clears the set-id bits.
    path.chmod(mode)


def write_file(path: Path, content: bytes, mode: int, uid: int | None, gid: int | None, durable: bool) -> None:
    """Write a new file; with `durable` it is on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        set_attributes(path, mode, uid, gid)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Give a file, link, socket or pipe a second name; the link itself, not what it points to."""
    os.link(source, target, follow_symlinks=False)


@contextmanager
def pinned(root: Path, rel: str) -> Iterator[Path]:
    """Yield a path to `rel` below `root` that is valid inside the block; raise OSError if a link is on the way.

    Whoever owns a foreign directory could swap it for a link in the middle of our work, and have root write elsewhere.
    """
    *above, name = rel.split("/")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(root, flags)
    try:
        for part in above:
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield Path(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def copy_extended_attributes(source: Path, target: Path) -> None:
    """Copy ACLs and labels of a directory as far as this filesystem and this process can."""
    with suppress(OSError):
        for name in os.listxattr(source, follow_symlinks=False):
            with suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False))


def copy_directory(source: Path, target: Path) -> None:
    """Make `target`, a directory, look like the foreign directory `source`."""
    status = source.lstat()
    copy_extended_attributes(source, target)
    set_attributes(target, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange(first: Path, second: Path) -> None:
    """Swap two names in one step, for which Python has no function; raise OSError where that cannot be done."""
    import ctypes  # costs some milliseconds, which a run without a change need not pay

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = libc.renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(first)) from None
    at_fdcwd, rename_exchange = -100, 2
    if renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), ctypes.c_uint(rename_exchange)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(first), None, str(second))


def mount_points(root: Path) -> list[str]:
    """Return the mount points at or below `root`."""
    found = []
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4])
            if point == str(root) or point.startswith(f"{root}/"):
                found.append(point)
    return found


@functools.cache
def owner_names(uid: int, gid: int) -> tuple[str, str]:
    """Return the names of a user and a group, or their ids where there is no name."""
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return owner, group


# --------------------------------------------------------------------------------------------------------------
# What a tree holds, and what it shall hold


@dataclass(frozen=True)
class Manifest:
    """What the module manages in a tree: files, and the directories that it made. `id` tells trees apart."""

    id: str
    files: frozenset[str]
    directories: frozenset[str]

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        data = {
            "comment": "Written by config_tree: the managed files of this directory. Do not edit.",
            "format": FORMAT,
            "id": self.id,
            "files": sorted(self.files),
            "directories": sorted(self.directories),
        }
        return (json.dumps(data, indent=1) + "\n").encode()


NOTHING = Manifest("", frozenset(), frozenset())


def read_manifest(root: Path, warnings: list[str]) -> Manifest | None:
    """Return a tree's manifest, or None if it was never managed (or, with a warning, the manifest is unreadable)."""
    path = root / MANIFEST
    status = lstat(path)
    if status is None:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise TreeError(f"{path} is not a regular file, but the module keeps its list there; move it away.")
    try:
        data = json.loads(read_file(path))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}")  # noqa: TRY301 - all that is wrong with it ends in one warning
        return Manifest(str(data["id"]), frozenset(data["files"]), frozenset(data["directories"]))
    except (ValueError, KeyError, TypeError) as error:
        warnings.append(
            f"{path} is unreadable ({error}). The directory counts as never managed: files that are no longer wanted"
            " stay, look through it."
        )
        return None


@dataclass
class Plan:
    """A whole tree: what the module places in it, and which foreign entries of the live tree it carries along."""

    files: dict[str, Placed]
    directories: dict[str, Placed]
    carried_files: set[str]
    carried_directories: set[str]
    manifest: Manifest


def plan_tree(
    files: dict[str, Placed],
    directories: dict[str, Placed],
    snapshot: Snapshot,
    owned: Manifest,
    known_directories: Iterable[str] | None,
    path: Path,
) -> Plan:
    """Combine managed files with the foreign entries of the live tree; raise TreeError where they collide.

    `known_directories` are the managed directories to be; None: those that do not exist or that were ours before.
    """
    foreign = {
        rel
        for rel, status in snapshot.items()
        if not is_dir(status) and rel != MANIFEST and rel not in owned.files and rel not in files
    }
    kept = {rel for rel, status in snapshot.items() if is_dir(status) and rel not in owned.directories}
    kept |= {above for rel in foreign | kept for above in ancestors(rel)}
    kept -= directories.keys()
    for rel in sorted(files.keys() & kept):
        raise TreeError(f"{path / rel} is a directory that is not ours, but shall be a file; move it or rename ours.")
    for rel in sorted(directories.keys() & foreign):
        raise TreeError(f"{path / rel} is a file or link that is not ours, but shall be a directory; move it away.")
    if known_directories is None:
        made = {rel for rel in directories if rel in owned.directories or not is_dir(snapshot.get(rel))}
    else:
        made = set(known_directories) & directories.keys()
    manifest = Manifest(
        uuid.uuid4().hex,
        frozenset(files),
        # A directory of ours that foreign files keep alive is still ours, so that it goes when they go.
        frozenset((made | (kept & owned.directories)) - {"."}),
    )
    return Plan(files, directories, foreign, kept, manifest)


def plan_present(
    files: dict[str, Placed], dir_mode: int, account: Account, snapshot: Snapshot, owned: Manifest, path: Path
) -> Plan:
    """Plan the tree that holds `files` and the foreign entries of the live tree."""
    directory = Placed(dir_mode, account)
    directories = dict.fromkeys([".", *(above for rel in files for above in ancestors(rel))], directory)
    return plan_tree(files, directories, snapshot, owned, None, path)


def plan_previous(previous: Path, was: Manifest, snapshot: Snapshot, owned: Manifest, path: Path) -> Plan:
    """Plan the tree that holds the managed files of `previous` and the foreign entries of the live tree.

    What the last switch adopted was foreign in `previous` and comes back as such, by being left out of the manifest.
    """
    former = scan(previous)

    def as_it_was(rel: str, status: os.stat_result) -> Placed:
        owner, group = owner_names(status.st_uid, status.st_gid)
        account = Account(status.st_uid, status.st_gid, owner, group)
        return Placed(stat.S_IMODE(status.st_mode), account, None, previous / rel)

    files = {
        rel: as_it_was(rel, status)
        for rel, status in former.items()
        # No live tree at all: then everything comes back, there is nobody whose newer state would count.
        if not is_dir(status) and rel != MANIFEST and (rel in was.files or rel in owned.files or not snapshot)
    }
    above = {".", *(above for rel in files for above in ancestors(rel))}
    directories = {rel: as_it_was(rel, former[rel]) for rel in above}
    plan = plan_tree(files, directories, snapshot, owned, was.directories, path)
    plan.manifest = Manifest(plan.manifest.id, was.files & files.keys(), plan.manifest.directories)
    return plan


# --------------------------------------------------------------------------------------------------------------
# What differs


@dataclass
class Changes:
    """What a switch to a plan would change, by relative path, and the diffs that show it."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    changed: bool = False

    def lists(self) -> dict[str, list[str]]:
        """Return the lists as they are reported."""
        return {name: sorted(getattr(self, name)) for name in LISTS}


def show(root: Path, rel: str, status: os.stat_result) -> str:
    """Return a file's content as a diff shows it; what is no text is described in one line."""
    path = root / rel
    if stat.S_ISLNK(status.st_mode):
        return f"(symbolic link to {path.readlink()})\n"
    if not stat.S_ISREG(status.st_mode):
        return "(neither file nor link)\n"
    return show_content(read_file(path))


def show_content(content: bytes) -> str:
    """Return content as a diff shows it."""
    if not content:
        return "(empty file)\n"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    return f"(binary, {len(content)} bytes)\n" if "\0" in text else text


def show_attributes(mode: int, owner: str, group: str) -> str:
    """Return mode and owner as a diff shows them."""
    return f"mode: {mode:04o}\nowner: {owner}\ngroup: {group}\n"


def same_entry(root: Path, rel: str, status: os.stat_result, wanted: Placed) -> bool:
    """Whether a file of the live tree has the wanted type and content."""
    if wanted.content is not None:
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == len(wanted.content)
            and read_file(root / rel) == wanted.content
        )
    assert wanted.source is not None  # noqa: S101 - a placed file has a content or a source
    source = wanted.source.lstat()
    if stat.S_IFMT(source.st_mode) != stat.S_IFMT(status.st_mode):
        return False
    if stat.S_ISLNK(source.st_mode):
        return wanted.source.readlink() == (root / rel).readlink()
    if stat.S_ISREG(source.st_mode):
        return source.st_size == status.st_size and read_file(wanted.source) == read_file(root / rel)
    return True


def nothing_to_do(live: Path, files: dict[str, Placed], dir_mode: int, account: Account, owned: Manifest) -> bool:
    """Whether the live tree agrees with `files`, found out without a look at foreign files: the usual, quick run."""
    above = {".", *(above for rel in files for above in ancestors(rel))}
    if owned.files != files.keys() or not owned.directories <= above:
        return False
    directory = Placed(dir_mode, account)
    for rel in above:
        status = lstat(live / rel)
        if status is None or not is_dir(status) or not directory.agrees(status):
            return False
    for rel, wanted in files.items():
        status = lstat(live / rel)
        if status is None or not wanted.agrees(status) or not same_entry(live, rel, status, wanted):
            return False
    return True


def compare(live: Path, snapshot: Snapshot, owned: Manifest | None, plan: Plan, path: Path, with_diff: bool) -> Changes:
    """Return what differs between the live tree and a plan."""
    ours = owned or NOTHING
    changes = Changes()

    def differ(rel: str, before: str | None, after: str | None, what: str = "") -> None:
        name = f"{path / rel}{what}"
        changes.diff.append(
            {
                "before_header": f"{name} (absent)" if before is None else name,
                "after_header": f"{name} (absent)" if after is None else name,
                "before": before or "",
                "after": after or "",
            }
        )

    def differ_attributes(rel: str, status: os.stat_result, wanted: Placed) -> None:
        before = show_attributes(stat.S_IMODE(status.st_mode), *owner_names(status.st_uid, status.st_gid))
        after = show_attributes(wanted.mode, wanted.account.owner, wanted.account.group)
        differ(rel, before, after, " (mode and owner)")

    for rel, wanted in sorted(plan.directories.items()):
        status = snapshot.get(rel)
        if status is None or not is_dir(status):
            changes.created.append(f"{rel}/")
        elif not wanted.agrees(status):
            changes.repaired.append(f"{rel}/")
            differ_attributes(rel, status, wanted)
    for rel in sorted(plan.files.keys() | ours.files):
        status, wanted_file = snapshot.get(rel), plan.files.get(rel)
        if is_dir(status):
            status = None  # a directory of ours that is replaced; it is listed below
        if wanted_file is None:
            if status is not None:
                changes.removed.append(rel)
                differ(rel, show(live, rel, status), None)
            continue
        after = None
        if status is None or not same_entry(live, rel, status, wanted_file):
            if wanted_file.content is not None:
                after = show_content(wanted_file.content)
            elif wanted_file.source is not None:
                after = show(wanted_file.source.parent, wanted_file.source.name, wanted_file.source.lstat())
            (changes.created if status is None else changes.updated).append(rel)
            differ(rel, None if status is None else show(live, rel, status), after)
        if status is not None:
            if rel not in ours.files:
                changes.adopted.append(rel)
            if not wanted_file.agrees(status):
                differ_attributes(rel, status, wanted_file)
                if after is None:
                    changes.repaired.append(rel)
    for rel in sorted(ours.directories - plan.directories.keys() - plan.carried_directories):
        if is_dir(snapshot.get(rel)):
            changes.removed.append(f"{rel}/")
            differ(rel, "(directory)\n", None)
    same_lists = (ours.files, ours.directories) == (plan.manifest.files, plan.manifest.directories)
    changes.changed = owned is None or not same_lists or any(changes.lists().values())
    if changes.changed and not changes.diff:
        before, after = ("".join(f"{rel}\n" for rel in sorted(files)) for files in (ours.files, plan.manifest.files))
        differ(MANIFEST, before, after, " (list of managed files)")
    if not with_diff:
        changes.diff = []
    return changes


# --------------------------------------------------------------------------------------------------------------
# Staging and validating


def stage(plan: Plan, live: Path, snapshot: Snapshot, root: Path, durable: bool) -> dict[str, Any]:
    """Build the planned tree at `root`, which must not exist.

    Returns what was carried along: the inode of each foreign file, [mode, uid, gid] of each foreign directory (by
    its name and a slash). By that a change between staging and switch is found afterwards.
    """
    carried: dict[str, Any] = {}
    # 0700 until it is complete; the real modes come last, also because a wanted mode may forbid us to write.
    root.mkdir(mode=0o700, exist_ok=True)
    everywhere = sorted((plan.directories.keys() | plan.carried_directories) - {"."})
    for rel in everywhere:
        (root / rel).mkdir(mode=0o700)
    for rel, wanted in sorted(plan.files.items()):
        if wanted.content is not None:
            # Always a new inode: what is edited by hand in the live tree must not change the previous one.
            write_file(root / rel, wanted.content, wanted.mode, wanted.account.uid, wanted.account.gid, durable)
        elif wanted.source is not None:
            link(wanted.source, root / rel)
    write_file(root / MANIFEST, plan.manifest.to_json(), 0o600, None, None, durable)
    for rel in sorted(plan.carried_files):
        try:
            link(live / rel, root / rel)
        except FileNotFoundError:
            continue  # its owner has removed it meanwhile
        except OSError as error:
            raise TreeError(
                f"{live / rel} is not ours and must be carried along by a hard link, which failed: {error.strerror}."
                " An immutable file (lsattr) or a filesystem without hard links cannot be part of a managed directory."
            ) from error
        # Of the new name: the old one may already be another file.
        carried[rel] = (root / rel).lstat().st_ino
    for rel in [*reversed(everywhere), "."]:
        if rel in plan.directories:
            wanted = plan.directories[rel]
            if is_dir(snapshot.get(rel)):
                copy_extended_attributes(live / rel, root / rel)
            set_attributes(root / rel, wanted.mode, wanted.account.uid, wanted.account.gid)
        else:
            with suppress(FileNotFoundError):
                copy_directory(live / rel, root / rel)
            status = (root / rel).lstat()
            carried[f"{rel}/"] = [stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid]
        if durable:
            sync_directory(root / rel)
    return carried


def fingerprint(root: Path, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return what a validator must not change: names and inodes, of managed files also size and time."""
    return {
        rel: (status.st_ino, status.st_size, status.st_mtime_ns) if rel in plan.files else (status.st_ino,)
        for rel, status in scan(root).items()
    }


def find_program(name: str) -> str | None:
    """Return the program's path, or None if there is no such program."""
    # As Ansible does: a non-interactive PATH often lacks the directories of system tools.
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")


def run_validators(
    validators: list[Validator], root: Path, plan: Plan, path: Path, check_mode: bool, warnings: list[str]
) -> bool:
    """Run the validators on the staged tree and return whether all of them ran; raise TreeError if one refuses it."""
    complete = bool(validators)
    before = fingerprint(root, plan)
    for validator in validators:
        argv = [word.replace("%s", str(root)) for word in validator.argv]
        shown = shlex.join(word.replace("%s", str(path)) for word in validator.argv)
        program = find_program(argv[0])
        if program is None:
            if not check_mode:
                raise TreeError(f"validate: there is no program {argv[0]} here, so nothing was changed in {path}.")
            warnings.append(f"The new tree was not validated: there is no program {argv[0]} here (yet).")
            complete = False
            continue
        try:
            done = subprocess.run(
                [program, *argv[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=VALIDATOR_SECONDS,
                check=False,
                cwd="/",
            )
            code: int | None = done.returncode
            out, err = (
                stream.decode(errors="replace").replace(str(root), str(path)) for stream in (done.stdout, done.stderr)
            )
            problem = f"exited with {code}" if code else ""
            if not code and validator.forbid_output and (out.strip() or err.strip()):
                problem = "exited with 0, but any output counts as a failure"
        except subprocess.TimeoutExpired:
            code, out, err = None, "", ""
            problem = f"did not finish within {VALIDATOR_SECONDS:.0f} s"
        except OSError as error:
            code, out, err = None, "", ""
            problem = f"could not be run: {error}"
        if problem:
            said = "\n".join(text.strip() for text in (out, err) if text.strip()) or "(it said nothing)"
            raise TreeError(
                f"Nothing was changed in {path}, because a validator refused the new tree.\n{shown}: {problem}\n{said}",
                cmd=shown,
                rc=code,
                stdout=out,
                stderr=err,
            )
        after = fingerprint(root, plan)
        if after != before:
            odd = sorted(rel for rel in before.keys() | after.keys() if before.get(rel) != after.get(rel))
            raise TreeError(
                f"Nothing was changed in {path}, because the validator {shown} wrote to the staged tree:"
                f" {', '.join(odd)}. A validator may only read."
            )
    return complete


# --------------------------------------------------------------------------------------------------------------
# The switch, and recovery from one that was interrupted


@dataclass
class Journal:
    """What must be known to finish or undo a switch; on disk from before the switch until all is tidy."""

    id: str  # of the new tree: if the live tree has it, the switch has happened
    operation: str  # present or previous
    method: str  # exchange, first or renames
    keep_previous: bool
    carried: dict[str, Any]
    owned_files: list[str]
    owned_directories: list[str]
    placed_files: list[str]
    placed_directories: list[str]
    summary: dict[str, Any]  # what the interrupted run would have reported
    until_proven: bool = False


class Switcher:
    """The live directory `live` and what the module keeps beside it.

    All of it is in the same parent directory, hence on the same filesystem:
    `staged` is the new tree before the switch and the old one right after it; in `store` are the previous
    and the rejected tree, the journal, and things on their way.
    """

    def __init__(self, live: Path, warnings: list[str]) -> None:
        self.live = live
        self.parent = live.parent
        self.warnings = warnings
        self.store = live.with_name(f".{live.name}.config_tree")
        self.staged = live.with_name(f".{live.name}.config_tree.new")
        self.checked = live.with_name(f".{live.name}.config_tree.check")
        self.journal = self.store / "journal"
        self.previous = self.store / "previous"
        self.rejected = self.store / "rejected"
        self.parked = self.store / "parked"  # the old tree between two renames
        self.stray = self.store / "stray"  # what somebody put in the live tree's place meanwhile
        self.aside = self.store / "aside"  # single foreign files while they are put right
        self.trash = self.store / "trash"

    # -- helpers

    def _read_journal(self) -> Journal | None:
        if lstat(self.journal) is None:
            return None
        try:
            return Journal(**json.loads(read_file(self.journal)))
        except (ValueError, TypeError) as error:
            raise TreeError(
                f"{self.journal} of an interrupted run is unreadable ({error}). Look at {self.live}, {self.staged} and"
                f" {self.store}, put the tree that you want at {self.live}, then remove the other two."
            ) from error

    def _write_journal(self, journal: Journal) -> None:
        draft = self.store / "journal.draft"
        with suppress(FileNotFoundError):
            draft.unlink()
        write_file(draft, json.dumps(vars(journal)).encode(), 0o600, None, None, durable=True)
        draft.rename(self.journal)
        sync_directory(self.store)

    def _end_journal(self) -> None:
        with suppress(FileNotFoundError):
            self.journal.unlink()
            sync_directory(self.store)

    def _discard(self, tree: Path) -> None:
        """Take a tree out of the way in one step; it is deleted when the switch is complete."""
        if lstat(tree) is not None:
            self.trash.mkdir(mode=0o700, exist_ok=True)
            tree.rename(self.trash / uuid.uuid4().hex)

    def _delete(self, tree: Path) -> None:
        """Delete a tree that nobody needs; failing at that is only worth a warning."""
        if lstat(tree) is None:
            return
        mounted = mount_points(tree)
        if mounted:
            self.warnings.append(f"{tree} is not needed any more, but {mounted[0]} is mounted in it; unmount it.")
            return
        try:
            shutil.rmtree(tree)
        except OSError as error:
            self.warnings.append(f"{tree} is not needed any more, but could not be deleted: {error}.")

    def _tidy(self) -> None:
        """Delete leftovers and, if it is empty then, the store. Only without a journal."""
        for leftover in (self.checked, self.staged, self.trash, self.aside):
            self._delete(leftover)
        with suppress(FileNotFoundError):
            (self.store / "journal.draft").unlink()
        self._remove_store()

    def _remove_store(self) -> None:
        """Remove the store if nothing is in it, as after a first install."""
        if lstat(self.store) and not any(self.store.iterdir()):
            self.store.rmdir()

    @staticmethod
    def _id(tree: Path) -> str | None:
        try:
            manifest = read_manifest(tree, [])
        except TreeError:
            return None
        return manifest.id if manifest else None

    def clear_check(self) -> None:
        """Delete what a killed check run has left; nothing of it is anybody else's."""
        self._delete(self.checked)

    # -- what is where

    def check_beside(self) -> None:
        """Raise TreeError if something beside the live tree has a name of ours but cannot be ours."""
        for path in (self.store, self.staged, self.checked):
            status = lstat(path)
            if status is not None and (not is_dir(status) or status.st_uid != os.geteuid()):
                raise TreeError(f"{path} was not made by this module, which needs the name; move it away.")

    def locate(self) -> tuple[Path, Path | None, Path | None, dict[str, Any] | None]:
        """Return where live, previous and rejected tree are, and the summary of an unreported switch.

        For check mode, which must foresee what `recover` would do without doing it.
        """
        journal = self._read_journal()
        previous = self.previous if lstat(self.previous) else None
        rejected = self.rejected if lstat(self.rejected) else None
        if journal and self._id(self.live) == journal.id:
            old = next((tree for tree in (self.staged, self.parked) if lstat(tree)), None)
            if journal.operation == "previous":
                return self.live, None, None if journal.until_proven else old or rejected, journal.summary
            if journal.until_proven:
                return self.live, previous or old, None, journal.summary
            return self.live, (old or previous) if journal.keep_previous else None, None, journal.summary
        if journal and lstat(self.live) is None and lstat(self.parked):
            return self.parked, previous, rejected, None
        return self.live, previous, rejected, None

    # -- the switch

    def switch(self, journal: Journal) -> str:
        """Make the staged tree the live one and return how; what is live is complete at any time."""
        mode = 0o700 if journal.until_proven else 0o711
        self.store.mkdir(mode=mode, exist_ok=True)
        # Whatever the umask is: the previous tree shall be as reachable as the live one, unless it is of secrets.
        self.store.chmod(mode)
        sync_directory(self.parent)
        replaces = lstat(self.live) is not None
        if not replaces:
            journal.method = "first"
        self._write_journal(journal)
        try:
            if not replaces:
                self.staged.rename(self.live)
            else:
                try:
                    exchange(self.staged, self.live)
                except OSError as error:
                    if error.errno not in NO_EXCHANGE:
                        raise
                    self._switch_by_renames(journal, error)
        except (OSError, TreeError):
            self.recover()
            raise
        try:
            sync_directory(self.parent)
            self._finish(journal)
        except OSError as error:
            # The journal stays: the next run finishes this and reports the change.
            raise TreeError(
                f"{self.live} was switched, but not all was tidied: {error}. Mend that, run again."
            ) from error
        return journal.method

    def _switch_by_renames(self, journal: Journal, reason: OSError) -> None:
        journal.method = "renames"
        self._write_journal(journal)
        try:
            self.live.rename(self.parked)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise TreeError(
                    f"Nothing was changed: the filesystem cannot rename {self.live}, which comes from a read-only layer"
                    f" (of a container image). Copy it once: cp -a {self.live} {self.live}.copy &&"
                    f" rm -r {self.live} && mv {self.live}.copy {self.live}."
                ) from error
            raise
        # Nobody reaches either tree now, so foreign files are put right without a race.
        self._keep(self.parked, self._reconcile(self.parked, self.staged, journal))
        self.staged.rename(self.live)
        self.warnings.append(
            f"{self.live} was switched by two renames, because the filesystem cannot exchange directories"
            f" ({reason.strerror}); it was missing for a moment."
        )

    def _finish(self, journal: Journal) -> None:
        """Do what follows a switch: foreign files, previous tree, cleaning up. Can be repeated from any point."""
        if journal.method == "renames" and lstat(self.parked) and not lstat(self.staged):
            self.parked.rename(self.staged)
        if lstat(self.staged):
            if journal.method == "exchange":
                self._keep(self.staged, self._reconcile(self.staged, self.live, journal))
            kept = self.rejected if journal.operation == "previous" else self.previous
            if journal.until_proven and (kept == self.rejected or lstat(self.previous)):
                self._discard(self.staged)
            else:
                self._discard(kept)
                self.staged.rename(kept)
        if journal.operation == "previous":
            self._discard(self.previous)  # it is live now; a second rollback must not find it
        else:
            self._discard(self.rejected)
            if not journal.keep_previous:
                self._discard(self.previous)
        for leftover in (self.checked, self.trash, self.aside):
            self._delete(leftover)
        sync_directory(self.store)
        sync_directory(self.parent)
        # Last of all: as long as it is there, a run that is killed before it could report is reported by the next one.
        self._end_journal()
        self._remove_store()

    def forget(self) -> None:
        """Delete what is kept of earlier trees. Only without a journal."""
        for tree in (self.previous, self.rejected):
            self._discard(tree)
        sync_directory(self.store)
        self._tidy()

    # -- foreign files that changed between staging and switch

    def _reconcile(self, old: Path, new: Path, journal: Journal) -> list[str]:
        """Repeat in `new` what others did to foreign files in `old` between staging and switch.

        Others may work in `new` at the same time; what they did there is later and wins. Can be repeated.
        Returns the files for which there is no place in `new`, because a managed one is in the way.
        """
        carried = journal.carried
        files = sorted(rel for rel in carried if not rel.endswith("/"))
        directories = sorted(rel.removesuffix("/") for rel in carried if rel.endswith("/"))
        touched: set[str] = set()
        self.aside.mkdir(mode=0o700, exist_ok=True)
        for leftover in self.aside.iterdir():
            rel = files[int(leftover.name)]
            self._settle(leftover, old, new, rel, carried[rel])
        now = scan(old)
        for number, rel in enumerate(files):
            status, here = now.get(rel), lstat(new / rel)
            if (status and status.st_ino == carried[rel]) or here is None or here.st_ino != carried[rel]:
                continue
            aside = self.aside / str(number)
            with suppress(FileNotFoundError), pinned(new, rel) as target:
                if status is None or is_dir(status):
                    target.rename(aside)
                else:
                    link(old / rel, aside)
                    self._swap(aside, target)
            self._settle(aside, old, new, rel, carried[rel])
            touched.add(posixpath.dirname(rel))
        for rel in reversed(directories):
            if not is_dir(now.get(rel)):
                with suppress(OSError), pinned(new, rel) as target:  # not empty: somebody uses it again
                    target.rmdir()
                    touched.add(posixpath.dirname(rel))
        homeless = []
        for rel, status in sorted(now.items()):
            directory = is_dir(status)
            if (
                rel in (".", MANIFEST)
                or (f"{rel}/" if directory else rel) in carried
                or rel in (journal.owned_directories if directory else journal.owned_files)
                or rel in (journal.placed_directories if directory else journal.placed_files)
            ):
                continue
            try:
                for above in ancestors(rel):
                    self._make_directory(old, new, above)
                if directory:
                    self._make_directory(old, new, rel)
                else:
                    with pinned(new, rel) as target:
                        link(old / rel, target)
                touched.add(posixpath.dirname(rel))
            except FileExistsError:  # a newer one of that name, unless one of the two is a directory
                if is_dir(lstat(new / rel)) != directory:
                    homeless.append(rel)
            except (FileNotFoundError, NotADirectoryError):
                if lstat(old / rel):
                    homeless.append(rel)
        for rel in touched:
            with suppress(FileNotFoundError, NotADirectoryError), pinned(new, rel or ".") as target:
                sync_directory(target)
        return homeless

    @staticmethod
    def _make_directory(old: Path, new: Path, rel: str) -> None:
        """Make a foreign directory of the old tree in the new one, if it is not there."""
        if is_dir(lstat(new / rel)):
            return
        with pinned(new, rel) as target:
            target.mkdir(mode=0o700)
        with pinned(new, f"{rel}/.") as target:
            copy_directory(old / rel, target)

    @staticmethod
    def _swap(aside: Path, target: Path) -> None:
        """Put `aside` at `target` and what was there at `aside`."""
        try:
            exchange(aside, target)
        except OSError as error:
            if error.errno not in NO_EXCHANGE:
                raise
            aside.replace(target)  # only ever reached between two renames, where nobody else is at `target`

    def _settle(self, aside: Path, old: Path, new: Path, rel: str, staged_inode: int) -> None:
        """Drop a file that was set aside, unless it is one that others put at `rel` in the very moment of the change.

        Such a file is the newest of all and goes back; without this step it would be lost.
        """
        status = lstat(aside)
        if status is None:
            return
        in_old = lstat(old / rel)
        known = {staged_inode, in_old.st_ino if in_old else staged_inode}
        if status.st_ino not in known:
            try:
                with pinned(new, rel) as target:
                    try:
                        link(aside, target)
                    except FileExistsError:
                        here = lstat(target)
                        if here is None or here.st_ino in known:
                            with suppress(FileNotFoundError):
                                self._swap(aside, target)
                            self._settle(aside, old, new, rel, staged_inode)
                            return
            except (FileNotFoundError, NotADirectoryError):  # its directory went in the same moment
                aside.rename(self.store / f"kept-{uuid.uuid4().hex}")
                return
        aside.unlink()

    def _keep(self, tree: Path, homeless: list[str]) -> None:
        """Give foreign files that found no place in the live tree a place that the module never touches again."""
        if not homeless:
            return
        kept = self.store / f"kept-{uuid.uuid4().hex}"
        for rel in homeless:
            if is_dir(lstat(tree / rel)):
                (kept / rel).mkdir(mode=0o700, parents=True, exist_ok=True)
            else:
                (kept / rel).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                link(tree / rel, kept / rel)
        self.warnings.append(
            f"Others made {', '.join(homeless)} where {self.live} now has managed files or directories."
            f" Theirs is kept in {kept}; move it to where it belongs."
        )

    # -- recovery

    def recover(self) -> dict[str, Any] | None:
        """Finish or undo the switch of an interrupted run.

        Returns the summary of a switch that had happened, but that nobody has heard of.
        """
        leftovers = (self.journal, self.staged, self.checked, self.trash, self.aside)
        stored = not lstat(self.store) or lstat(self.previous) or lstat(self.rejected)
        if stored and not any(lstat(path) for path in leftovers):
            return None
        journal = self._read_journal()
        if journal is None:
            self._tidy()
            return None
        if self._id(self.live) == journal.id:
            self._finish(journal)
            return journal.summary
        if lstat(self.parked):
            try:
                self.parked.rename(self.live)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                self.live.rename(self.stray)
                self.parked.rename(self.live)
        if lstat(self.stray):
            # Somebody made a directory at the live path while it was missing between two renames.
            if self.stray.is_dir():
                nothing = Journal(journal.id, "present", "renames", True, {}, [], [], [], [], {})
                self._keep(self.stray, self._reconcile(self.stray, self.live, nothing))
            self.stray.rename(self.store / f"kept-{uuid.uuid4().hex}")
            self.warnings.append(
                f"An interrupted switch had left {self.live} missing and others made it. The old tree is back, with"
                f" their files where it had none of that name; all of theirs is kept in {self.store}."
            )
        if lstat(self.staged) and self._id(self.staged) != journal.id:
            # The switch had happened, then somebody replaced the live tree: this is the old one and not ours to delete.
            kept = self.store / f"kept-{uuid.uuid4().hex}"
            self.staged.rename(kept)
            self.warnings.append(
                f"{self.live} was replaced by others after an interrupted switch. The tree from before it is in {kept}."
            )
        sync_directory(self.store)
        sync_directory(self.parent)
        # First the journal: a staged tree of which half is deleted must not be taken for an old one.
        self._end_journal()
        self._tidy()
        return None


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock on a parent directory, for which other runs wait; raise TreeError if it cannot be had in time."""
    # The directory itself is locked, so that check mode leaves no lock file behind. The kernel frees it if we die.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise TreeError(
                        f"Another run of config_tree has held its lock on {directory} for {LOCK_WAIT_SECONDS:.0f} s;"
                        " find out what it is waiting for (a validator?)."
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------------------------------
# The module


@dataclass(frozen=True)
class Request:
    """The parameters, parsed."""

    path: Path
    state: str
    files: dict[str, Placed]
    dir_mode: int
    account: Account
    validators: list[Validator]
    keep_previous: bool
    until_proven: bool
    check_mode: bool
    with_diff: bool


def parse_request(parameters: dict[str, Any], check_mode: bool, with_diff: bool) -> Request:
    """Return the parsed parameters; raise TreeError for those that make no sense."""
    path = find_directory(parameters["path"])
    until_proven = parameters["until_proven"]
    if parameters["state"] != "present":
        account = Account(0, 0, "root", "root")
        return Request(path, parameters["state"], {}, 0, account, [], True, until_proven, check_mode, with_diff)
    account = find_account(parameters["owner"], parameters["group"], check_mode)
    file_mode = parse_mode(parameters["file_mode"], "file_mode")
    return Request(
        path=path,
        state="present",
        files=parse_files(parameters["files"], file_mode, account),
        dir_mode=parse_mode(parameters["dir_mode"], "dir_mode"),
        account=account,
        validators=parse_validators(parameters["validate"]),
        keep_previous=parameters["keep_previous"] or until_proven,
        until_proven=until_proven,
        check_mode=check_mode,
        with_diff=with_diff,
    )


def run(request: Request, warnings: list[str]) -> dict[str, Any]:
    """Bring the directory to the requested state (or foresee it, in check mode) and return the result."""
    parent = request.path.parent
    made = [] if request.check_mode else make_parents(parent)
    try:
        if not parent.is_dir():  # check mode, and an earlier task would have made it
            return converge(request, Switcher(request.path, warnings), warnings)
        with locked(parent):
            return converge(request, Switcher(request.path, warnings), warnings)
    except Exception:
        for directory in reversed(made):
            with suppress(OSError):  # not empty: somebody else has use for it
                directory.rmdir()
        raise


def make_parents(directory: Path) -> list[Path]:
    """Make missing directories and return them, outermost first."""
    missing = [above for above in (directory, *directory.parents) if not above.is_dir()]
    for above in reversed(missing):
        above.mkdir(mode=0o755, exist_ok=True)
        above.chmod(0o755)
        sync_directory(above.parent)
    return missing[::-1]


def converge(request: Request, switcher: Switcher, warnings: list[str]) -> dict[str, Any]:
    """Compare, stage, validate and switch; the caller holds the lock."""
    switcher.check_beside()
    unreported = None if request.check_mode else switcher.recover()
    live, previous, rejected, foreseen = switcher.locate()
    unreported = unreported or foreseen
    owned = read_manifest(live, warnings)
    result: dict[str, Any] = {
        "changed": unreported is not None,
        "diff": [],
        **{name: (unreported or {}).get(name, []) for name in LISTS},
        "validated": False,
        "previous": str(switcher.previous) if previous else None,
        "unproven": request.until_proven and request.state == "present" and previous is not None,
        "rejected": str(switcher.rejected) if rejected else None,
        "switch": "none",
        "recovered": unreported is not None,
        "msg": "Nothing to change, so nothing was validated.",
    }
    if unreported is not None:
        result["msg"] = "The switch of an earlier, interrupted run is complete now; reload the service."
    if request.state == "proven":
        return forget(request, switcher, result)
    if request.state == "present":
        if owned and nothing_to_do(live, request.files, request.dir_mode, request.account, owned):
            return result
        snapshot = scan(live)
        plan = plan_present(request.files, request.dir_mode, request.account, snapshot, owned or NOTHING, request.path)
    else:
        if previous is None:
            if rejected is None and not (request.until_proven and unreported):
                raise TreeError(f"There is no previous tree of {request.path} that could be put back.")
            if unreported is None:
                result["msg"] = f"The previous tree is back already; the rejected one is {switcher.rejected}."
            return result
        snapshot = scan(live)
        was = read_manifest(previous, warnings) or NOTHING
        plan = plan_previous(previous, was, snapshot, owned or NOTHING, request.path)

    changes = compare(live, snapshot, owned, plan, request.path, request.with_diff)
    if request.state == "present" and not changes.changed:
        return result
    mounted = mount_points(request.path)
    if mounted:
        raise TreeError(f"{mounted[0]} is a mount point; a tree with one cannot be switched in one step. Unmount it.")
    result.update(changes.lists(), changed=True, diff=changes.diff)
    if unreported:
        for name in LISTS:
            result[name] = sorted({*result[name], *unreported.get(name, [])})
    stage_and_switch(request, switcher, live, snapshot, owned or NOTHING, plan, result, warnings)
    if request.state == "previous":
        result.update(msg=f"The previous tree {'would be' if request.check_mode else 'is'} back.", previous=None)
        result["rejected"] = str(switcher.rejected) if snapshot and not request.until_proven else None
    else:
        result.update(msg=f"The new tree {'would be' if request.check_mode else 'is'} live.", rejected=None)
        kept = request.keep_previous and (snapshot or previous)
        result["previous"] = str(switcher.previous) if kept else None
        if result["adopted"] and not request.keep_previous:
            warnings.append(f"Taken over, no copy kept (keep_previous: false): {', '.join(result['adopted'])}.")
    return result


def forget(request: Request, switcher: Switcher, result: dict[str, Any]) -> dict[str, Any]:
    """Delete what is kept of earlier trees and return the result."""
    if result["previous"] or result["rejected"]:
        if not request.check_mode:
            switcher.forget()
        result.update(
            changed=True,
            previous=None,
            rejected=None,
            msg=f"Nothing {'would be' if request.check_mode else 'is'} kept of earlier trees.",
        )
    elif not result["recovered"]:
        result["msg"] = "Nothing is kept of earlier trees."
    return result


def stage_and_switch(
    request: Request,
    switcher: Switcher,
    live: Path,
    snapshot: Snapshot,
    owned: Manifest,
    plan: Plan,
    result: dict[str, Any],
    warnings: list[str],
) -> None:
    """Stage and validate a plan and, outside check mode, make it live; leave nothing behind on failure."""
    if not request.check_mode:
        root = switcher.staged
    elif switcher.parent.is_dir():
        root = switcher.checked
        switcher.clear_check()
    else:
        root = Path(tempfile.mkdtemp(prefix="config_tree-")).resolve()
    try:
        carried = stage(plan, live, snapshot, root, durable=not request.check_mode)
        result["validated"] = run_validators(request.validators, root, plan, request.path, request.check_mode, warnings)
        if not request.check_mode:
            sync_directory(switcher.parent)
            journal = Journal(
                id=plan.manifest.id,
                operation=request.state,
                method="exchange",
                keep_previous=request.keep_previous,
                carried=carried,
                owned_files=sorted(owned.files),
                owned_directories=sorted(owned.directories),
                placed_files=sorted(plan.files),
                placed_directories=sorted(plan.directories),
                summary={name: result[name] for name in LISTS},
                until_proven=request.until_proven,
            )
            result["switch"] = switcher.switch(journal)
    finally:
        # With a journal the tree at `root` may be the old one, and the next run needs it.
        if not lstat(switcher.journal) or root != switcher.staged:
            shutil.rmtree(root, ignore_errors=True)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "files": {"type": "dict"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "file_mode": {"type": "raw", "default": "0640"},
    "dir_mode": {"type": "raw", "default": "0750"},
    "validate": {"type": "list", "elements": "raw", "default": []},
    "state": {"type": "str", "choices": ["present", "previous", "proven"], "default": "present"},
    "keep_previous": {"type": "bool", "default": True},
    "until_proven": {"type": "bool", "default": False},
}


class ConfigTreeModule(AnsibleModule):  # type: ignore[misc]  # ansible's types are not looked at
    """AnsibleModule that does not write the content of every file to the system log on each run."""

    def _log_invocation(self) -> None:
        self.log(f"Invoked with path={self.params['path']} state={self.params['state']}")


def main() -> None:
    """Run the module."""
    module = ConfigTreeModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
    )
    warnings: list[str] = []

    def fail(message: str, **details: Any) -> NoReturn:
        for warning in warnings:
            module.warn(warning)
        module.fail_json(msg=message, **details)
        raise AssertionError("fail_json does not return")

    try:
        request = parse_request(module.params, module.check_mode, module._diff)
        result = run(request, warnings)
    except TreeError as error:
        fail(str(error), **error.details)
    except OSError as error:
        fail(f"{module.params['path']}: {error}. What is live is a complete tree; mend the cause and run again.")
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
