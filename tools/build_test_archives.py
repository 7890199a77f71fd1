#!/usr/bin/env python3
"""Build release archives with upstream's names and layout from unpacked Debian packages, for tests without upstream.

    tools/build_test_archives.py [--into DIR] [--debian DIR]
    tools/build_test_archives.py --stand-ins [--into DIR] [--debian DIR]

They stand in for upstream's downloads wherever a test installs by `archive`. The binaries are Debian's builds, so they
must never pass for upstream's own files: they go to a directory of their own, with their own sha256sums.txt (default
<cache>/allin-artifacts/test-archives). The same packages give the same bytes. Packages that are not unpacked yet are
fetched by tools/debian_packages.py. Quick when nothing changed.

With --stand-ins instead: programs that upstream publishes as they are and of which Debian had a version once (cAdvisor,
in Debian 11), into the artifacts folder itself, for the local stack and the tests. Their names say where they are from.
Exit code 0: the archives are there; 1: they are not, and stderr says what to do.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEBIAN_STAMP = ".allin-packages.json"
SUMS_NAME = "sha256sums.txt"
STAMP_NAME = ".built-from.json"
# Upstream packs as an ordinary user. Keeping that catches a role that leaves unpacked files to whoever has this number.
OWNER_ID = 1001
# Any fixed moment will do: 2025-01-01 00:00:00 UTC, in seconds.
FIXED_TIME = 1735689600
# Level 1 makes files a tenth larger and takes a third of the time; these archives travel nowhere.
COMPRESSION_LEVEL = 1
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ToolError(Exception):
    """The work cannot go on; the message says what is wrong and what a person should do."""


@dataclass(frozen=True)
class Recipe:
    """How one archive is made.

    name: upstream's name of the program; suite: Debian suite whose unpacked packages are used; package: the one whose
    version counts; files: path in the archive -> (path in the unpacked tree, mode); trees: the same for directories,
    which old versions have and new ones have not.
    """

    name: str
    suite: str
    package: str
    files: dict[str, tuple[str, int]]
    trees: dict[str, str] = field(default_factory=dict)


PROMETHEUS_FILES = {
    "LICENSE": ("usr/share/doc/prometheus/copyright", 0o644),
    "NOTICE": ("usr/share/doc/prometheus/NOTICE", 0o644),
    "prometheus": ("usr/bin/prometheus", 0o755),
    "prometheus.yml": ("etc/prometheus/prometheus.yml", 0o644),
    "promtool": ("usr/bin/promtool", 0o755),
}
RECIPES = (
    # Upstream's 2.x archives carry example consoles, 3.x ones do not.
    Recipe(
        "prometheus",
        "trixie",
        "prometheus",
        PROMETHEUS_FILES,
        trees={
            "console_libraries": "usr/share/doc/prometheus/examples/console_libraries",
            "consoles": "usr/share/doc/prometheus/examples/consoles",
        },
    ),
    Recipe("prometheus", "sid", "prometheus", PROMETHEUS_FILES),
    Recipe(
        "alertmanager",
        "sid",
        "prometheus-alertmanager",
        {
            "LICENSE": ("usr/share/doc/prometheus-alertmanager/copyright", 0o644),
            "NOTICE": ("usr/share/doc/prometheus-alertmanager/NOTICE", 0o644),
            "alertmanager": ("usr/bin/prometheus-alertmanager", 0o755),
            "alertmanager.yml": ("etc/prometheus/alertmanager.yml", 0o644),
            "amtool": ("usr/bin/amtool", 0o755),
        },
    ),
    Recipe(
        "node_exporter",
        "sid",
        "prometheus-node-exporter",
        {
            "LICENSE": ("usr/share/doc/prometheus-node-exporter/copyright", 0o644),
            "NOTICE": ("usr/share/doc/prometheus-node-exporter/NOTICE", 0o644),
            "node_exporter": ("usr/bin/prometheus-node-exporter", 0o755),
        },
    ),
)


@dataclass(frozen=True)
class StandIn:
    """A program of Debian's in place of one that upstream publishes as it is.

    name: upstream's name of it; suite, release: the Debian that has it; package and file: where in there it is.
    """

    name: str
    suite: str
    release: str
    package: str
    file: str


STAND_INS = (StandIn("cadvisor", "bullseye", "debian11", "cadvisor", "usr/bin/cadvisor"),)


def cache_root() -> Path:
    """Return the directory that holds everything this project downloads."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "allin-artifacts"


