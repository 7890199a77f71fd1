"""The inventory is the truth on every run; what does not work is taken back. Named to run last: it changes Grafana."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from apis import Grafana

HOST = "allin-grafana"
OTHER = "molecule-other-admin-password"


def started(host: Any) -> str:
    """Which process Grafana is: another one after a restart."""
    return str(host.check_output("systemctl show --property MainPID --value grafana"))


def test_another_admin_password_holds_and_what_people_made_stays(
    deploy: Any, url: str, host: Any, admin: Grafana
) -> None:
    """The same Grafana, before and after: nobody throws its data away to change a password."""
    hand = {"dashboard": {"uid": "by-hand", "title": "By hand", "panels": []}, "folderUid": "open", "overwrite": True}
    assert admin.status("POST", "/api/dashboards/db", hand) == 200

    foreseen = deploy("--check", "--diff", grafana_admin_password=OTHER)
    assert foreseen.code == 0, foreseen.output
    assert "the password of admin is set" in foreseen.output
    assert admin.status("GET", "/api/user") == 200

    before = started(host)
    changed = deploy(grafana_admin_password=OTHER)
    assert changed.code == 0, changed.output
    assert started(host) == before
    assert admin.status("GET", "/api/user") == 401
    new = Grafana(url, "admin", OTHER)
    assert new.get("/api/dashboards/uid/by-hand")["dashboard"]["title"] == "By hand"

    again = deploy(grafana_admin_password=OTHER)
    assert again.changed(HOST) == 0, again.output

    assert deploy().code == 0
    assert admin.status("DELETE", "/api/dashboards/uid/by-hand") == 200


@pytest.mark.parametrize("password", ["", "admin", "short-one"])
def test_a_password_that_is_none_is_refused_before_anything_changes(deploy: Any, admin: Grafana, password: str) -> None:
    refused = deploy(grafana_admin_password=password)
    assert refused.code != 0
    assert "grafana_admin_password" in refused.output
    assert admin.status("GET", "/api/user") == 200


def test_no_run_shows_a_secret(deploy: Any) -> None:
    canary = {
        "grafana_users": [{"login": "canary", "password": "canary-password-1"}],
        "grafana_teams": [],
        "grafana_folders": [],
        "grafana_service_accounts": [{"name": "canary", "tokens": [{"name": "one"}]}],
    }
    run = deploy("-vvv", "--diff", **canary)
    assert run.code == 0, run.output
    assert "user canary is added" in run.output
    for secret in ("canary-password-1", "molecule-admin-password", "glsa_"):
        assert secret not in run.output
    assert deploy().code == 0


def test_who_leaves_the_inventory_leaves_grafana(admin: Grafana) -> None:
    """The run before had only a canary, the last one has everybody again."""
    logins = {one["login"] for one in admin.get("/api/users/search?perpage=1000")["users"]}
    assert logins == {"admin", "victor", "edith", "paula", "otto"}
    accounts = admin.get("/api/serviceaccounts/search")["serviceAccounts"]
    assert [one["name"] for one in accounts] == ["reader"]


def test_dashboards_come_and_go_without_a_restart(deploy: Any, host: Any, admin: Grafana, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"uid": f"own-{name}", "title": name, "panels": []}))
    folders = [{"uid": "own", "title": "Own", "path": str(tmp_path)}]
    assert deploy(grafana_dashboards_extra=folders).code == 0
    assert admin.status("GET", "/api/dashboards/uid/own-two") == 200
    before = started(host)

    (tmp_path / "two.json").unlink()
    (tmp_path / "one.json").write_text(json.dumps({"uid": "own-one", "title": "another title", "panels": []}))
    assert deploy(grafana_dashboards_extra=folders).code == 0
    assert admin.status("GET", "/api/dashboards/uid/own-two") == 404
    assert admin.get("/api/dashboards/uid/own-one")["dashboard"]["title"] == "another title"
    assert started(host) == before

    assert deploy().code == 0
    assert admin.status("GET", "/api/dashboards/uid/own-one") == 404


def test_a_dashboard_of_grafana_com_comes_from_the_artifacts_folder(
    deploy: Any, admin: Grafana, tmp_path: Path
) -> None:
    """As grafana.com hands it out: with a hole where the data source belongs, and pinned by its checksum."""
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    content = json.dumps(
        {
            "__inputs": [{"name": "DS_PROMETHEUS", "type": "datasource", "pluginId": "prometheus"}],
            "id": 1860,
            "uid": "of-grafana-com",
            "title": "Of grafana.com",
            "panels": [
                {"type": "stat", "title": "Up", "datasource": source, "targets": [{"expr": "up", "refId": "A"}]}
            ],
        }
    )
    (tmp_path / "grafana-dashboard-1860-37.json").write_text(content)
    archive = Path(os.environ["ALLIN_GRAFANA_ARCHIVE"])
    (tmp_path / archive.name).symlink_to(archive)
    pinned = {"id": 1860, "revision": 37, "sha256": hashlib.sha256(content.encode()).hexdigest()}

    run = deploy(artifacts_dir=str(tmp_path), grafana_dashboards_imported=[pinned])
    assert run.code == 0, run.output
    found = admin.get("/api/dashboards/uid/grafana-com-1860")
    assert found["meta"]["folderTitle"] == "Imported"
    assert found["dashboard"]["panels"][0]["datasource"]["uid"] == "prometheus"

    # Somebody has put another file there.
    (tmp_path / "grafana-dashboard-1860-37.json").write_text(content.replace("Up", "Down"))
    refused = deploy(artifacts_dir=str(tmp_path), grafana_dashboards_imported=[pinned])
    assert refused.code != 0
    assert "grafana-dashboard-1860-37.json" in refused.output
    assert admin.get("/api/dashboards/uid/grafana-com-1860")["dashboard"]["panels"][0]["title"] == "Up"

    assert deploy().code == 0
    assert admin.status("GET", "/api/dashboards/uid/grafana-com-1860") == 404


def test_a_version_that_does_not_work_leaves_the_database_as_it_was(deploy: Any, host: Any, admin: Grafana) -> None:
    """Prevents: the version before on a database that another one has migrated."""
    database = "/var/lib/grafana/grafana.db"
    current = host.check_output("readlink /opt/grafana/current")
    # It migrates the database, and ends.
    broken = (
        "#!/usr/bin/python3\nimport sqlite3\n"
        f"database = sqlite3.connect('{database}')\ndatabase.execute('CREATE TABLE IF NOT EXISTS of_9_9_9 (id int)')\n"
        "database.commit()\nraise SystemExit('this version is broken')\n"
    )
    host.check_output("mkdir -p /opt/grafana/releases/9.9.9/bin")
    host.check_output("printf %s > /opt/grafana/releases/9.9.9/bin/grafana", broken)
    host.check_output("chmod 0755 /opt/grafana/releases/9.9.9/bin/grafana")

    run = deploy(grafana_version="9.9.9", grafana_ready_timeout_seconds=20)
    assert run.code != 0
    assert "this version is broken" in run.output
    assert "What ran before was put back and answers" in run.output
    assert f"the database as {current.rpartition('/')[2]} left it" in run.output
    assert host.check_output("readlink /opt/grafana/current") == current
    found = f"import sqlite3; print(*sqlite3.connect('{database}').iterdump())"
    assert "of_9_9_9" not in host.check_output("python3 -c %s", found)
    assert not host.check_output(f"find {database}.of-* -maxdepth 0 2>/dev/null || true")
    assert host.file(database).user == "grafana"
    assert admin.status("GET", "/api/user") == 200
    host.check_output("rm -r /opt/grafana/releases/9.9.9")
    assert deploy().changed(HOST) == 0


def test_a_setting_that_does_not_work_is_taken_back(deploy: Any, admin: Grafana) -> None:
    # A secret that is not there: Grafana does not start.
    settings = {"smtp": {"password": "$__file{/etc/grafana-secrets/missing}"}}
    broken = deploy(grafana_settings=settings, grafana_ready_timeout_seconds=20)
    assert broken.code != 0
    assert "What ran before was put back" in broken.output
    assert admin.get("/api/health")["database"] == "ok"
    assert admin.status("GET", "/api/user") == 200
    repaired = deploy()
    assert repaired.changed(HOST) == 0, repaired.output
