"""What the role grafana writes: its ini file, roles from groups, and dashboards that Grafana takes."""

from __future__ import annotations

import configparser
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible.plugins.loader import filter_loader, lookup_loader

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.certificates import certificate_and_key

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
    path = role_path({"Viewer": ["everybody"], "Admin": ["platform", "o'neil"]})
    assert path == (
        "(contains(groups[*], 'platform') || contains(groups[*], 'o\\'neil')) && 'Admin' || "
        "(contains(groups[*], 'everybody')) && 'Viewer'"
    )
    assert role_path({"Editor": ["x"]}, groups="realm.groups") == "(contains(realm.groups[*], 'x')) && 'Editor'"


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="Boss"):
        role_path({"Boss": ["x"]})


def test_one_group_as_a_text_is_no_list_of_letters() -> None:
    """Prevents: `Admin: ops`, which made administrators of the groups o, p and s."""
    with pytest.raises(AnsibleFilterError, match=r"roles.Admin must be a list"):
        role_path({"Admin": "ops"})  # type: ignore[dict-item]
    assert role_path({"Viewer": [7]}) == "(contains(groups[*], '7')) && 'Viewer'"  # type: ignore[list-item]


def mistakes(certificate: str, key: str = "") -> list[str]:
    return list(filter_loader.get("grafana_tls_mistakes").j2_function(certificate, key))


def test_a_certificate_and_its_key_have_no_mistakes() -> None:
    certificate, key = certificate_and_key()
    other, _ = certificate_and_key()
    assert mistakes(certificate, key) == mistakes(certificate) == mistakes(certificate + other, key) == []


@pytest.mark.parametrize(
    "command",
    [
        ["ecparam", "-name", "prime256v1", "-genkey"],  # with the curve's parameters before the key
        ["genpkey", "-algorithm", "ED25519"],
        ["genrsa", "-traditional", "2048"],
    ],
    ids=["ec", "ed25519", "rsa"],
)
def test_a_key_in_any_form_that_openssl_writes_is_taken(tmp_path: Path, command: list[str]) -> None:
    key = subprocess.run(["openssl", *command], check=True, capture_output=True, text=True).stdout
    (tmp_path / "key").write_text(key)
    request = ["openssl", "req", "-x509", "-key", str(tmp_path / "key"), "-subj", "/CN=grafana.test"]
    certificate = subprocess.run(request, check=True, capture_output=True, text=True).stdout
    assert mistakes(certificate, key) == []


def test_what_is_wrong_with_a_certificate_and_its_key_is_said_without_showing_them() -> None:
    (certificate, key), (other, stranger), (_, locked) = (certificate_and_key(word) for word in ("", "", "passphrase"))
    (said,) = mistakes("SECRET", key)
    assert "grafana_tls_certificate is not a certificate as PEM text" in said
    (said,) = mistakes(certificate, "SECRET")
    assert "grafana_tls_key is not a private key as PEM text" in said
    # What a terminal makes of it: no line breaks.
    assert len(mistakes(certificate.replace("\n", " "), key.replace("\n", " "))) == 2
    (said,) = mistakes(certificate, stranger)
    assert "grafana_tls_key is not the key of grafana_tls_certificate" in said
    (said,) = mistakes(other + certificate, key)
    assert "Put it first" in said
    (said,) = mistakes(certificate, locked)
    assert "grafana_tls_key is encrypted" in said
    assert "SECRET" not in said


def test_what_is_there_twice_is_named_once() -> None:
    repeated = filter_loader.get("grafana_repeated").j2_function
    assert repeated(["a", "b", "a", "a", "", ""]) == ["a"]
    assert repeated(["A@x", "a@X"], fold=True) == ["a@x"]
    assert repeated(["A", "a"]) == []


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
