#!/usr/bin/env python3
"""Download Debian packages of any suite from this machine's own mirror and unpack them, without root.

Used for tools that the tests need in several versions (promtool, amtool, ...). The mirror and the signing keys are
those that apt on this machine is configured with; only the suite is replaced. apt checks the signatures as always.
Nothing is installed: apt gets a state directory of its own beside the target, which is deleted afterwards.

    tools/debian_packages.py --suite sid --into DIR prometheus prometheus-alertmanager
    tools/debian_packages.py --test-tools
    tools/debian_packages.py --image-files DIR --suite trixie     apt's settings for an image of that release

Environment: ALLIN_DEBIAN_MIRROR names a mirror when this machine's apt has none for Debian (Ubuntu).
Exit code 0: everything is in place; 1: it is not, and stderr says what to do; 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STAMP_NAME = ".allin-packages.json"
# The keyrings of Debian's debian-archive-keyring package, which know older and newer releases than the machine's own.
DEBIAN_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
# They know a mirror for Debian, also on Ubuntu.
BOOTSTRAP_TOOLS = (Path("/usr/bin/mmdebstrap"), Path("/usr/sbin/debootstrap"))
# What must hold inside an image too, or its apt would not reach the machine's mirror.
APT_SETTINGS_FOR_IMAGE = re.compile(
    r"Acquire::(https?::proxy|check-valid-until|check-date|forceipv[46])\b", re.IGNORECASE
)
DEBIAN_SUITES = frozenset(
    {
        *("buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
        *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
    }
)
# What `--test-tools` fetches. promtool is in the prometheus package of Debian 12 and a package of its own from
# Debian 13 on; amtool is in prometheus-alertmanager.
TEST_TOOLS: dict[str, tuple[str, ...]] = {
    "bookworm": ("prometheus", "prometheus-alertmanager"),
    "trixie": ("prometheus", "promtool", "prometheus-alertmanager"),
    "sid": ("prometheus", "promtool", "prometheus-alertmanager", "prometheus-node-exporter"),
}
DOWNLOAD_TIMEOUT_SECONDS = 900


class ToolError(Exception):
    """The work cannot go on; the message says what is wrong and what a person should do."""


@dataclass(frozen=True)
class Source:
    """One Debian archive that this machine's apt is configured with.

    uri: the archive's address as written in the source list.
    suites: the suites it is configured for, such as ("bookworm", "bookworm-updates").
    components: such as ("main",).
    signed_by: keyring path(s), fingerprint(s) or an inline key block; "" when the entry names none.
    options: further settings to keep, such as (("Trusted", "yes"),).
    """

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    options: tuple[tuple[str, str], ...] = ()


def cache_root() -> Path:
    """Return the directory that holds everything this project downloads."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "allin-artifacts"


def parse_deb822(text: str) -> list[Source]:
    """Read a `.sources` file; stanzas that are disabled or only for source packages are left out."""
    sources: list[Source] = []
    # Comment lines may stand anywhere, also between a field and its continuation lines.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines).strip("\n")):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                if name:
                    fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        options = [("Trusted", fields["trusted"])] if "trusted" in fields else []
        sources.extend(
            Source(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", "").strip(),
                options=tuple(options),
            )
            for uri in fields.get("uris", "").split()
        )
    return sources


def parse_one_line(text: str) -> list[Source]:
    """Read a `.list` file (`deb [signed-by=...] URI suite component...`)."""
    sources: list[Source] = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match is None:
            continue
        given = dict(part.split("=", 1) for part in (match[1] or "").split() if "=" in part)
        options = [("Trusted", given["trusted"])] if "trusted" in given else []
        sources.append(
            Source(
                uri=match[2],
                suites=(match[3],),
                components=tuple(match[4].split()),
                signed_by=given.get("signed-by", "").replace(",", " "),
                options=tuple(options),
            )
        )
    return sources


