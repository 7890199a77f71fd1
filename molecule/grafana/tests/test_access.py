"""Who may do what, found out by signing in."""

from __future__ import annotations

import http.cookiejar
import json
import urllib.request
from typing import Any

import pytest
from apis import Grafana

# What each person may do in each folder: r reads, e edits, a administers. Everybody else is in `grafana_users`.
MATRIX = {
    #          open   payments closed ediths
    "admin": ("rea", "rea", "rea", "rea"),
    "victor": ("r", "r", "", ""),
    "edith": ("re", "", "", "rea"),
    "paula": ("r", "re", "", ""),
    "otto": ("", "re", "", ""),
}
FOLDERS = ("open", "payments", "closed", "ediths")


def dashboard(folder: str, uid: str) -> dict[str, Any]:
    """What saves a dashboard into a folder."""
    return {"dashboard": {"uid": uid, "title": uid, "panels": []}, "folderUid": folder, "overwrite": True}


@pytest.mark.parametrize(
    ("login", "folder", "may"),
    [(login, folder, may) for login, row in MATRIX.items() for folder, may in zip(FOLDERS, row, strict=True)],
)
def test_the_matrix(admin: Grafana, person: Any, login: str, folder: str, may: str) -> None:
    somebody = person(login)
    read = somebody.status("GET", f"/api/folders/{folder}")
    assert (read == 200) == ("r" in may), f"reads: {read}"
    assert read in (200, 403)

    uid = f"by-{login}-in-{folder}"
    edit = somebody.status("POST", "/api/dashboards/db", dashboard(folder, uid))
    assert (edit == 200) == ("e" in may), f"edits: {edit}"
    if edit == 200:
        assert admin.status("DELETE", f"/api/dashboards/uid/{uid}") == 200
    else:
        assert edit == 403

    # The same list again, so that it stays what it is.
    items = [
        {key: one[key] for key in ("userId", "teamId", "role", "permission") if one.get(key)}
        for one in admin.get(f"/api/folders/{folder}/permissions")
    ]
    rule = somebody.status("POST", f"/api/folders/{folder}/permissions", {"items": items})
    assert (rule == 200) == ("a" in may), f"administers: {rule}"
    assert rule in (200, 403)


@pytest.mark.parametrize(
    "path", ["/api/search", "/api/folders", "/api/datasources", "/api/org", "/api/dashboards/home", "/api/users/search"]
)
def test_nobody_sees_anything_without_signing_in(nobody: Grafana, path: str) -> None:
    assert nobody.status("GET", path) == 401


def test_nobody_makes_an_account_or_a_snapshot(nobody: Grafana) -> None:
    assert nobody.status("POST", "/api/user/signup", {"email": "x@mail.test"}) in (401, 403, 404)
    assert nobody.status("POST", "/api/snapshots", {"dashboard": {}}) in (401, 403, 404)


def test_a_known_password_is_refused(url: str) -> None:
    assert Grafana(url, "admin", "admin").status("GET", "/api/user") == 401


def test_a_viewer_cannot_save_a_provisioned_dashboard(admin: Grafana, person: Any) -> None:
    """Nor can an administrator: what is code is changed in the code."""
    found = admin.get("/api/search?type=dash-db&folderUIDs=allin-platform")
    one = admin.get(f"/api/dashboards/uid/{found[0]['uid']}")
    body = {"dashboard": one["dashboard"] | {"title": "changed"}, "folderUid": one["meta"]["folderUid"]}
    assert person("victor").status("POST", "/api/dashboards/db", body) == 403
    assert admin.status("POST", "/api/dashboards/db", body) == 400


def test_a_session_s_cookie_is_closed_to_scripts(url: str) -> None:
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    body = json.dumps({"user": "victor", "password": "molecule-victor-password"}).encode()
    request = urllib.request.Request(f"{url}/login", data=body, headers={"Content-Type": "application/json"})
    opener.open(request, timeout=10).close()
    (session,) = [one for one in jar if one.name == "grafana_session"]
    assert session.has_nonstandard_attr("HttpOnly")
    assert session.get_nonstandard_attr("SameSite") == "Lax"


def test_a_token_reads_and_writes_nothing(host: Any, url: str) -> None:
    file = host.file("/etc/grafana-access/tokens/reader.test")
    assert (file.user, file.mode) == ("root", 0o600)
    reader = Grafana(url, "token", file.content_string.strip())
    assert reader.status("GET", "/api/folders/open") == 200
    assert reader.status("GET", "/api/folders/payments") == 403
    assert reader.status("POST", "/api/dashboards/db", dashboard("open", "by-token")) == 403


def test_secrets_are_for_the_service_alone(host: Any) -> None:
    for name in ("admin-password", "secret-key"):
        file = host.file(f"/etc/grafana-secrets/{name}")
        assert (file.user, file.group, file.mode) == ("root", "grafana", 0o640)
    assert host.file("/etc/grafana-access").mode == 0o700
    assert host.file("/var/lib/grafana").mode == 0o750
    words = host.check_output(
        "cat /proc/$(systemctl show --property MainPID --value grafana)/{cmdline,environ} | tr '\\0' ' '"
    )
    assert "molecule-" not in words
    assert host.run("journalctl -u grafana --no-pager | grep -c 'molecule-.*-password'").stdout.strip() == "0"
