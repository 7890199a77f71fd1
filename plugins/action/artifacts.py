"""Action `artifacts`: find the archives that an estate needs, bring them, or fill a folder with them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifacts
author: AllIN operations
short_description: Find the archives that an estate needs, bring them, or fill a folder with them
description:
  - Works on the controller alone. What is wanted is told one by one (O(files)), or read from the settings of the roles
    that are given (O(roles)), for all of their hosts at once.
  - An artifact is looked for in the folder, then among earlier downloads, then at the mirror or, without one, at
    upstream's address. Its SHA-256 is compared with the pin wherever its content is at hand.
  - A role tells what it needs by its settings C(<role>_install_method), C(<role>_version), C(<role>_archive_url) with
    C({arch}) in place of the architecture, and by its internal C(__<role>_archive_sha256), pins by architecture.
    C(__<role>_further_artifacts) may name other files, as O(files) does.
  - The architecture of a host is that of its facts where they are known, else its C(allin_architecture), else C(amd64).
options:
  state:
    description:
      - V(found) looks where each is; an address is asked, nothing is downloaded. Never fails for what is missing.
      - V(fetched) downloads what is not at hand, and fails for what cannot be had.
      - V(collected) does the same into the folder O(into), and writes C(SHA256SUMS) and C(INDEX.md) there.
    type: str
    choices: [found, fetched, collected]
    default: found
  roles:
    description: Role -> hosts that it is for.
    type: dict
    default: {}
  architectures:
    description: Architectures to take instead of those that the hosts have.
    type: list
    elements: str
    default: []
  files:
    description:
      - Further artifacts, each with C(url), C(sha256), C(file) where the address does not end in it, and for messages
        C(role), C(version), C(architecture), C(pin), the setting that has the SHA-256, C(sums), where upstream
        publishes it, and C(checksums), the role's pins by version and architecture. C(other_names) are patterns of
        further names, with C({arch}), that a folder may have it by.
    type: list
    elements: dict
    default: []
  folder:
    description: Folder of O(files), looked in first.
    type: str
    default: ""
  mirror:
    description: Address that serves O(files) by their names, instead of their own.
    type: str
    default: ""
  downloads:
    description: Where downloads of O(files) are kept.
    type: str
    default: ""
  into:
    description: Folder to fill.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Find every archive
  artifacts:
    roles: {prometheus: [monitor1], node_exporter: [monitor1, app1]}
"""