def read_machine_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Return what apt is configured with, in apt's order: sources.list first, then sources.list.d by name."""
    sources: list[Source] = []
    main_list = etc_apt / "sources.list"
    if main_list.is_file():
        sources += parse_one_line(main_list.read_text(encoding="utf-8", errors="replace"))
    parts = etc_apt / "sources.list.d"
    if parts.is_dir():
        for path in sorted(parts.iterdir()):
            if path.suffix == ".sources":
                sources += parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
            elif path.suffix == ".list":
                sources += parse_one_line(path.read_text(encoding="utf-8", errors="replace"))
    return sources


def is_debian_main(source: Source) -> bool:
    """Say whether this is Debian's main archive: not security, not a third party's, not another distribution's."""
    return "main" in source.components and any(suite in DEBIAN_SUITES for suite in source.suites)


def is_debian_security(source: Source) -> bool:
    """Say whether this is Debian's security archive (`bookworm-security`, formerly `buster/updates`)."""
    return "main" in source.components and any(
        suite.removesuffix("-security").removesuffix("/updates") in DEBIAN_SUITES
        and suite.endswith(("-security", "/updates"))
        for suite in source.suites
    )


def bootstrap_tools_mirror(tools: Sequence[Path] = BOOTSTRAP_TOOLS) -> str:
    """Return the Debian mirror that an installed bootstrap tool uses by itself; "" when none is installed."""
    for tool in tools:
        with contextlib.suppress(OSError):
            text = tool.read_text(encoding="utf-8", errors="replace")
            match = re.search(r"""["'](https?://[^"'\s$]+/debian)/?["']""", text)
            if match is not None:
                return match[1]
    return ""


def find_debian_source(
    sources: Sequence[Source], environment_mirror: str = "", tools: Sequence[Path] = BOOTSTRAP_TOOLS
) -> Source:
    """Choose the archive to download from.

    In this order: ALLIN_DEBIAN_MIRROR, the machine's first Debian entry, the default of mmdebstrap or debootstrap
    (which is what an Ubuntu machine has). Raises ToolError when there is none.
    """
    if environment_mirror:
        return Source(uri=environment_mirror, suites=(), components=("main",))
    for source in sources:
        if is_debian_main(source):
            return source
    default = bootstrap_tools_mirror(tools)
    if default:
        return Source(uri=default, suites=(), components=("main",))
    raise ToolError(
        "apt on this machine has no source for Debian's main archive (in /etc/apt/sources.list or sources.list.d).\n"
        "On Ubuntu and relatives: `apt-get install debian-archive-keyring mmdebstrap` (its default mirror is then\n"
        "used) or set ALLIN_DEBIAN_MIRROR to the address of a Debian mirror; then run this again."
    )


def keyrings_for(signed_by: str, known: Sequence[Path] = DEBIAN_KEYRINGS) -> str:
    """Return the Signed-By value to use for a suite other than the machine's own.

    An entry may name a keyring with one release's keys only, so Debian's complete keyring is added where installed.
    An inline key block cannot be mixed with paths and stays as it is.
    """
    if "BEGIN PGP" in signed_by:
        return "\n " + "\n ".join(signed_by.strip().splitlines())
    parts = signed_by.split()
    # The two names are links to each other on newer releases; one is enough.
    complete = next((str(path) for path in known if path.exists()), None)
    if complete is not None and not any(str(path) in parts for path in known):
        parts.append(complete)
    return " ".join(parts)


def render_source(source: Source, suites: Sequence[str], known_keyrings: Sequence[Path] = DEBIAN_KEYRINGS) -> str:
    """Return a `.sources` stanza for the same archive and other suites; packages only, no translations or icons."""
    fields = [
        ("Types", "deb"),
        ("URIs", source.uri),
        ("Suites", " ".join(suites)),
        ("Components", "main"),
    ]
    signed_by = keyrings_for(source.signed_by, known_keyrings)
    if signed_by:
        fields.append(("Signed-By", signed_by))
    fields.extend(source.options)
    return render_fields(fields)


def render_fields(fields: Sequence[tuple[str, str]]) -> str:
    """Return one deb822 stanza; a value that starts with a line break begins on the next line."""
    return "".join(f"{name}:{'' if value.startswith(chr(10)) else ' '}{value}\n" for name, value in fields)


