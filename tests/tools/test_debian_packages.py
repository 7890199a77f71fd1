"""tools/debian_packages.py: reading apt's configuration, choosing mirror and keys, refusing to destroy. No network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import debian_packages as tool

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://mirror.example/debian
# Suites: bullseye
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/one.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/one.gpg
"""
MAIN = tool.Source("http://mirror.example/debian", ("bookworm",), ("main",), "/usr/share/keyrings/one.gpg")


def make_etc_apt(tmp_path: Path, **files: str) -> Path:
    """Write /etc/apt with the given files of sources.list.d (`a__list` is a.list) and return it."""
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        (tmp_path / "sources.list.d" / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return tmp_path


def test_deb822_reads_every_stanza_and_ignores_comments() -> None:
    first, second = tool.parse_deb822(DEB822)
    assert first.uri == "http://mirror.example/debian"
    assert first.suites == ("bookworm", "bookworm-updates")
    assert first.components == ("main", "contrib")
    assert first.signed_by == "/usr/share/keyrings/one.gpg"
    assert second.suites == ("bookworm-security",)


def test_deb822_leaves_out_disabled_and_source_only() -> None:
    text = (
        "Types: deb\nURIs: http://a.example/debian\nSuites: sid\nComponents: main\nEnabled: no\n\n"
        "Types: deb-src\nURIs: http://b.example/debian\nSuites: sid\nComponents: main\n"
    )
    assert tool.parse_deb822(text) == []


def test_deb822_makes_one_source_of_each_address() -> None:
    text = "Types: deb\nURIs: http://a.example/debian http://b.example/debian\nSuites: sid\nComponents: main\n"
    assert [source.uri for source in tool.parse_deb822(text)] == ["http://a.example/debian", "http://b.example/debian"]


def test_deb822_inline_key_survives_to_the_new_stanza() -> None:
    text = (
        "Types: deb\nURIs: http://a.example/debian\nSuites: sid\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n# note: the key\n"
        " .\n mDMEY=\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    (source,) = tool.parse_deb822(text)
    rendered = tool.render_source(source, ["trixie"], known_keyrings=())
    assert (
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY=\n -----END PGP PUBLIC KEY BLOCK-----\n"
        in rendered
    )
    assert tool.parse_deb822(rendered)[0].signed_by == source.signed_by


def test_one_line_reads_options_and_ignores_comments() -> None:
    text = (
        "# deb http://old.example/debian bookworm main\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg,/l.gpg trusted=yes] http://mirror.example/debian bookworm main contrib # x\n"
    )
    (source,) = tool.parse_one_line(text)
    assert source == tool.Source(
        "http://mirror.example/debian", ("bookworm",), ("main", "contrib"), "/k.gpg /l.gpg", (("Trusted", "yes"),)
    )


def test_the_archive_is_found_among_third_parties_and_security(tmp_path: Path) -> None:
    etc_apt = make_etc_apt(
        tmp_path,
        a__list="deb https://third.example/apt stable-tool main\n",
        b__sources="Types: deb\nURIs: https://node.example\nSuites: nodistro\nComponents: main\n",
        c__sources=DEB822,
        d__save="deb http://never.example/debian bookworm main\n",
    )
    sources = tool.read_machine_sources(etc_apt)
    assert tool.find_debian_source(sources).uri == "http://mirror.example/debian"
    assert [source.uri for source in sources if tool.is_debian_security(source)] == [
        "http://security.example/debian-security"
    ]
    assert not any("never.example" in source.uri for source in sources)


def test_sources_list_comes_first(tmp_path: Path) -> None:
    etc_apt = make_etc_apt(tmp_path, c__sources=DEB822)
    (etc_apt / "sources.list").write_text("deb http://first.example/debian sid main\n", encoding="utf-8")
    assert tool.find_debian_source(tool.read_machine_sources(etc_apt)).uri == "http://first.example/debian"


def test_ubuntu_uses_the_bootstrap_tools_mirror_or_says_what_to_do(tmp_path: Path) -> None:
    ubuntu = tool.parse_one_line("deb http://ubuntu.example/ubuntu noble main universe\n")
    bootstrap = tmp_path / "debootstrap"
    bootstrap.write_text('DEF_MIRROR="http://default.example/debian"\n', encoding="utf-8")
    assert tool.find_debian_source(ubuntu, tools=[bootstrap]).uri == "http://default.example/debian"
    assert (
        tool.find_debian_source(ubuntu, "http://mine.example/debian", [bootstrap]).uri == "http://mine.example/debian"
    )
    with pytest.raises(tool.ToolError, match="ALLIN_DEBIAN_MIRROR"):
        tool.find_debian_source(ubuntu, tools=[tmp_path / "missing"])


def test_debians_complete_keyring_is_added_once(tmp_path: Path) -> None:
    complete = tmp_path / "debian-archive-keyring.pgp"
    link = tmp_path / "debian-archive-keyring.gpg"
    complete.touch()
    link.symlink_to(complete)
    known = (complete, link)
    assert tool.keyrings_for("/k/bookworm.gpg", known) == f"/k/bookworm.gpg {complete}"
    assert tool.keyrings_for(str(link), known) == str(link)
    assert tool.keyrings_for("", known) == str(complete)
    assert tool.keyrings_for("/k/bookworm.gpg", [tmp_path / "missing"]) == "/k/bookworm.gpg"


def test_the_new_stanza_keeps_the_archive_and_replaces_the_suite() -> None:
    (source,) = tool.parse_deb822(tool.render_source(MAIN, ["sid"], known_keyrings=()))
    assert (source.uri, source.suites, source.components) == (MAIN.uri, ("sid",), ("main",))
    assert source.signed_by == MAIN.signed_by


def test_image_has_updates_and_security_where_configured() -> None:
    sources = tool.parse_deb822(DEB822)
    wanted = tool.image_sources(sources, "trixie", sources[0])
    assert [(suite, source.uri, needed) for suite, source, needed in wanted] == [
        ("trixie", "http://mirror.example/debian", True),
        ("trixie-updates", "http://mirror.example/debian", False),
        ("trixie-security", "http://security.example/debian-security", False),
    ]


def test_image_gets_the_keyrings_that_debian_does_not_ship() -> None:
    value, own = tool.image_keyring_value(
        "/usr/share/keyrings/debian-archive-bookworm-stable.gpg /etc/apt/keyrings/corporate.gpg"
    )
    assert value == "/usr/share/keyrings/debian-archive-keyring.gpg /etc/apt/keyrings/corporate.gpg"
    assert own == [Path("/etc/apt/keyrings/corporate.gpg")]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ('Acquire::http::Proxy "http://proxy.example:3128";', True),
        ('Acquire::https::proxy "http://proxy.example:3128";', True),
        ('Acquire::http::Proxy::mirror.example "DIRECT";', True),
        ('Acquire::Check-Valid-Until "false";', True),
        ('Acquire::IndexTargets::deb::Packages::MetaKey "x";', False),
        ('DPkg::Post-Invoke:: "rm -f /var/cache/apt/*.bin";', False),
    ],
)
def test_image_gets_the_settings_that_lead_to_the_mirror_only(line: str, kept: bool) -> None:
    assert bool(tool.APT_SETTINGS_FOR_IMAGE.match(line)) is kept