RETURN = r"""
artifacts:
  description:
    - What is wanted, each with C(role), C(version), C(architecture), C(file), C(sha256), C(pin), C(has_pin), C(sums),
      where upstream publishes the SHA-256, C(pinned), versions that have a pin, C(hosts), C(optional), C(found),
      C(path) where it is on the controller, and C(looked), a list of C(place) and C(said).
  type: list
  elements: dict
  returned: always
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DEFAULT_ARCHITECTURE = "amd64"
DEFAULT_DOWNLOADS = "~/.cache/allin-artifacts/downloads"
SUMS = "SHA256SUMS"
INDEX = "INDEX.md"
ASK_SECONDS = 15
SILENCE_SECONDS = 60
"""How long a download may bring nothing."""
ATTEMPTS = 4
CHUNK = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


class MissingError(Exception):
    """The artifact cannot be had from a place; the text is what to print of it."""


class FolderError(Exception):
    """A folder of the controller cannot be written to; the text says which and why. Nobody else is to blame."""


@dataclass
class Wanted:
    """One artifact, who needs it, and where it may be.

    Attributes:
        file: its name, the same in a folder and on a mirror.
        other_names: further names, as patterns, that the folder may have it by.
        url: upstream's address.
        sha256: the pin; empty where there is none.
        hosts: who needs it; empty for a file that belongs to no host.
        optional: whether those hosts may go without.
        pin: the setting that has its SHA-256.
        sums: where upstream publishes it; empty where that is not known.
        pinned: versions that the role has a pin for, on this architecture.
        looked: place -> what was there, in the order in which they were looked at.
    """

    file: str
    url: str
    sha256: str = ""
    role: str = ""
    version: str = ""
    architecture: str = ""
    folder: str = ""
    mirror: str = ""
    downloads: str = DEFAULT_DOWNLOADS
    other_names: list[str] = field(default_factory=list)
    pin: str = ""
    sums: str = ""
    pinned: list[str] = field(default_factory=list)
    optional: bool = False
    hosts: list[str] = field(default_factory=list)
    found: bool = False
    path: str = ""
    refused: bool = False
    looked: list[tuple[str, str]] = field(default_factory=list)

    def key(self) -> tuple[str, ...]:
        """Return what makes two of them the same one."""
        return (
            self.role,
            self.file,
            self.sha256,
            self.url,
            self.folder,
            self.mirror,
            self.downloads,
            str(self.optional),
        )

    @property
    def source(self) -> str:
        """The address that is asked."""
        return f"{self.mirror.rstrip('/')}/{self.file}" if self.mirror else self.url

    def places(self) -> Iterator[tuple[str, Path]]:
        """Yield the files on the controller that may be it, with the names by which people know their folders."""
        if self.folder:
            folder = Path(self.folder).expanduser()
            yield "folder (artifacts_dir)", self.by_other_name(folder) or folder / self.file
        yield "earlier downloads", Path(self.downloads).expanduser() / self.file

    def by_other_name(self, folder: Path) -> Path | None:
        """Return what a folder has only by another name: the file that is as pinned, else one that is not."""
        if (folder / self.file).is_file():
            return None
        others = [path for name in self.other_names for path in sorted(folder.glob(name)) if path.is_file()]
        return next((path for path in others if sha256_of(path) == self.sha256), others[-1] if others else None)

    @property
    def has_pin(self) -> bool:
        """Whether its SHA-256 is known."""
        return bool(SHA256.fullmatch(self.sha256))

    def look_here(self) -> bool:
        """Look for it on the controller; say whether it is there, and as pinned."""
        if not self.has_pin:
            self.refused = True
            self.looked.append(
                (
                    f"pin ({self.pin})",
                    f"no SHA-256 is known for {self.version or self.file}"
                    + (f" on {self.architecture}" if self.architecture else ""),
                )
            )
            return False
        if not self.folder:
            self.looked.append(("folder (artifacts_dir)", "none is named"))
        for name, path in self.places():
            place = f"{name} {path.parent}"
            if not path.is_file():
                self.looked.append((place, "no such file" if path.parent.is_dir() else "no such folder"))
                continue
            digest = sha256_of(path)
            if digest == self.sha256:
                self.looked.append((place, "found"))
                self.found, self.path = True, str(path)
                return True
            # Not passed over: somebody has put another file there, and should know.
            self.refused = name.startswith("folder")
            self.looked.append((f"{name} {path}", f"has the SHA-256 {digest}, pinned is {self.sha256} ({self.pin})"))
            if self.refused:
                return False
        return False

    def in_folder(self, folder: Path) -> bool:
        """Say whether a folder has it by another name, and as pinned."""
        other = self.by_other_name(folder)
        if other is None or sha256_of(other) != self.sha256:
            return False
        self.looked.append((f"folder to fill {folder}", f"found as {other.name}"))
        self.found, self.path = True, str(other)
        return True

    def ask(self) -> None:
        """Ask the mirror or upstream whether it has it."""
        place = ("mirror " if self.mirror else "upstream ") + shown(self.source)
        try:
            said = head(self.source)
        except MissingError as error:
            self.looked.append((place, str(error)))
        else:
            self.found = True
            self.looked.append((place, said))

    def public(self) -> dict[str, Any]:
        """Return it for a result."""
        return {
            "role": self.role,
            "version": self.version,
            "architecture": self.architecture,
            "file": self.file,
            "sha256": self.sha256,
            "pin": self.pin,
            "has_pin": self.has_pin,
            "sums": shown(self.sums),
            "pinned": self.pinned,
            "hosts": self.hosts,
            "optional": self.optional,
            "found": self.found,
            "path": self.path,
            "looked": [{"place": place, "said": said} for place, said in self.looked],
        }


# --- Files and addresses ----------------------------------------------------------------------------------------------


@cache
def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shown(url: str) -> str:
    """Return an address without the password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def reason(error: Exception) -> str:
    """Return what a person should read of a failed request."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    inner = getattr(error, "reason", error)
    text = " ".join(str(inner).split())
    return f"no answer: {re.sub(r'^.*Errno [-0-9]+[]] *', '', text) or type(error).__name__}"


def opened(url: str, method: str, timeout: float, headers: dict[str, str] | None = None) -> Any:
    """Send a request; the answer's headers are there. Raises OSError, HTTPException, ValueError."""
    return open_url(url, method=method, timeout=timeout, headers=headers, follow_redirects="all")


