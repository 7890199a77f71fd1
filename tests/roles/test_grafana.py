"""What the role grafana writes, rendered by Ansible itself from the role's defaults and an inventory's variables."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plugins.fake_grafana import FakeGrafana, running

ROOT = Path(__file__).parents[2]
SECRETS = {
    "grafana_admin_password": "SECRET-admin-password",
    "grafana_secret_key": "SECRET-key",
    "grafana_database": {
        "type": "postgres",
        "host": "db.test:5432",
        "name": "grafana",
        "user": "grafana",
        "password": "SECRET-database",
        "ssl_mode": "verify-full",
    },
    "grafana_oidc": {
        "client_id": "grafana",
        "client_secret": "SECRET-oidc",
        "auth_url": "https://id.test/authorize",
        "token_url": "https://id.test/token",
        "api_url": "https://id.test/userinfo",
        "roles": {"Admin": ["platform"], "Viewer": ["everybody"]},
    },
    "grafana_ldap": {
        "host": "ldap.test",
        "bind_dn": 'cn=grafana,ou="a b",dc=test',
        "bind_password": "SECRET\"ldap\\'s",
        "search_base_dns": ["dc=test"],
        "group_search_filter": "(member=%s)",
        "group_search_base_dns": ["ou=groups,dc=test"],
        "group_mappings": [
            {"group_dn": "cn=platform,dc=test", "role": "Admin", "grafana_admin": True},
            {"group_dn": "*", "role": "Viewer"},
        ],
    },
    "grafana_tls_certificate": "-----BEGIN CERTIFICATE-----",
    "grafana_tls_key": "SECRET-tls",
    "grafana_extra_secrets": {"smtp": "SECRET-smtp"},
    "grafana_settings": {
        "smtp": {"enabled": True, "password": "$__file{/etc/grafana-secrets/smtp}"},
        "users": {"default_theme": "light"},
    },
    "grafana_root_url": "https://grafana.test/monitoring/",
}


class Rendered:
    """The files, parsed."""

    def __init__(self, folder: Path) -> None:
        """Read the files of a folder."""
        self.text = "\n".join(path.read_text() for path in sorted(folder.iterdir()) if path.name != "facts.json")
        self.ini = configparser.RawConfigParser()
        self.ini.read(folder / "grafana.ini")
        self.datasources = yaml.safe_load((folder / "datasources.yml").read_text())
        self.providers = yaml.safe_load((folder / "dashboards.yml").read_text())["providers"]
        self.facts = json.loads((folder / "facts.json").read_text())
        ldap = folder / "ldap.toml"
        # As Grafana does it: first the secrets, then the format.
        secret = SECRETS["grafana_ldap"]["bind_password"]  # type: ignore[index]
        filled = re.sub(r"\$__file\{[^}]+\}", lambda _: secret, ldap.read_text() if ldap.exists() else "")
        self.ldap = tomllib.loads(filled)


def render(folder: Path, **settings: Any) -> Rendered:
    """Render with these variables."""
    role = ROOT / "roles/grafana"
    variables = {"role": str(role), "destination": str(folder), "__grafana_shipped_dir": str(role / "files/dashboards")}
    run = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            "localhost,",
            "-e",
            json.dumps(variables | settings),
            "tests/roles/render_grafana.yml",
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return Rendered(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """The defaults, as far as there are any."""
    return render(
        tmp_path_factory.mktemp("plain"),
        grafana_admin_password="SECRET-admin-password",
        grafana_secret_key="SECRET-key",
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Everything that can be switched on."""
    own = tmp_path_factory.mktemp("own")
    (own / "one.json").write_text('{"uid": "one", "title": "One"}')
    extra = [{"uid": "payments", "title": "Payments", "path": str(own)}]
    return render(
        tmp_path_factory.mktemp("full"), grafana_dashboards_extra=extra, grafana_alertmanager_url="", **SECRETS
    )


def test_nobody_gets_in_without_signing_in(plain: Rendered) -> None:
    ini = plain.ini
    assert not ini.getboolean("auth.anonymous", "enabled")
    assert not ini.getboolean("users", "allow_sign_up")
    assert ini["users"]["auto_assign_org_role"] == "Viewer"
    assert not ini.getboolean("snapshots", "enabled")
    assert not ini.getboolean("public_dashboards", "enabled")
    assert not ini.getboolean("security", "allow_embedding")


def test_nothing_is_told_to_the_outside(plain: Rendered) -> None:
    ini = plain.ini
    assert not any(ini.getboolean("analytics", name) for name in ini["analytics"])
    assert not ini.getboolean("news", "news_feed_enabled")
    assert ini.getboolean("security", "disable_gravatar")
    assert ini.getboolean("plugins", "preinstall_disabled")


def test_every_setting_of_ours_is_one_that_grafana_knows() -> None:
    """Prevents: a safe setting that is misspelled, which Grafana passes over. Names from 12.4's conf/defaults.ini."""
    known = (ROOT / "tests/roles/grafana-12.4-settings.txt").read_text().split()
    settings = yaml.safe_load((ROOT / "roles/grafana/vars/main.yml").read_text())["__grafana_settings_safe"]
    ours = {f"{section}/{key}" for section, entries in settings.items() for key in entries}
    assert ours <= set(known)


def test_cookies_go_over_tls_alone_where_people_come_over_tls(plain: Rendered, full: Rendered) -> None:
    assert not plain.ini.getboolean("security", "cookie_secure")
    assert full.ini.getboolean("security", "cookie_secure")
    assert full.ini["server"]["cert_key"] == "/etc/grafana-secrets/tls-key.pem"
    assert full.facts["api"] == "https://127.0.0.1:3001/monitoring"
    assert full.ini.getboolean("server", "serve_from_sub_path")