def say(text: str) -> None:
    """Tell the person waiting what is going on."""
    print(f"test archives: {text}", file=sys.stderr, flush=True)


def upstream_version(debian_version: str) -> str:
    """Return upstream's version in a Debian one: `1:3.5.3+ds1-6` is 3.5.3, `2.0~rc.1-1` is 2.0-rc.1."""
    version = debian_version.split(":", 1)[-1].rsplit("-", 1)[0]
    return re.sub(r"\+(ds|dfsg|really).*$", "", version).replace("~", "-")


def read_versions(debian: Path, suite: str) -> dict[str, str]:
    """Return package -> Debian version of what tools/debian_packages.py unpacked for a suite; empty when nothing."""
    try:
        data = json.loads((debian / suite / DEBIAN_STAMP).read_text(encoding="utf-8"))
        return {str(name): str(version) for name, version in data["packages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def archive_stem(recipe: Recipe, version: str, architecture: str) -> str:
    """Return the archive's name without `.tar.gz`, which is also its only top directory."""
    return f"{recipe.name}-{version}.linux-{architecture}"


def collect(recipe: Recipe, tree: Path) -> dict[str, tuple[Path, int]]:
    """Return path in the archive -> (file, mode). Raises ToolError naming a file that the packages have not."""
    members = {inside: (tree / path, mode) for inside, (path, mode) in recipe.files.items()}
    for inside, path in recipe.trees.items():
        for file in sorted((tree / path).rglob("*")):
            if file.is_file():
                members[f"{inside}/{file.relative_to(tree / path)}"] = (file, 0o644)
    for inside, (file, _) in members.items():
        if not file.is_file():
            raise ToolError(
                f"{file} is missing, so there is no {inside} for {recipe.name}.\n"
                f"Run `tools/debian_packages.py --suite {recipe.suite} --refresh {recipe.package}`; when that\n"
                "does not help, Debian has moved the file: correct RECIPES in tools/build_test_archives.py."
            )
    return members


def member(name: str, mode: int, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    """Return a tar header that depends on nothing but its arguments."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = mode
    info.size = size
    info.mtime = FIXED_TIME
    info.uid = info.gid = OWNER_ID
    return info


def write_archive(path: Path, stem: str, members: dict[str, tuple[Path, int]]) -> str:
    """Write the archive to `path`, whole or not at all; return its SHA-256."""
    directories = {stem}
    for inside in members:
        directories.update(f"{stem}/{parent}" for parent in Path(inside).parents if str(parent) != ".")
    partial = path.with_name(f".{path.name}.partial")
    # No file name and no time in gzip's header: they would differ from run to run.
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION_LEVEL, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for directory in sorted(directories):
            archive.addfile(member(directory, 0o755, tarfile.DIRTYPE))
        for inside, (file, mode) in sorted(members.items()):
            content = file.read_bytes()
            archive.addfile(member(f"{stem}/{inside}", mode, size=len(content)), io.BytesIO(content))
    digest = file_sha256(partial)
    partial.rename(path)
    return digest


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_sums(path: Path) -> dict[str, str]:
    """Return file name -> SHA-256 of a sha256sums.txt; empty when there is none."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def build(debian: Path, target: Path, architecture: str, recipes: Sequence[Recipe] = RECIPES) -> list[Path]:
    """Make sure that `target` holds the archives of what is unpacked in `debian`; return their paths.

    Raises ToolError when a package or a file in it is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        versions: dict[str, str] = {}
        for recipe in recipes:
            found = read_versions(debian, recipe.suite).get(recipe.package)
            if found is None:
                raise ToolError(
                    f"{recipe.package} of {recipe.suite} is not unpacked in {debian}. "
                    "Run `tools/debian_packages.py --test-tools`."
                )
            versions[f"{recipe.suite}/{recipe.package}"] = found
        stems = {
            archive_stem(recipe, upstream_version(versions[f"{recipe.suite}/{recipe.package}"]), architecture): recipe
            for recipe in recipes
        }
        built_from = {
            "packages": versions,
            "architecture": architecture,
            "tool": file_sha256(Path(__file__)),
        }
        paths = [target / f"{stem}.tar.gz" for stem in stems]
        old_sums = read_sums(target / SUMS_NAME)
        try:
            unchanged = json.loads((target / STAMP_NAME).read_text(encoding="utf-8")) == built_from
        except (OSError, ValueError):
            unchanged = False
        if unchanged and all(path.is_file() and path.name in old_sums for path in paths):
            return paths
        started = time.monotonic()
        say(f"packing {len(stems)} archives from Debian's packages (about ten seconds) ...")
        (target / STAMP_NAME).unlink(missing_ok=True)
        sums = {
            path.name: write_archive(path, stem, collect(recipe, debian / recipe.suite))
            for path, (stem, recipe) in zip(paths, stems.items(), strict=True)
        }
        # What an earlier state of Debian gave; only what this tool wrote itself.
        for name in old_sums.keys() - sums.keys():
            (target / name).unlink(missing_ok=True)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
        (target / SUMS_NAME).write_text(lines, encoding="ascii")
        (target / STAMP_NAME).write_text(json.dumps(built_from, indent=2) + "\n", encoding="utf-8")
        say(f"{', '.join(sorted(sums))} in {target} ({time.monotonic() - started:.0f} s)")
        return paths


def put_stand_ins(debian: Path, target: Path, architecture: str, programs: Sequence[StandIn] = STAND_INS) -> list[Path]:
    """Make sure that `target` holds the stand-ins that are unpacked in `debian`; return their paths.

    Raises ToolError when one is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in programs:
        version = read_versions(debian, one.suite).get(one.package)
        source = debian / one.suite / one.file
        if version is None or not source.is_file():
            raise ToolError(f"{one.package} of {one.suite} is not unpacked in {debian}.")
        path = target / f"{one.name}-v{upstream_version(version)}-{one.release}-linux-{architecture}"
        paths.append(path)
        if not path.is_file() or file_sha256(path) != file_sha256(source):
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
            shutil.copyfile(source, partial)
            partial.chmod(0o755)
            partial.rename(path)
            say(f"{path} from Debian's {one.package} {version}")
    return paths


def fetch_stand_ins(debian: Path) -> None:
    """Fetch the packages of the stand-ins that are not unpacked in the default place yet. Raises ToolError."""
    packages_tool = Path(__file__).resolve().with_name("debian_packages.py")
    for one in STAND_INS:
        if one.package not in read_versions(debian, one.suite):
            command = [sys.executable, str(packages_tool), "--suite", one.suite, one.package]
            if subprocess.run(command, check=False).returncode != 0:
                raise ToolError(f"Debian's {one.package} is not to be had; the lines above say why.")


def fetch_packages(debian: Path) -> None:
    """Fetch the packages that are not unpacked in the default place yet. Raises ToolError."""
    if all(recipe.package in read_versions(debian, recipe.suite) for recipe in RECIPES):
        return
    packages_tool = Path(__file__).resolve().with_name("debian_packages.py")
    if subprocess.run([sys.executable, str(packages_tool), "--test-tools"], check=False).returncode != 0:
        raise ToolError("Debian's packages are not there; the lines above say what to do.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Build archives in upstream's layout from unpacked Debian packages.")
    parser.add_argument(
        "--stand-ins", action="store_true", help="programs for the artifacts folder instead of archives"
    )
    parser.add_argument(
        "--into", type=Path, help="default: <cache>/allin-artifacts/test-archives, or <cache>/allin-artifacts"
    )
    parser.add_argument("--debian", type=Path, help="unpacked packages (default: <cache>/allin-artifacts/debian)")
    options = parser.parse_args(arguments)
    debian = options.debian or cache_root() / "debian"
    target = options.into or (cache_root() if options.stand_ins else cache_root() / "test-archives")
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        say(f"upstream has no archives for {platform.machine()}; use an amd64 or arm64 machine.")
        return 1
    try:
        if options.debian is None:
            (fetch_stand_ins if options.stand_ins else fetch_packages)(debian)
        (put_stand_ins if options.stand_ins else build)(debian, target, architecture)
    except (ToolError, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