def head(url: str) -> str:
    """Return what an address says of a file that it has.

    Raises MissingError with what came back instead.
    """
    error: Exception
    for method in ("HEAD", "GET"):
        try:
            with opened(url, method, ASK_SECONDS) as answer:
                kind = answer.headers.get("Content-Type", "")
                length = answer.headers.get("Content-Length", "")
        except urllib.error.HTTPError as refusal:
            refusal.close()
            error = refusal
            if refusal.code in (403, 405, 501):  # some serve files only to a GET
                continue
            break
        except (OSError, HTTPException, ValueError) as trouble:
            error = trouble
            break
        if kind.startswith("text/html"):
            raise MissingError("a web page instead of the file")
        return f"has it ({size_text(int(length))})" if length.isdigit() else "has it"
    raise MissingError(reason(error)) from error


def size_text(size: int) -> str:
    """Return a number of bytes as people write it."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def pause(seconds: float) -> None:
    """Wait before another attempt."""
    time.sleep(seconds)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Take what fails in here for the folder's fault. Raises FolderError."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"{folder}: {error.strerror or error}") from error


def receive(url: str, stream: BinaryIO) -> None:
    """Append to a file what it still lacks of an address's content.

    Raises OSError, HTTPException, ValueError where the rest did not come, FolderError where it cannot be written.
    """
    have = stream.seek(0, os.SEEK_END)
    with opened(url, "GET", SILENCE_SECONDS, {"Range": f"bytes={have}-"} if have else None) as answer:
        if have and not (
            getattr(answer, "status", None) == 206
            and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        ):
            # It sends the whole again.
            with written(Path(stream.name).parent):
                stream.truncate(0)
        expected = answer.headers.get("Content-Length", "")
        received = 0
        while chunk := answer.read(CHUNK):
            with written(Path(stream.name).parent):
                stream.write(chunk)
                stream.flush()
            received += len(chunk)
    if expected.isdigit() and received < int(expected):
        raise ConnectionError(f"the connection ended after {received} of {expected} bytes")


def download(url: str, target: Path, sha256: str) -> None:
    """Bring a file, whole and as pinned, or not at all; what an interrupted download has left is gone on with.

    Raises MissingError with what came back, FolderError where the file cannot be written.
    """
    # What a request may raise is told apart where it is made.
    with written(target.parent):
        bring_whole(url, target, sha256)


def bring_whole(url: str, target: Path, sha256: str) -> None:
    """Do what `download` says. Raises MissingError, FolderError, and OSError where the file cannot be written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("ab") as stream:
        # Another host's turn, or another run, may be at the same file.
        fcntl.flock(stream, fcntl.LOCK_EX)
        if target.is_file() and file_digest(target) == sha256:
            if partial.exists() and not partial.stat().st_size:
                partial.unlink()
            return
        resumed = stream.tell() > 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                receive(url, stream)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and resumed:  # more than there is: not the same file
                    stream.truncate(0)
                    continue
                if attempt == ATTEMPTS or (error.code < 500 and error.code not in (408, 429)):
                    drop_empty(partial)
                    raise MissingError(reason(error)) from error
            except (OSError, HTTPException, ValueError) as error:
                if attempt == ATTEMPTS or isinstance(error, ValueError):
                    drop_empty(partial)
                    raise MissingError(reason(error)) from error
            else:
                digest = file_digest(partial)
                if digest == sha256:
                    break
                stream.truncate(0)
                if not resumed:
                    partial.unlink()
                    raise MissingError(f"a file with the SHA-256 {digest}, pinned is {sha256}")
                # The beginning may have been of another file.
                resumed = False
                continue
            pause(2 ** (attempt - 1))
        else:
            raise MissingError("the file changed while it was fetched; run again")
        partial.chmod(0o644)
        partial.rename(target)


def drop_empty(partial: Path) -> None:
    """Remove what holds nothing that another run could go on with."""
    if partial.exists() and not partial.stat().st_size:
        partial.unlink()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file that may have changed since it was last asked for."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- What is done with them -------------------------------------------------------------------------------------------


