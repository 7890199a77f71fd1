"""`check_rule_files`: rules of the user that Prometheus would never read, and those that would replace others."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.action.check_rule_files import problems

OURS = ["20-backend.rules.yml", "90-probe.rules.yml"]


def look(*patterns: str) -> list[str]:
    """Check what these patterns find."""
    found = [
        {"pattern": pattern, "paths": [str(one) for one in Path("/").glob(pattern.lstrip("/")) if one.is_file()]}
        for pattern in patterns
    ]
    return list(problems(found, OURS))


def rules(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("groups: []\n")


def test_good_files_are_accepted_and_so_are_two_patterns_that_find_one(tmp_path: Path) -> None:
    """Prevents: a check that refuses everything."""
    rules(tmp_path, "a.yml", "b.rules.yml", "90-mine.rules.yml")
    (tmp_path / "same.yml").symlink_to(tmp_path / "a.yml")
    assert look(f"{tmp_path}/*.yml", f"{tmp_path}/a.yml") == []
    assert look() == []


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("none/*.yml", "finds no file on this machine"),
        ("*/a.yml", "wildcard in its directory"),
        ("team-?/*.yml", "wildcard in its directory"),
        ("team-a", "/team-a/*.yml']"),
    ],
)
def test_a_pattern_that_finds_nothing_is_named(tmp_path: Path, pattern: str, words: str) -> None:
    rules(tmp_path, "team-a/a.yml", "good.yml")
    found = look(f"{tmp_path}/good.yml", f"{tmp_path}/{pattern}")
    assert len(found) == 1
    assert found[0].startswith(f"prometheus_rule_files[1]: {tmp_path}/{pattern}")
    assert words in found[0]
    assert "prometheus_rule_files: ['" in found[0]


def test_the_home_directory_is_written_out() -> None:
    assert "~ is not expanded" in look("~/rules/*.yml")[0]


@pytest.mark.parametrize(
    ("name", "new"), [("a.yaml", "a.yml"), ("a.rules", "a.rules.yml"), ("a.yml.bak", "a.yml.bak.yml")]
)
def test_a_name_that_prometheus_does_not_read_is_named(tmp_path: Path, name: str, new: str) -> None:
    rules(tmp_path, name)
    found = look(f"{tmp_path}/*")
    assert len(found) == 1
    assert f"{tmp_path}/{name}" in found[0]
    assert f"Rename it to {new};" in found[0]
    assert f"prometheus_rule_files: ['{tmp_path}/*.yml']" in found[0]


@pytest.mark.parametrize("name", OURS)
def test_a_name_of_ours_is_named(tmp_path: Path, name: str) -> None:
    """Prevents: alerts of the role that are gone because a user's file replaced theirs."""
    rules(tmp_path, name)
    (found,) = look(f"{tmp_path}/*.yml")
    assert f"{tmp_path}/{name} has the name of a file of this repository" in found
    assert "Rename it, for example to 95-" in found


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    rules(tmp_path, "one/a.yml", "two/a.yml")
    (found,) = look(f"{tmp_path}/one/*.yml", f"{tmp_path}/two/*.yml")
    assert found.startswith(f"prometheus_rule_files[1]: {tmp_path}/two/a.yml has the same name as {tmp_path}/one/a.yml")
    assert "for example to two-a.yml" in found