@pytest.mark.parametrize(
    ("printed", "advice"),
    [
        ("W: GPG error: x InRelease: NO_PUBKEY 6ED0E7B82643E131", "debian-archive-keyring"),
        ("E: Unable to locate package promtol", "Check the name"),
        ("E: The repository 'x sid Release' does not have a Release file.", "ALLIN_DEBIAN_MIRROR"),
        ("E: You don't have enough... No space left on device", "disk is full"),
        ("Err:1 http://x sid InRelease Could not connect", "reaches its Debian mirror"),
    ],
)
def test_failure_says_what_to_do(printed: str, advice: str) -> None:
    message = tool.explain_apt_failure(["update"], "sid", 100, [printed])
    assert printed in message
    assert advice in message.splitlines()[-1]


def stamp(target: Path, suite: str, *packages: str) -> None:
    """Make `target` look like a tree that the tool completed."""
    target.mkdir()
    content = {"suite": suite, "packages": dict.fromkeys(packages, "1.0-1")}
    (target / tool.STAMP_NAME).write_text(json.dumps(content), encoding="utf-8")


def test_nothing_is_downloaded_when_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp(tmp_path / "sid", "sid", "prometheus", "promtool")
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get, no dpkg-deb
    assert tool.ensure_packages("sid", tmp_path / "sid", ["promtool"]) == {"prometheus": "1.0-1", "promtool": "1.0-1"}