def find(wanted: Sequence[Wanted]) -> None:
    """Look where each of them is."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        here = list(pool.map(Wanted.look_here, wanted))
        elsewhere = [one for one, is_here in zip(wanted, here, strict=True) if not is_here and not one.refused]
        list(pool.map(Wanted.ask, elsewhere))


def fetch(wanted: Sequence[Wanted], say: Callable[[str], None]) -> bool:
    """Bring to the controller what is not there; say whether something was brought. Raises FolderError."""
    changed = False
    for one in wanted:
        if one.look_here() or one.refused:
            continue
        target = Path(one.downloads).expanduser() / one.file
        changed |= bring(one, target, say)
    return changed


def bring(one: Wanted, target: Path, say: Callable[[str], None]) -> bool:
    """Download one of them; say whether it came."""
    say(f"Fetching {one.file} from {shown(one.source)}")
    try:
        download(one.source, target, one.sha256)
    except MissingError as error:
        one.looked.append((("mirror " if one.mirror else "upstream ") + shown(one.source), str(error)))
        return False
    one.found, one.path = True, str(target)
    return True


def collect(wanted: Sequence[Wanted], into: Path, say: Callable[[str], None]) -> bool:
    """Fill a folder; say whether something in it is different now. Raises FolderError."""
    with written(into):
        return fill(wanted, into, say)


def fill(wanted: Sequence[Wanted], into: Path, say: Callable[[str], None]) -> bool:
    """Do what `collect` says. Raises FolderError, and OSError where a file cannot be written."""
    changed = False
    for one in wanted:
        target = into / one.file
        if target.is_file():
            digest = file_digest(target)
            one.found, one.path, one.refused = digest == one.sha256, str(target), digest != one.sha256
            said = "found" if one.found else f"has the SHA-256 {digest}, pinned is {one.sha256} ({one.pin})"
            one.looked.append((f"folder to fill {into}", said))
        elif one.in_folder(into) or one.look_here():
            into.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f".{target.name}.copy")
            shutil.copyfile(one.path, new)
            new.chmod(0o644)
            new.rename(target)
            one.path = str(target)
            changed = True
        elif not one.refused:
            changed |= bring(one, target, say)
    return write_lists(wanted, into) or changed


def write_lists(wanted: Sequence[Wanted], into: Path) -> bool:
    """Write which files there are, with those of earlier runs; say whether a list is different now."""
    brought = {one.file: one for one in wanted if one.found}
    sums = {name: digest for name, digest in read_sums(into / SUMS).items() if (into / name).is_file()}
    sums.update((name, one.sha256) for name, one in brought.items())
    earlier = {row.split(" | ")[0].strip("|` "): row for row in read_rows(into / INDEX)}
    rows = {name: earlier[name] for name in sums if name in earlier}
    rows.update((name, index_row(one)) for name, one in brought.items())
    texts = {
        SUMS: "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())),
        INDEX: INDEX_TEXT.format(rows="\n".join(row for _, row in sorted(rows.items()))),
    }
    changed = False
    for name, text in texts.items():
        path = into / name
        if sums and not (path.is_file() and path.read_text(encoding="utf-8") == text):
            new = path.with_name(f".{name}.new")
            new.write_text(text, encoding="utf-8")
            new.rename(path)
            changed = True
    return changed


INDEX_TEXT = """# Artifacts of an AllIN Monitoring estate

Written by `playbooks/artifacts.yml`. Whether a copy of this folder is whole: `sha256sum --check SHA256SUMS`.

Name the folder in the inventory, `artifacts_dir: /path/of/this/folder`, or let a web server serve it and name the
address, `artifact_mirror_url: https://mirror.example.com/this-folder`. Each file is compared with the pin of its role
before it is used, wherever it came from. Where there is a folder `wheels`, it has the Python packages of the backend,
for `backend_wheels_dir`.

| file | of | version | architecture | size | upstream |
| --- | --- | --- | --- | --- | --- |
{rows}
"""


def index_row(one: Wanted) -> str:
    """Return a file's row in the index."""
    size = size_text(Path(one.path).stat().st_size)
    cells = (f"`{one.file}`", one.role, one.version, one.architecture or "any", size, shown(one.url))
    return f"| {' | '.join(cells)} |"