def test_a_certificate_that_is_renewed_on_the_host_is_read_again(plain: Rendered, full: Rendered) -> None:
    """Prevents: a Grafana that serves what has expired, although its file was renewed in time."""
    assert full.ini["server"]["certs_watch_interval"] == "1m"
    assert "certs_watch_interval" not in plain.ini["server"]
    assert "server/certs_watch_interval" in (ROOT / "tests/roles/grafana-12.4-settings.txt").read_text().split()


def test_no_secret_is_outside_of_its_file(full: Rendered) -> None:
    """Prevents: a password in a file that is shown in a diff."""
    assert "SECRET" not in full.text
    named = set(re.findall(r"\$__file\{/etc/grafana-secrets/([^}]+)\}", full.text))
    assert named == {
        "admin-password",
        "secret-key",
        "database-password",
        "oidc-client-secret",
        "ldap-bind-password",
        "smtp",
    }
    assert named < set(full.facts["secrets"])


def test_an_inventory_s_settings_are_merged_over_the_role_s(full: Rendered) -> None:
    assert full.ini["users"]["default_theme"] == "light"
    assert full.ini["users"]["auto_assign_org_role"] == "Viewer"
    assert full.ini["database"]["ssl_mode"] == "verify-full"


def test_openid_connect_lets_in_those_who_have_a_role(full: Rendered) -> None:
    section = full.ini["auth.generic_oauth"]
    assert section["role_attribute_path"].strip('"') == (
        "(contains(groups[*], 'platform')) && 'Admin' || (contains(groups[*], 'everybody')) && 'Viewer'"
    )
    assert section.getboolean("role_attribute_strict")
    assert section.getboolean("use_pkce")
    assert "roles" not in section


def test_whom_openid_connect_finds_no_role_for_gets_the_default_role(tmp_path: Path, full: Rendered) -> None:
    """Prevents: everybody's role is the default one, where the ID token has no groups and the user info has them."""
    oidc = SECRETS["grafana_oidc"] | {"default_role": "Editor"}  # type: ignore[operator]
    ini = render(tmp_path, **SECRETS | {"grafana_oidc": oidc}).ini
    assert ini["users"]["auto_assign_org_role"] == "Editor"
    assert not ini.getboolean("auth.generic_oauth", "role_attribute_strict")
    assert ini["auth.generic_oauth"]["role_attribute_path"] == full.ini["auth.generic_oauth"]["role_attribute_path"]


def test_ldap_maps_groups_to_roles(full: Rendered) -> None:
    (server,) = full.ldap["servers"]
    assert server["bind_dn"] == SECRETS["grafana_ldap"]["bind_dn"]  # type: ignore[index]
    assert server["bind_password"] == SECRETS["grafana_ldap"]["bind_password"]  # type: ignore[index]
    assert server["use_ssl"] is True
    assert [one["org_role"] for one in server["group_mappings"]] == ["Admin", "Viewer"]
    assert server["group_mappings"][0]["grafana_admin"] is True
    assert (server["group_search_filter"], server["group_search_base_dns"]) == ("(member=%s)", ["ou=groups,dc=test"])
    assert "group_search_filter_user_attribute" not in server
    assert full.ini["auth.ldap"]["config_file"] == "/etc/grafana/ldap.toml"


def test_data_sources_have_stable_uids_and_go_when_they_leave(plain: Rendered, full: Rendered) -> None:
    assert plain.datasources["prune"] is True
    found = {one["uid"]: one for one in plain.datasources["datasources"]}
    assert set(found) == {"prometheus", "alertmanager"}
    assert found["prometheus"]["isDefault"] is True
    assert found["prometheus"]["jsonData"]["timeInterval"] == "15s"
    assert found["alertmanager"]["jsonData"]["implementation"] == "prometheus"
    assert [one["uid"] for one in full.datasources["datasources"]] == ["prometheus"]


def test_folders_with_dashboards_are_provisioned(plain: Rendered, full: Rendered) -> None:
    shipped = {path.parent.name for path in (ROOT / "roles/grafana/files/dashboards").glob("*/*.json")}
    assert {one["options"]["path"].rpartition("/")[2] for one in plain.providers} == shipped
    ours = next(one for one in full.providers if one["folderUid"] == "payments")
    assert ours["options"]["path"] == "/etc/grafana-dashboards/payments"
    assert not ours["allowUiUpdates"]
    assert not ours["disableDeletion"]


def test_hosts_that_share_a_database_leave_each_other_s_tokens_alone(tmp_path: Path) -> None:
    """Prevents: tokens that are made anew in every run, on one host after the other."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"one": {}, "two": {}}}}))
    with running(FakeGrafana("password-of-a-test")) as grafana:
        variables = {
            "role": str(ROOT / "roles/grafana"),
            "__grafana_api": grafana.url,
            "grafana_admin_password": "password-of-a-test",
            "grafana_access_host": "one",
            "grafana_access_dir": str(tmp_path / "{{ inventory_hostname }}"),
            "grafana_service_accounts": [{"name": "deploy", "role": "Viewer", "tokens": [{"name": "ci"}]}],
        }
        command = [
            "ansible-playbook",
            "-i",
            str(inventory),
            "-e",
            json.dumps(variables),
            "tests/roles/access_grafana.yml",
        ]
        first, again = (
            subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True) for _ in range(2)
        )
        (account,) = grafana.accounts.values()
    assert first.returncode == again.returncode == 0, first.stdout + again.stdout
    assert "changed=1" in first.stdout
    assert "changed=1" not in again.stdout
    assert "are set on one" in again.stdout
    assert [token["key"] for token in account["tokens"].values()] == [
        (tmp_path / "one/tokens/deploy.ci").read_text().strip()
    ]
    assert not (tmp_path / "two").exists()