def test_a_foreign_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(tool.ToolError, match="not made by this tool"):
        tool.ensure_packages("sid", tmp_path / "mine", ["promtool"])
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_another_suites_directory_is_not_replaced(tmp_path: Path) -> None:
    stamp(tmp_path / "tree", "trixie", "prometheus")
    with pytest.raises(tool.ToolError, match="holds packages of trixie"):
        tool.ensure_packages("sid", tmp_path / "tree", ["prometheus"])


def fake_apt(directory: Path, *, broken: bool = False) -> None:
    """Put an apt-get on PATH that "downloads" real but tiny packages, or fails at the download."""
    script = f"""#!/bin/sh
set -e
while [ "$1" != update ] && [ "$1" != download ]; do shift; done
[ "$1" = update ] && exit 0
{"echo 'E: Failed to fetch x  Connection refused'; exit 100" if broken else ""}
shift
for name; do
    mkdir -p "build/$name/DEBIAN" "build/$name/usr/bin"
    printf 'Package: %s\\nVersion: 2.0-1\\nArchitecture: all\\nMaintainer: x <x@y>\\nDescription: x\\n' "$name" \\
        >"build/$name/DEBIAN/control"
    echo tool >"build/$name/usr/bin/$name"
    dpkg-deb --build "build/$name" "${{name}}_2.0-1_all.deb" >/dev/null
done
"""
    path = directory / "apt-get"
    path.write_text(script, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def fake_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory in front of PATH; the mirror is one that nobody can reach."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ALLIN_DEBIAN_MIRROR", "http://mirror.example/debian")
    return directory


def test_a_missing_package_is_added_and_the_others_stay(tmp_path: Path, fake_bin: Path) -> None:
    fake_apt(fake_bin)
    target = tmp_path / "cache" / "sid"
    tool.ensure_packages("sid", target, ["prometheus"])
    versions = tool.ensure_packages("sid", target, ["promtool"])
    assert versions == {"prometheus": "2.0-1", "promtool": "2.0-1"}
    assert sorted(path.name for path in (target / "usr/bin").iterdir()) == ["prometheus", "promtool"]
    assert tool.read_stamp(target) == versions
    assert target.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in target.parent.iterdir()) == [".sid.lock", "sid"]


def test_a_failed_download_leaves_what_was_there(tmp_path: Path, fake_bin: Path) -> None:
    fake_apt(fake_bin)
    target = tmp_path / "sid"
    tool.ensure_packages("sid", target, ["prometheus"])
    fake_apt(fake_bin, broken=True)
    with pytest.raises(tool.ToolError, match="Connection refused"):
        tool.ensure_packages("sid", target, ["promtool"])
    assert (target / "usr/bin/prometheus").is_file()
    assert tool.read_stamp(target) == {"prometheus": "2.0-1"}
    assert not list(tmp_path.glob(".sid.partial-*"))


def test_leftovers_of_a_killed_call_are_removed(tmp_path: Path, fake_bin: Path) -> None:
    fake_apt(fake_bin)
    (tmp_path / ".sid.partial-abc" / "tree").mkdir(parents=True)
    tool.ensure_packages("sid", tmp_path / "sid", ["prometheus"])
    assert not list(tmp_path.glob(".sid.partial-*"))


def test_two_calls_at_once_download_once(tmp_path: Path, fake_bin: Path) -> None:
    fake_apt(fake_bin)
    script = Path(tool.__file__)
    command = [sys.executable, str(script), "--suite", "sid", "--into", str(tmp_path / "sid"), "prometheus"]
    calls = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [call.communicate(timeout=60)[1] for call in calls]
    assert [call.returncode for call in calls] == [0, 0]
    assert sum("downloading" in output for output in outputs) == 1


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--suite", "sid"])
    assert stopped.value.code == 2