def read_rows(path: Path) -> list[str]:
    """Return the rows of an index; none where there is no file."""
    return (
        [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
        if path.is_file()
        else []
    )


def read_sums(path: Path) -> dict[str, str]:
    """Return file name -> SHA-256; empty where there is no list."""
    if not path.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {line[1]: line[0] for line in lines if len(line) == 2}


def merged(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Return each of them once, with all of its hosts. Raises AnsibleActionFail for two that want one name."""
    found: dict[tuple[str, ...], Wanted] = {}
    pins: dict[str, Wanted] = {}
    for one in wanted:
        known = found.setdefault(one.key(), one)
        if known is not one:
            known.hosts.extend(host for host in one.hosts if host not in known.hosts)
        other = pins.setdefault(one.file, one)
        if one.sha256 and other.sha256 and other.sha256 != one.sha256:
            raise AnsibleActionFail(
                f"{one.file} has two pins: {other.sha256} for {', '.join(other.hosts)}, {one.sha256} for "
                f"{', '.join(one.hosts)}. One of them is wrong: set {one.pin} where both have it."
            )
    return list(found.values())


class ActionModule(ActionBase):  # type: ignore[misc]
    """Entry point for Ansible."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find, fetch or collect."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["found", "fetched", "collected"], "default": "found"},
                "roles": {"type": "dict", "default": {}},
                "architectures": {"type": "list", "elements": "str", "default": []},
                "files": {"type": "list", "elements": "dict", "default": []},
                "folder": {"type": "str", "default": ""},
                "mirror": {"type": "str", "default": ""},
                "downloads": {"type": "str", "default": ""},
                "into": {"type": "str", "default": ""},
            }
        )
        wanted = [self.of_file(one, arguments) for one in arguments["files"]]
        for role, hosts in arguments["roles"].items():
            wanted += self.of_role(str(role), hosts, arguments["architectures"], task_vars)
        wanted = merged(wanted)

        state = arguments["state"]
        try:
            changed = self.changed(wanted, state, arguments["into"])
        except FolderError as error:
            setting = "artifacts_into" if state == "collected" else "artifacts_download_dir"
            raise AnsibleActionFail(
                f"The controller cannot write to its folder {error}. Nothing was unpacked. Make room there, or let "
                f"who runs this write there, or name another folder: {setting}: /path"
            ) from error
        result = {"changed": changed, "artifacts": [one.public() for one in wanted]}
        if state == "fetched":
            for one in wanted:
                if not one.found:
                    return {**result, "failed": True, "msg": complaint(one)}
        return result

    def changed(self, wanted: Sequence[Wanted], state: str, into: str) -> bool:
        """Find, fetch or collect; say whether something was, or would be, brought. Raises FolderError."""
        if state == "found" or self._task.check_mode:
            find(wanted)
            return state != "found" and any(one.found and not one.path for one in wanted)
        if state == "fetched":
            return fetch(wanted, self._display.display)
        if not into:
            raise AnsibleActionFail("artifacts: state collected needs `into`, the folder to fill.")
        return collect(wanted, Path(into).expanduser(), self._display.display)

    @staticmethod
    def of_file(one: Mapping[str, Any], arguments: Mapping[str, Any]) -> Wanted:
        """Return an artifact that is told. Raises AnsibleActionFail for one that is not told whole."""
        for key in ("url", "sha256"):
            if key not in one:
                raise AnsibleActionFail(f"artifacts: files: {dict(one)} has no `{key}`.")
        architecture = str(one.get("architecture", ""))
        return Wanted(
            file=str(one.get("file") or Path(urlsplit(str(one["url"])).path).name),
            url=str(one["url"]).strip(),
            sha256=str(one["sha256"]),
            role=str(one.get("role", "")),
            version=str(one.get("version", "")),
            architecture=architecture,
            other_names=[str(name).replace("{arch}", architecture) for name in one.get("other_names") or []],
            sums=str(one.get("sums", "")).strip().replace("{arch}", architecture),
            pinned=versions(one.get("checksums") or {}, architecture),
            pin=str(one.get("pin") or f"{one.get('role', '')}_archive_sha256"),
            folder=arguments["folder"],
            mirror=arguments["mirror"],
            downloads=arguments["downloads"] or DEFAULT_DOWNLOADS,
        )

    def of_role(
        self, role: str, hosts: Sequence[str], architectures: Sequence[str], task_vars: Mapping[str, Any]
    ) -> list[Wanted]:
        """Return what a role needs on its hosts, by the settings that each of them has."""
        path = next((p for p in (Path(place) / role for place in constants.DEFAULT_ROLES_PATH) if p.is_dir()), None)
        if path is None:
            raise AnsibleActionFail(f"artifacts: roles: there is no role {role}.")
        own = {**self.load(path / "defaults/main.yml"), **self.load(path / "vars/main.yml")}
        found = []
        for host in sorted(hosts):
            known = {**own, "hostvars": task_vars["hostvars"], **task_vars["hostvars"].raw_get(host)}
            settings = Settings(self._templar.copy_with_new_env(available_variables=known), known)
            method = settings.get(f"{role}_install_method", "archive")
            common = {
                "role": role,
                "folder": settings.get("artifacts_dir", ""),
                "mirror": settings.get("artifact_mirror_url", ""),
                "downloads": settings.get("artifacts_download_dir", DEFAULT_DOWNLOADS),
                "optional": boolean(settings.get(f"{role}_optional", False), strict=False),
            }
            if method == "archive":
                facts = known.get("ansible_facts") or {}
                machine = str(facts.get("architecture") or settings.get("allin_architecture", DEFAULT_ARCHITECTURE))
                pins = settings.get(f"__{role}_archive_sha256", {})
                checksums = settings.get(f"__{role}_checksums", {})
                sums = str(settings.get(f"__{role}_sums_url", "")).strip()
                others = settings.get(f"__{role}_archive_other_names", [])
                for architecture in architectures or [ARCHITECTURES.get(machine, machine)]:
                    url = str(settings.get(f"{role}_archive_url")).strip().replace("{arch}", architecture)
                    found.append(
                        Wanted(
                            file=Path(urlsplit(url).path).name,
                            url=url,
                            sha256=str(pins.get(architecture, "")),
                            version=str(settings.get(f"{role}_version")),
                            architecture=architecture,
                            pin=f"{role}_archive_sha256",
                            other_names=[str(name).replace("{arch}", architecture) for name in others],
                            sums=sums.replace("{arch}", architecture),
                            pinned=versions(checksums, architecture),
                            hosts=[host],
                            **common,
                        )
                    )
            for more in settings.get(f"__{role}_further_artifacts", []):
                one = self.of_file(more, {"folder": "", "mirror": "", "downloads": ""})
                for name, value in common.items():
                    setattr(one, name, value)
                one.hosts = [host]
                found.append(one)
        return found

    def load(self, path: Path) -> dict[str, Any]:
        """Return the variables of a file, as templates that are not resolved yet."""
        if not path.is_file():
            return {}
        return dict(self._loader.load_from_file(str(path), unsafe=True, trusted_as_template=True) or {})