def apt_configuration(state: Path) -> str:
    """Return an apt configuration that keeps all state below `state` and ignores what is installed on this machine."""
    return f"""\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Pre-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;
Dir::State "{state}/state";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{state}/sources.list.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{state}/preferences.d";
APT::Get::List-Cleanup "false";
APT::Default-Release "";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""


def say(text: str) -> None:
    """Tell the person waiting what is going on."""
    print(f"debian_packages: {text}", file=sys.stderr, flush=True)


def read_stamp(target: Path) -> dict[str, str]:
    """Return the packages unpacked in `target` with their versions; empty when there is no complete, readable stamp."""
    try:
        data = json.loads((target / STAMP_NAME).read_text(encoding="utf-8"))
        return {str(name): str(version) for name, version in data["packages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def read_stamp_suite(target: Path) -> str:
    """Return the suite that `target` was unpacked from; empty when unknown."""
    try:
        return str(json.loads((target / STAMP_NAME).read_text(encoding="utf-8"))["suite"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold a lock beside `target`, so that two calls at once do not download the same thing or tread on each other."""
    lock_path = target.with_name(f".{target.name}.lock")
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another call is filling {target}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_apt(arguments: Sequence[str], state: Path, suite: str, cwd: Path) -> None:
    """Run apt-get with the private state directory. Raises ToolError that explains the failure."""
    command = ["apt-get", "-q", "-c", str(state / "apt.conf"), *arguments]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError(
            "apt-get is not here: this works on Debian and Ubuntu only. Put promtool and amtool on PATH yourself."
        ) from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            f"apt-get {arguments[0]} for {suite} took longer than {DOWNLOAD_TIMEOUT_SECONDS} s. "
            "Check the network and run this again."
        ) from None
    # `apt-get update` warns and exits 0 when an index could not be fetched, so the text counts as well.
    problems = [line for line in result.stdout.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    if result.returncode == 0 and not (arguments[0] == "update" and any(line.startswith("Err:") for line in problems)):
        return
    raise ToolError(
        explain_apt_failure(arguments, suite, result.returncode, problems or result.stdout.splitlines()[-8:])
    )


def explain_apt_failure(arguments: Sequence[str], suite: str, code: int, problems: Sequence[str]) -> str:
    """Turn what apt printed into what is wrong and what to do."""
    text = "\n".join(problems)
    if "NO_PUBKEY" in text or "is not signed" in text or "Missing key" in text:
        advice = (
            f"The keys on this machine do not verify {suite}. Update them: `apt-get install debian-archive-keyring`."
        )
    elif "Unable to locate package" in text or "no installation candidate" in text:
        advice = f"{suite} has no such package for this architecture. Check the name and the suite."
    elif "does not have a Release file" in text or "404" in text:
        advice = f"The mirror of this machine does not carry {suite}. Set ALLIN_DEBIAN_MIRROR to a mirror that does."
    elif "No space left" in text:
        advice = "The disk is full. Free some space and run this again."
    else:
        advice = "Check that this machine reaches its Debian mirror (`apt-get update`) and run this again."
    return f"apt-get {' '.join(arguments)} for {suite} failed (exit code {code}):\n{text}\n{advice}"


def image_keyring_value(signed_by: str, known: Sequence[Path] = DEBIAN_KEYRINGS) -> tuple[str, list[Path]]:
    """Return the Signed-By value for use inside an image, and the keyrings to copy there: those not Debian's own."""
    if "BEGIN PGP" in signed_by:
        return keyrings_for(signed_by, known), []
    # Inside the image the keyring is always there, and under this name on every release.
    parts = [str(DEBIAN_KEYRINGS[-1])]
    own: list[Path] = []
    for part in signed_by.split():
        path = Path(part)
        if path in known or path.name.startswith("debian-archive-"):
            continue
        parts.append(part)
        if path.is_absolute():
            own.append(path)
    return " ".join(parts), own


def image_sources(sources: Sequence[Source], suite: str, main_source: Source) -> list[tuple[str, Source, bool]]:
    """Return (suite, archive, needed) for an image of `suite`: the release itself, and its updates where configured."""
    # Mirrors keep the security archive beside the main one; where that is not so, the mirror is asked and says no.
    sibling = Source(main_source.uri.rstrip("/") + "-security", (), ("main",), main_source.signed_by)
    security = next((source for source in sources if is_debian_security(source)), sibling)
    wanted = [(suite, main_source, True)]
    if suite not in ("sid", "unstable"):
        wanted.append((f"{suite}-updates", main_source, False))
        wanted.append((f"{suite}-security", security, False))
    return wanted


def suite_is_there(suite: str, source: Source) -> bool:
    """Ask the mirror whether it carries a suite. Raises ToolError for any other trouble than its absence."""
    with tempfile.TemporaryDirectory(prefix="allin-apt-") as directory:
        state = make_apt_state(Path(directory), render_source(source, [suite]))
        try:
            run_apt(["update"], state, suite, state)
        except ToolError as error:
            if "does not have a Release file" in str(error) or "404" in str(error):
                return False
            raise
    return True


def describe_image_sources(suite: str) -> str:
    """Return what an image of `suite` would get, without asking the mirror; for telling whether a recipe changed."""
    sources = read_machine_sources()
    main_source = find_debian_source(sources, os.environ.get("ALLIN_DEBIAN_MIRROR", ""))
    wanted = image_sources(sources, suite, main_source)
    return repr([(name, source.uri, source.signed_by) for name, source, _ in wanted]) + "\n" + image_apt_settings()


def image_apt_settings() -> str:
    """Return the machine's apt settings without which an image's apt would not reach the mirror (proxy, validity)."""
    result = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    return "".join(f"{line}\n" for line in result.stdout.splitlines() if APT_SETTINGS_FOR_IMAGE.match(line))


def write_image_files(suite: str, directory: Path) -> None:
    """Write debian.sources, apt.conf and keyrings/ for an image of `suite` into `directory`. Raises ToolError."""
    sources = read_machine_sources()
    main_source = find_debian_source(sources, os.environ.get("ALLIN_DEBIAN_MIRROR", ""))
    stanzas: list[str] = []
    keyrings = directory / "keyrings"
    keyrings.mkdir(parents=True, exist_ok=True)
    for name, source, needed in image_sources(sources, suite, main_source):
        if not needed and not suite_is_there(name, source):
            say(f"the mirror does not carry {name}; the image goes without it")
            continue
        value, own = image_keyring_value(source.signed_by)
        for path in own:
            shutil.copy(path, keyrings / path.name)
        fields = [
            ("Types", "deb"),
            ("URIs", source.uri),
            ("Suites", name),
            ("Components", "main"),
            ("Signed-By", value),
        ]
        fields.extend(source.options)
        stanzas.append(render_fields(fields))
    (directory / "debian.sources").write_text("\n".join(stanzas), encoding="utf-8")
    (directory / "apt.conf").write_text(image_apt_settings(), encoding="utf-8")


def make_apt_state(state: Path, sources: str) -> Path:
    """Fill `state` with what apt needs to work on its own with the given `.sources` text; return `state`."""
    for part in ("state/lists/partial", "cache/archives/partial", "sources.list.d", "preferences.d"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    (state / "apt.conf").write_text(apt_configuration(state), encoding="utf-8")
    (state / "sources.list.d" / "allin.sources").write_text(sources, encoding="utf-8")
    return state


def package_field(deb: Path, field: str) -> str:
    """Return one control field of a .deb file."""
    result = subprocess.run(["dpkg-deb", "-f", str(deb), field], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def ensure_packages(suite: str, target: Path, packages: Sequence[str], *, refresh: bool = False) -> dict[str, str]:
    """Make sure that `packages` of `suite` are unpacked in `target`; return name -> version of all that is there.

    Packages that an earlier call put there stay; when one is missing all are fetched anew, so that they are of one
    state of the suite. What is live is the old tree or the complete new one. Raises ToolError.
    """
    target = target.absolute()
    with locked(target):
        stamp_suite = read_stamp_suite(target)
        present = read_stamp(target) if stamp_suite == suite else {}
        if not refresh and set(packages) <= set(present):
            return present
        if target.exists() and not stamp_suite and any(target.iterdir()):
            raise ToolError(
                f"{target} is not empty and was not made by this tool, so it is not replaced. "
                "Choose another --into or remove it."
            )
        if stamp_suite and stamp_suite != suite:
            raise ToolError(f"{target} holds packages of {stamp_suite}, not {suite}. Choose another --into.")
        wanted = sorted({*packages, *present})
        source = find_debian_source(read_machine_sources(), os.environ.get("ALLIN_DEBIAN_MIRROR", ""))
        started = time.monotonic()
        say(f"downloading {', '.join(wanted)} of Debian {suite} (up to a minute) ...")
        # What a killed call left behind; the lock guarantees that nobody is working in it.
        for kind in ("partial", "old"):
            for leftover in target.parent.glob(f".{target.name}.{kind}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
        try:
            versions = download_and_unpack(suite, source, wanted, work)
            tree = work / "tree"
            # mkdtemp's 0700 is for the work directory; the tree is for everybody.
            tree.chmod(0o755)
            stamp = {"suite": suite, "packages": versions}
            (tree / STAMP_NAME).write_text(json.dumps(stamp, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            if target.exists():
                target.rename(target.with_name(f".{target.name}.old-{os.getpid()}"))
            tree.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(target.with_name(f".{target.name}.old-{os.getpid()}"), ignore_errors=True)
        listing = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        say(f"{suite}: {listing} in {target} ({time.monotonic() - started:.0f} s)")
        return versions


def download_and_unpack(suite: str, source: Source, packages: Sequence[str], work: Path) -> dict[str, str]:
    """Fetch `packages` into `work` and unpack them into `work/tree`; return name -> version. Raises ToolError."""
    state = make_apt_state(work / "apt", render_source(source, [suite]))
    debs = work / "debs"
    debs.mkdir()
    tree = work / "tree"
    tree.mkdir()
    run_apt(["update"], state, suite, debs)
    run_apt(["download", *packages], state, suite, debs)
    versions: dict[str, str] = {}
    for deb in sorted(debs.glob("*.deb")):
        try:
            versions[package_field(deb, "Package")] = package_field(deb, "Version")
            subprocess.run(["dpkg-deb", "-x", str(deb), str(tree)], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise ToolError(
                f"dpkg-deb cannot unpack {deb.name}: {str(error.stderr).strip()}\nIs the disk full? Run this again."
            ) from None
        deb.unlink()
    missing = sorted(set(packages) - set(versions))
    if missing:
        raise ToolError(f"apt-get downloaded nothing for {', '.join(missing)} of {suite}. Check the names.")
    return versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Download Debian packages of any suite and unpack them, without root.")
    parser.add_argument("--suite", help="Debian suite, such as bookworm, trixie, sid")
    parser.add_argument("--into", type=Path, help="directory to fill (default: <cache>/allin-artifacts/debian/<suite>)")
    parser.add_argument("--test-tools", action="store_true", help="all packages that `make test` needs, of all suites")
    parser.add_argument("--image-files", type=Path, metavar="DIR", help="write apt's settings for an image of --suite")
    parser.add_argument("--describe-image", action="store_true", help="print what --image-files depends on")
    parser.add_argument("--refresh", action="store_true", help="download again even when the packages are there")
    parser.add_argument("packages", nargs="*", help="package names")
    options = parser.parse_args(arguments)
    if options.test_tools and (options.suite or options.packages or options.into):
        parser.error("--test-tools goes without --suite, --into and package names")
    for_image = bool(options.image_files or options.describe_image)
    if not options.test_tools and not (options.suite and (options.packages or for_image)):
        parser.error("give --suite and package names, or --test-tools")
    wanted = TEST_TOOLS if options.test_tools else {options.suite: tuple(options.packages)}
    try:
        if options.describe_image:
            print(describe_image_sources(options.suite))
            return 0
        if options.image_files:
            write_image_files(options.suite, options.image_files)
            return 0
        for suite, packages in wanted.items():
            into = options.into or cache_root() / "debian" / suite
            ensure_packages(suite, into, packages, refresh=options.refresh)
    except ToolError as error:
        print(f"debian_packages: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"debian_packages: {error}. Is the disk full or the directory not writable?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
