"""tools/build_test_archives.py: names, layout and bytes of the archives, from fake package trees."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from tools import build_test_archives as tool

VERSIONS = {
    "trixie": {"prometheus": "2.53.3+ds1-2"},
    "sid": {
        "prometheus": "3.5.3+ds1-6",
        "prometheus-alertmanager": "0.33.1-5",
        "prometheus-node-exporter": "1.11.1-3",
    },
}
NAMES = [
    "alertmanager-0.33.1.linux-amd64.tar.gz",
    "node_exporter-1.11.1.linux-amd64.tar.gz",
    "prometheus-2.53.3.linux-amd64.tar.gz",
    "prometheus-3.5.3.linux-amd64.tar.gz",
]


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """Return a directory that looks like what tools/debian_packages.py leaves, with tiny files."""
    root = tmp_path / "debian"
    for recipe in tool.RECIPES:
        tree = root / recipe.suite
        sources = [path for path, _ in recipe.files.values()]
        sources += [f"{directory}/sub/index.html" for directory in recipe.trees.values()]
        for path in sources:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(f"{recipe.suite} {path}\n", encoding="utf-8")
    for suite, versions in VERSIONS.items():
        stamp(root, suite, versions)
    return root


def stamp(root: Path, suite: str, versions: dict[str, str]) -> None:
    """Write the stamp of an unpacked suite."""
    (root / suite / tool.DEBIAN_STAMP).write_text(json.dumps({"suite": suite, "packages": versions}), encoding="utf-8")


@pytest.mark.parametrize(
    ("debian_version", "upstream"),
    [
        ("3.5.3+ds1-6", "3.5.3"),
        ("2.42.0+ds-5+deb12u1", "2.42.0"),
        ("0.25.0-1+b4", "0.25.0"),
        ("1:1.11.1-3", "1.11.1"),
        ("3.6.0~rc.1-1", "3.6.0-rc.1"),
    ],
)
def test_version_is_upstreams(debian_version: str, upstream: str) -> None:
    assert tool.upstream_version(debian_version) == upstream


def test_names_and_sums(debian: Path, tmp_path: Path) -> None:
    tool.build(debian, tmp_path / "out", "amd64")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar.gz")) == NAMES
    lines = (tmp_path / "out" / "sha256sums.txt").read_text(encoding="ascii").splitlines()
    assert lines == [f"{hashlib.sha256((tmp_path / 'out' / name).read_bytes()).hexdigest()}  {name}" for name in NAMES]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prometheus-3.5.3", {"LICENSE", "NOTICE", "prometheus", "prometheus.yml", "promtool"}),
        (
            "prometheus-2.53.3",
            {
                *("LICENSE", "NOTICE", "prometheus", "prometheus.yml", "promtool"),
                *("consoles/sub/index.html", "console_libraries/sub/index.html"),
            },
        ),
        ("alertmanager-0.33.1", {"LICENSE", "NOTICE", "alertmanager", "alertmanager.yml", "amtool"}),
        ("node_exporter-1.11.1", {"LICENSE", "NOTICE", "node_exporter"}),
    ],
)
def test_layout_is_upstreams(debian: Path, tmp_path: Path, name: str, expected: set[str]) -> None:
    tool.build(debian, tmp_path / "out", "amd64")
    stem = f"{name}.linux-amd64"
    programs = {"prometheus", "promtool", "alertmanager", "amtool", "node_exporter"}
    with tarfile.open(tmp_path / "out" / f"{stem}.tar.gz") as archive:
        members = archive.getmembers()
        assert {member.name for member in members if member.isfile()} == {f"{stem}/{path}" for path in expected}
        # A program that unpacks member by member needs each directory before what is in it.
        known: set[str] = set()
        for member in members:
            parent = str(Path(member.name).parent)
            assert parent in known or parent == "."
            known.add(member.name)
            assert member.mtime == tool.FIXED_TIME
            if member.isdir():
                assert member.mode == 0o755
            else:
                assert member.mode == (0o755 if Path(member.name).name in programs else 0o644)
            assert (member.uid, member.gid, member.uname, member.gname) == (tool.OWNER_ID, tool.OWNER_ID, "", "")
        content = archive.extractfile(f"{stem}/LICENSE")
        assert content is not None
        assert content.read().endswith(b"copyright\n")


def test_same_packages_give_the_same_bytes(debian: Path, tmp_path: Path) -> None:
    tool.build(debian, tmp_path / "one", "amd64")
    for path in debian.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        if path.is_file():
            path.chmod(0o600)
    tool.build(debian, tmp_path / "two", "amd64")
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_is_packed_again_until_a_package_changes(
    debian: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    tool.build(debian, out, "amd64")
    assert "packing" in capsys.readouterr().err
    tool.build(debian, out, "amd64")
    assert capsys.readouterr().err == ""

    stamp(debian, "sid", {**VERSIONS["sid"], "prometheus": "3.5.4+ds1-1"})
    (out / "notes.txt").write_text("not ours", encoding="utf-8")
    tool.build(debian, out, "amd64")
    assert (out / "prometheus-3.5.4.linux-amd64.tar.gz").is_file()
    assert not (out / "prometheus-3.5.3.linux-amd64.tar.gz").exists()
    assert (out / "notes.txt").is_file()
    assert "prometheus-3.5.3" not in (out / "sha256sums.txt").read_text(encoding="ascii")


def test_a_deleted_archive_comes_back(debian: Path, tmp_path: Path) -> None:
    (first, *_) = tool.build(debian, tmp_path / "out", "amd64")
    first.unlink()
    tool.build(debian, tmp_path / "out", "amd64")
    assert first.is_file()


def test_a_file_that_debian_moved_is_named(debian: Path, tmp_path: Path) -> None:
    (debian / "sid" / "usr/bin/amtool").unlink()
    with pytest.raises(tool.ToolError, match="usr/bin/amtool is missing"):
        tool.build(debian, tmp_path / "out", "amd64")
    assert not (tmp_path / "out" / "sha256sums.txt").exists()


def test_a_missing_package_is_named(debian: Path, tmp_path: Path) -> None:
    stamp(debian, "sid", {"prometheus": "3.5.3+ds1-6"})
    with pytest.raises(tool.ToolError, match="prometheus-alertmanager of sid is not unpacked"):
        tool.build(debian, tmp_path / "out", "amd64")


def test_a_stand_in_says_where_it_is_from(tmp_path: Path) -> None:
    """Prevents: a distributor's build that passes for upstream's."""
    debian, target = tmp_path / "debian", tmp_path / "out"
    program = debian / "bullseye/usr/bin/cadvisor"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"one")
    stamp(debian, "bullseye", {"cadvisor": "0.38.7+ds1-2+b7"})
    (path,) = tool.put_stand_ins(debian, target, "amd64")
    assert path == target / "cadvisor-v0.38.7-debian11-linux-amd64"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o755)
    first = path.stat().st_ino
    tool.put_stand_ins(debian, target, "amd64")
    assert path.stat().st_ino == first, "written again though nothing changed"
    # Debian has built it anew, of the same version.
    program.write_bytes(b"two")
    tool.put_stand_ins(debian, target, "amd64")
    assert path.read_bytes() == b"two"
    assert [one.name for one in target.iterdir()] == [path.name]


def test_a_stand_in_that_is_not_unpacked_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(tool.ToolError, match="cadvisor of bullseye"):
        tool.put_stand_ins(tmp_path, tmp_path / "out", "amd64")
