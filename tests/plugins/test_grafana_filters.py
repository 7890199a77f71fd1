"""What the role grafana writes: its ini file, roles from groups, and dashboards that Grafana takes."""

from __future__ import annotations

import configparser
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible.plugins.loader import filter_loader, lookup_loader

FOLDER = Path(__file__).parents[2] / "plugins"
filter_loader.add_directory(str(FOLDER / "filter"))
lookup_loader.add_directory(str(FOLDER / "lookup"))


def ini(settings: dict[str, Any]) -> str:
    return str(filter_loader.get("grafana_ini").j2_function(settings))


def role_path(roles: dict[str, list[str]], **options: str) -> str:
    return str(filter_loader.get("grafana_role_path").j2_function(roles, **options))


def dashboards(*sources: dict[str, Any]) -> dict[str, str]:
    """The files that the lookup makes of sources."""
    (found,) = lookup_loader.get("grafana_dashboards").run(list(sources), variables={})
    return dict(found)


def test_settings_become_sections_in_their_order() -> None:
    text = ini({"server": {"http_port": 3001, "enforce_domain": False}, "DEFAULT": {"app_mode": "production"}})
    assert text == "app_mode = production\n\n[server]\nhttp_port = 3001\nenforce_domain = false"


def test_null_takes_a_setting_or_a_section_away() -> None:
    assert ini({"a": {"x": None, "y": ""}, "b": None, "c": {"z": None}}) == "[a]\ny ="


@pytest.mark.parametrize("value", ["a;b", "a#b", 'say "x"', "back`tick", " padded ", "a\\b"])
def test_what_means_something_to_the_format_is_quoted(value: str) -> None:
    """Prevents: a password or a filter that ends at its first semicolon."""
    parser = configparser.RawConfigParser()
    parser.read_string(ini({"s": {"key": value}}))
    assert parser["s"]["key"] == f'"""{value}"""'


@pytest.mark.parametrize("value", ["two\nlines", 'three """ quotes', ["a"], {"a": 1}])
def test_what_the_format_cannot_hold_is_refused_by_name(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match=r"grafana_settings: s\.key"):
        ini({"s": {"key": value}})


def test_the_strongest_role_of_somebody_s_groups_counts() -> None:
    path = role_path({"Viewer": ["everybody"], "Admin": ["platform", "o'neil"]}, default="Viewer")
    assert path == (
        "(contains(groups[*], 'platform') || contains(groups[*], 'o\\'neil')) && 'Admin' || "
        "(contains(groups[*], 'everybody')) && 'Viewer' || 'Viewer'"
    )
    assert role_path({"Editor": ["x"]}, groups="realm.groups") == "(contains(realm.groups[*], 'x')) && 'Editor'"


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="Boss"):
        role_path({"Boss": ["x"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one.json").write_text('{"uid": "one", "title": "One"}')
    (tmp_path / "README").write_text("no dashboard")
    return tmp_path


def test_a_directory_s_dashboards_come_as_they_are(folder: Path) -> None:
    assert dashboards({"folder": "mine", "path": str(folder)}) == {"mine/one.json": '{"uid": "one", "title": "One"}'}


def test_a_missing_directory_is_refused_unless_it_may_be(tmp_path: Path) -> None:
    source = {"folder": "mine", "path": str(tmp_path / "none")}
    assert dashboards(source | {"optional": True}) == {}
    with pytest.raises(AnsibleError, match="is no directory with dashboards"):
        dashboards(source)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is no dashboard"),
        ('{"uid": "x"}', "is no dashboard"),
        ('{"title": "X"}', "has no uid"),
        ('{"uid": "one", "title": "X"}', "the same uid one"),
    ],
)
def test_what_grafana_would_only_complain_about_in_its_log_is_refused(folder: Path, content: str, said: str) -> None:
    (folder / "two.json").write_text(content)
    with pytest.raises(AnsibleError, match=said):
        dashboards({"folder": "mine", "path": str(folder)})


IMPORTED = {
    "__inputs": [
        {"name": "DS_PROMETHEUS", "type": "datasource", "pluginId": "prometheus"},
        {"name": "VAR_JOB", "type": "constant", "value": "node"},
    ],
    "__requires": [{"type": "grafana"}],
    "id": 5,
    "uid": "theirs",
    "title": "Node",
    "panels": [{"datasource": {"uid": "${DS_PROMETHEUS}"}, "targets": [{"expr": 'up{job="${VAR_JOB}",x="${other}"}'}]}],
}


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "grafana-dashboard-1860-42.json"
    path.write_text(json.dumps(IMPORTED))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"folder": "imported", "path": str(path), "id": 1860, "revision": 42, "sha256": digest}


def test_an_imported_dashboard_is_filled_in_and_has_a_uid_of_its_own(source: dict[str, Any]) -> None:
    dashboard = json.loads(dashboards(source)["imported/1860.json"])
    assert dashboard == {
        "uid": "grafana-com-1860",
        "title": "Node",
        "panels": [{"datasource": {"uid": "prometheus"}, "targets": [{"expr": 'up{job="node",x="${other}"}'}]}],
    }


def test_an_imported_dashboard_with_another_checksum_is_refused(source: dict[str, Any]) -> None:
    with pytest.raises(AnsibleError, match="pinned is 0000"):
        dashboards(source | {"sha256": "0" * 64})


def test_an_imported_dashboard_that_is_missing_is_refused_with_its_address(source: dict[str, Any]) -> None:
    with pytest.raises(AnsibleError, match="dashboards/1860/revisions/42/download"):
        dashboards(source | {"path": "/nonexistent.json"})