def versions(checksums: Mapping[str, Mapping[str, str]], architecture: str) -> list[str]:
    """Return the versions that have a pin for an architecture."""
    return [str(version) for version, pins in checksums.items() if architecture in pins]


def complaint(one: Wanted) -> str:
    """Return the message about an artifact that cannot be had."""
    place, said = one.looked[-1]
    if one.refused and place.startswith("folder"):
        return (
            f"{place.partition(') ')[2]} {said}. Nothing was unpacked. Replace the file, or correct "
            f"{one.pin} if you meant to install this one."
        )
    if place.startswith("pin"):
        published = f"; upstream publishes it at {shown(one.sums)}" if one.sums else ""
        other = (
            f", or take a version that the role pins, {one.role}_version: {' or '.join(one.pinned)}"
            if one.pinned
            else ""
        )
        return (
            f"No SHA-256 is known for {one.role} {one.version} on {one.architecture}. Write it as "
            f"{one.pin}: {{{one.architecture}: <64 hex digits of {one.file}>}}{published}{other}."
        )
    looked = "; ".join(f"{place}: {said}" for place, said in one.looked)
    return f"{one.file} is not to be had. Nothing was unpacked. {looked}."


@dataclass(frozen=True)
class Settings:
    """Settings of one host, templates resolved when they are asked for."""

    templar: Any
    known: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a setting. Raises AnsibleActionFail where it has no default and is not set."""
        if name in self.known:
            return self.templar.template(self.known[name])
        if default is None:
            raise AnsibleActionFail(f"artifacts: there is no setting {name}.")
        return default
