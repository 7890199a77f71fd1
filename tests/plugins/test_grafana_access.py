"""The module `grafana_access` brings Grafana to what is asked for, and touches nothing where nothing differs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.plugins.fake_grafana import FakeGrafana, running

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "plugins/modules/grafana_access.py"
ADMIN = "admin-password-A"
PASSWORD = "annas-own-password"

Result = dict[str, Any]
Run = Callable[..., Result]

ESTATE: dict[str, Any] = {
    "users": [
        {"login": "anna", "email": "anna@mail.test", "password": PASSWORD, "role": "Editor"},
        {"login": "otto", "password": "ottos-own-password"},
    ],
    "teams": [{"name": "payments", "members": ["anna"]}],
    "folders": [
        {"uid": "payments", "title": "Payments", "permissions": [{"team": "payments", "permission": "edit"}]},
        {
            "uid": "shipped",
            "permissions": [{"role": "Viewer", "permission": "view"}, {"user": "otto", "permission": "admin"}],
        },
    ],
    "service_accounts": [{"name": "deploy", "role": "Editor", "tokens": [{"name": "ci"}]}],
}


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with running(FakeGrafana(ADMIN)) as one:
        one.add_folder({"uid": "shipped", "title": "Shipped"})
        yield one


def load() -> ModuleType:
    """The module, as Python imports it."""
    spec = importlib.util.spec_from_file_location("grafana_access", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE_CODE = load()


@pytest.fixture
def arguments(grafana: FakeGrafana, tmp_path: Path) -> dict[str, Any]:
    """What every run says; the tool stands for Grafana's own, and writes down what it is told."""
    tool = tmp_path / "tool.sh"
    tool.write_text(f"#!/bin/sh\ncat > {tmp_path}/typed\necho 'Admin password changed successfully'\n")
    tool.chmod(0o755)
    return {
        "url": grafana.url,
        "admin_user": "admin",
        "admin_password": ADMIN,
        "reset_command": [str(tool)],
        "state_dir": str(tmp_path / "state"),
    }


@pytest.fixture
def access(grafana: FakeGrafana, arguments: dict[str, Any]) -> Run:
    """Run the module's work in this process, which is quick."""

    def run(*, check: bool = False, fails: bool = False, **asked: Any) -> Result:
        validated = ArgumentSpecValidator(MODULE_CODE.specification()).validate(arguments | asked)
        assert not validated.error_messages
        grafana.requests.clear()
        access = MODULE_CODE.Access(validated.validated_parameters, check_mode=check)
        if fails:
            with pytest.raises(MODULE_CODE.AccessError) as failure:
                access.run()
            return {**MODULE_CODE.outcome(access), "msg": str(failure.value)}
        access.run()
        return dict(MODULE_CODE.outcome(access))

    return run


def test_everything_is_made_once(access: Run, grafana: FakeGrafana) -> None:
    assert access(**ESTATE)["changed"]
    assert grafana.user("anna") | {"role": "Editor", "email": "anna@mail.test"} == grafana.user("anna")
    assert grafana.user("otto")["role"] == "Viewer"
    (team,) = grafana.teams.values()
    assert team["members"] == [grafana.user("anna")["id"]]
    assert grafana.folders["payments"]["items"] == [{"teamId": team["id"], "permission": 2}]
    assert {"userId": grafana.user("otto")["id"], "permission": 4} in grafana.folders["shipped"]["items"]
    (account,) = grafana.accounts.values()
    assert account["role"] == "Editor"

    again = access(**ESTATE)
    assert not again["changed"]
    assert again["changes"] == grafana.changes() == []
    assert again["requests"] == len(grafana.requests) <= 14


def test_check_mode_says_what_a_run_does_and_does_nothing(access: Run, grafana: FakeGrafana, tmp_path: Path) -> None:
    foreseen = access(check=True, **ESTATE)["changes"]
    assert grafana.changes() == []
    assert not (tmp_path / "state").exists()
    assert foreseen == access(**ESTATE)["changes"]
    assert access(check=True, **ESTATE)["changes"] == []


def test_what_leaves_the_inventory_leaves_grafana(access: Run, grafana: FakeGrafana, tmp_path: Path) -> None:
    access(**ESTATE)
    grafana.add_user({"login": "made-by-hand", "password": "x"})
    result = access()
    assert {one["login"] for one in grafana.users.values()} == {"admin", "made-by-hand"}
    assert result["foreign"] == ["made-by-hand"]
    assert grafana.teams == grafana.accounts == {}
    assert "payments" not in grafana.folders
    # The shipped one stays, and has again what Grafana gives a new one.
    assert sorted(map(str, grafana.folders["shipped"]["items"])) == [
        "{'role': 'Editor', 'permission': 2}",
        "{'role': 'Viewer', 'permission': 1}",
    ]
    assert list((tmp_path / "state/tokens").iterdir()) == []
    assert not access()["changed"]


def test_a_folder_with_something_in_it_stays(access: Run, grafana: FakeGrafana) -> None:
    access(**ESTATE)
    grafana.folders["payments"]["dashboards"] = 1
    assert access()["pending"] == ["folder payments goes when it is empty"]
    grafana.folders["payments"]["dashboards"] = 0
    assert access()["changes"] == ["folder payments is removed"]


def test_exclusive_removes_whom_nobody_asked_for_but_not_whom_another_service_signs_in(
    access: Run, grafana: FakeGrafana
) -> None:
    grafana.add_user({"login": "made-by-hand", "password": "x"})
    grafana.add_user({"login": "from-ldap", "password": "y", "authLabels": ["LDAP"]})
    result = access(users_exclusive=True)
    assert result["changes"] == ["user made-by-hand is removed"]
    assert result["foreign"] == ["from-ldap"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"role": "Admin"}, "user otto is Viewer, was Admin"),
        ({"isAdmin": True}, "user otto no longer administers the server"),
        ({"isDisabled": True}, "user otto is enabled"),
        ({"password": "guessed"}, "the password of otto is set"),
        ({"role": None}, "user otto joins the organisation as Viewer"),
    ],
)
def test_what_somebody_changed_by_hand_is_put_back(
    access: Run, grafana: FakeGrafana, change: dict[str, Any], sentence: str
) -> None:
    access(**ESTATE)
    grafana.user("otto").update(change)
    assert access(**ESTATE)["changes"] == [sentence]
    assert not access(**ESTATE)["changed"]


def test_a_permission_that_somebody_added_by_hand_goes(access: Run, grafana: FakeGrafana) -> None:
    access(**ESTATE)
    grafana.folders["payments"]["items"].append({"role": "Viewer", "permission": 4})
    assert access(**ESTATE)["changes"] == ["folder payments gets its permissions"]
    assert len(grafana.folders["payments"]["items"]) == 1


def test_people_may_keep_the_password_that_they_chose(access: Run, grafana: FakeGrafana) -> None:
    asked = [{"login": "anna", "password": PASSWORD, "update_password": "on_create"}]
    access(users=asked)
    grafana.user("anna")["password"] = "her own"
    assert not access(users=asked)["changed"]


def test_an_empty_list_of_permissions_is_for_administrators_alone(access: Run, grafana: FakeGrafana) -> None:
    access(folders=[{"uid": "shipped", "permissions": []}])
    assert grafana.folders["shipped"]["items"] == []
    assert not access(folders=[{"uid": "shipped", "permissions": []}])["changed"]


def test_who_has_not_signed_in_yet_is_waited_for(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: a run that fails because somebody of the identity provider has not come yet."""
    estate = {
        "users": [{"login": "olga", "role": "Editor"}],
        "teams": [{"name": "payments", "members": ["olga"]}],
        "folders": [{"uid": "shipped", "permissions": [{"user": "olga", "permission": "view"}]}],
    }
    assert len(access(**estate)["pending"]) == 3
    grafana.add_user({"login": "olga", "password": "z", "authLabels": ["OAuth"], "role": "Editor"})
    result = access(**estate)
    assert result["pending"] == []
    assert len(result["changes"]) == 2
    assert not access(**estate)["changed"]


@pytest.mark.parametrize("harm", ["file", "key", "expired", "gone"])
def test_a_token_that_does_not_hold_is_made_anew(access: Run, grafana: FakeGrafana, tmp_path: Path, harm: str) -> None:
    access(**ESTATE)
    file = tmp_path / "state/tokens/deploy.ci"
    before = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    (account,) = grafana.accounts.values()
    (token,) = account["tokens"].values()
    if harm == "file":
        file.unlink()
    elif harm == "key":
        file.write_text("glsa_other\n")
    elif harm == "expired":
        token["hasExpired"] = True
    else:
        account["tokens"].clear()
    assert access(**ESTATE)["changes"] == ["token deploy.ci is made"]
    assert file.read_text() != before
    assert not access(**ESTATE)["changed"]


def test_a_token_that_leaves_the_inventory_goes_and_one_made_by_hand_stays(
    access: Run, grafana: FakeGrafana, tmp_path: Path
) -> None:
    access(**ESTATE)
    (account,) = grafana.accounts.values()
    grafana.add_token({"name": "by-hand"}, str(account["id"]))
    less = ESTATE | {"service_accounts": [{"name": "deploy", "role": "Editor"}]}
    assert access(**less)["changes"] == ["token deploy.ci is removed"]
    assert [one["name"] for one in account["tokens"].values()] == ["by-hand"]
    assert not (tmp_path / "state/tokens/deploy.ci").exists()


def test_another_admin_password_is_set_by_grafana_s_own_tool(access: Run, grafana: FakeGrafana, tmp_path: Path) -> None:
    """The fake does not change its password, so that the module has to say that it still cannot sign in."""
    result = access(admin_password="admin-password-B", fails=True)
    assert (tmp_path / "typed").read_text() == "admin-password-B\n"
    assert "wait five minutes" in result["msg"]
    assert access(check=True, admin_password="admin-password-B")["changes"] == ["the password of admin is set"]


def test_a_failing_tool_is_quoted_without_the_password(access: Run, tmp_path: Path) -> None:
    tool = tmp_path / "failing.sh"
    tool.write_text('#!/bin/sh\nread line\necho "no database for $line"\nexit 1\n')
    tool.chmod(0o755)
    result = access(admin_password="admin-password-B", reset_command=[str(tool)], fails=True)
    assert "no database for" in result["msg"]
    assert "admin-password-B" not in json.dumps(result)


def test_no_result_holds_a_secret(arguments: dict[str, Any], tmp_path: Path) -> None:
    """Prevents: a password or a token in the log of a run, or in its diff. As Ansible runs it, with what it adds."""
    asked = {"ANSIBLE_MODULE_ARGS": arguments | ESTATE | {"_ansible_diff": True, "_ansible_remote_tmp": str(tmp_path)}}
    command = [sys.executable, str(MODULE)]
    said = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["changed"]
    key = (tmp_path / "state/tokens/deploy.ci").read_text().strip()
    for secret in (ADMIN, PASSWORD, "ottos-own-password", key):
        assert secret not in said


def test_an_unknown_team_is_refused_by_name(access: Run) -> None:
    result = access(folders=[{"uid": "shipped", "permissions": [{"team": "nobody", "permission": "view"}]}], fails=True)
    assert "nobody" in result["msg"]


def test_a_name_that_is_no_file_name_is_refused(access: Run) -> None:
    assert "../x" in access(service_accounts=[{"name": "../x"}], fails=True)["msg"]


def test_a_run_that_fails_half_way_remembers_what_it_made(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: an account that a failed run has made, and that no later run removes."""
    broken = ESTATE | {"folders": [{"uid": "new-without-title"}]}
    assert "title" in access(fails=True, **broken)["msg"]
    assert "user anna is removed" in access()["changes"]
    assert {one["login"] for one in grafana.users.values()} == {"admin"}


def rename(grafana: FakeGrafana, login: str, to: str) -> int:
    """Do what everybody may in their profile; return the number of who did."""
    user = grafana.user(login)
    user["login"] = to
    return int(user["id"])


def test_who_changes_their_own_login_gets_it_back(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: a second account, or with a mail address a run that fails for ever."""
    access(**ESTATE)
    number = rename(grafana, "anna", "x")
    foreseen = access(check=True, **ESTATE)["changes"]
    assert access(**ESTATE)["changes"] == foreseen == ["user x is anna again"]
    assert grafana.user("anna")["id"] == number
    assert len(grafana.users) == 3
    assert not access(**ESTATE)["changed"]


def test_who_changes_their_own_login_leaves_all_the_same(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: a leaver who goes on signing in under another name."""
    access(**ESTATE)
    rename(grafana, "anna", "x")
    access(**ESTATE | {"users": ESTATE["users"][1:]})
    assert {one["login"] for one in grafana.users.values()} == {"admin", "otto"}


def test_a_login_that_somebody_took_is_told_and_nobody_s_rights_are_mixed_up(access: Run, grafana: FakeGrafana) -> None:
    access(**ESTATE)
    anna = rename(grafana, "anna", "x")
    grafana.add_user({"login": "anna", "password": "of another"})
    message = access(fails=True, **ESTATE)["msg"]
    assert message.startswith("user anna: is called x now, and somebody else (id ")
    assert grafana.user("anna")["password"] == "of another"
    assert [team["members"] for team in grafana.teams.values()] == [[anna]]
    assert "user anna is removed" in access(users_exclusive=True, **ESTATE)["changes"]
    assert grafana.user("anna")["id"] == anna
    assert not access(users_exclusive=True, **ESTATE)["changed"]


def test_a_list_of_an_older_release_is_read(access: Run, grafana: FakeGrafana, tmp_path: Path) -> None:
    access(**ESTATE)
    file = tmp_path / "state/managed.json"
    stored = json.loads(file.read_text())
    identifier = grafana.user("anna")["uid"]
    assert stored["users"]["anna"] == identifier
    file.write_text(json.dumps(stored | {"users": ["anna", "otto"]}))
    assert not access(**ESTATE)["changed"]
    assert json.loads(file.read_text())["users"]["anna"] == identifier
    file.write_text(json.dumps(stored | {"users": ["anna", "otto"]}))
    access()
    assert {one["login"] for one in grafana.users.values()} == {"admin"}


def test_large_letters_are_no_difference(access: Run) -> None:
    """Grafana keeps logins and mail addresses in small letters."""
    asked = [{"login": "Anna", "email": "Anna@Mail.test", "password": PASSWORD}]
    access(users=asked)
    assert not access(users=asked)["changed"]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"role": "Editor"}, "role"),
        ({"server_admin": True}, "server_admin"),
        ({"name": "Ida"}, "name"),
        ({"email": "ida@mail.test"}, "email"),
        ({"password": PASSWORD}, "password"),
        ({"enabled": False}, "enabled"),
    ],
)
def test_what_another_service_decides_is_left_alone_and_told(
    access: Run, grafana: FakeGrafana, asked: dict[str, Any], kept: str
) -> None:
    """Prevents: every run fails, since Grafana refuses what the service that signs somebody in decides."""
    grafana.add_user({"login": "ida", "password": "z", "authLabels": ["Generic OAuth"]})
    result = access(users=[{"login": "ida", **asked}], teams=[{"name": "payments", "members": ["ida"]}])
    assert result["pending"] == [f"ida is signed in by Generic OAuth, which decides: {kept}"]
    assert result["changes"] == ["team payments is added", "ida joins the team payments"]


def test_a_role_that_grafana_is_told_not_to_take_from_elsewhere_is_set(access: Run, grafana: FakeGrafana) -> None:
    """As with skip_org_role_sync in grafana_settings."""
    grafana.add_user({"login": "ida", "password": "z", "authLabels": ["Generic OAuth"], "isExternallySynced": False})
    asked = [{"login": "ida", "role": "Editor", "server_admin": True}]
    assert access(users=asked)["changes"] == ["user ida is Editor, was Viewer", "user ida administers the server"]
    assert not access(users=asked)["changed"]


def test_a_login_that_the_other_service_changed_is_followed(access: Run, grafana: FakeGrafana) -> None:
    grafana.add_user({"login": "ida", "password": "z", "authLabels": ["Generic OAuth"]})
    access(users=[{"login": "ida"}])
    number = rename(grafana, "ida", "ida.new")
    assert access(users=[{"login": "ida"}])["pending"] == ["ida is signed in by Generic OAuth, which decides: login"]
    assert access(users=[{"login": "ida.new"}])["changes"] == []
    assert grafana.user("ida.new")["id"] == number
    assert access()["changes"] == ["user ida.new is removed"]


def test_who_leaves_goes_although_others_are_refused(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: a leaver keeps access because of somebody else's entry. All that was refused is named."""
    access(**ESTATE)
    grafana.refused[("PATCH", f"/api/org/users/{grafana.user('anna')['id']}")] = 403
    estate = {
        "users": [ESTATE["users"][0] | {"role": "Admin"}],
        "folders": [{"uid": "no-title"}, {"uid": "new", "title": "New"}],
    }
    failure = access(fails=True, **estate)
    user, folder = failure["msg"].splitlines()
    assert user.startswith("user anna: Grafana answers PATCH")
    assert folder.startswith("folder no-title: Grafana has no folder no-title")
    assert {one["login"] for one in grafana.users.values()} == {"admin", "anna"}
    assert "new" in grafana.folders
    assert grafana.teams == grafana.accounts == {}
    assert "user anna is Admin, was Editor" not in failure["changes"]


def test_who_shall_not_sign_in_is_disabled_although_the_mail_is_refused(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: one refused part of an entry keeps the rest of it, and with it access."""
    access(**ESTATE)
    anna = grafana.user("anna")
    grafana.refused[("PUT", f"/api/users/{anna['id']}")] = 409
    user = ESTATE["users"][0] | {"email": "otto@mail.test", "enabled": False, "role": "Viewer"}
    failure = access(fails=True, **ESTATE | {"users": [user, ESTATE["users"][1]]})
    assert failure["changes"] == ["user anna is disabled", "user anna is Viewer, was Editor"]
    assert failure["msg"].startswith("user anna: Grafana answers PUT /api/users/")
    assert anna["isDisabled"]


def test_who_could_not_be_removed_is_tried_again(access: Run, grafana: FakeGrafana) -> None:
    access(**ESTATE)
    refused = ("DELETE", f"/api/admin/users/{grafana.user('anna')['id']}")
    grafana.refused[refused] = 500
    assert "user anna: Grafana answers DELETE" in access(fails=True)["msg"]
    assert {one["login"] for one in grafana.users.values()} == {"admin", "anna"}
    del grafana.refused[refused]
    assert access()["changes"] == ["user anna is removed"]


def test_leaving_is_foreseen_by_check_mode(access: Run) -> None:
    access(**ESTATE)
    fewer = ESTATE | {"users": ESTATE["users"][:1], "teams": [{"name": "payments", "members": []}]}
    fewer["folders"] = [
        ESTATE["folders"][0],
        {"uid": "shipped", "permissions": [{"role": "Viewer", "permission": "view"}]},
    ]
    assert access(check=True, **fewer)["changes"] == access(**fewer)["changes"]


def test_a_folder_that_somebody_moved_is_found(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: every later run fails, since Grafana lists only what is at the top."""
    access(**ESTATE)
    grafana.add_folder({"uid": "top", "title": "Top"})
    folder = grafana.folders["payments"]
    folder["parentUid"] = "top"
    folder["items"].append({"role": "Viewer", "permission": 4, "inherited": True})
    result = access(**ESTATE)
    assert not result["changed"]
    assert result["pending"] == ["folder payments is in folder top, and has its permissions too"]
    access()
    assert "payments" not in grafana.folders


def test_a_moved_folder_without_permissions_of_its_own_gets_none(access: Run, grafana: FakeGrafana) -> None:
    access(**ESTATE)
    grafana.folders["payments"]["parentUid"] = "shipped"
    access(**ESTATE | {"folders": [{"uid": "payments", "title": "Payments"}]})
    assert grafana.folders["payments"]["items"] == []


def test_the_first_organisation_is_meant_wherever_the_administrator_works(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: teams, folders and roles of another organisation, after the administrator has looked into it."""
    grafana.organisation = 2
    assert access(**ESTATE)["changed"]
    assert not access(**ESTATE)["changed"]


def people(*names: str, **changes: Any) -> list[dict[str, Any]]:
    """Entries of grafana_users, each with mail address and password."""
    return [{"login": one, "email": f"{one}@mail.test", "password": f"password-of-{one}", **changes} for one in names]


def who(grafana: FakeGrafana) -> dict[str, int]:
    """Everybody's number, by login."""
    return {one["login"]: one["id"] for one in grafana.users.values()}


@pytest.mark.parametrize("names", [("anna", "otto"), ("anna", "otto", "olga")])
def test_people_who_take_each_other_s_logins_get_their_own_back(
    access: Run, grafana: FakeGrafana, names: tuple[str, ...]
) -> None:
    """Prevents: every run fails until somebody is renamed by hand."""
    asked = people(*names)
    access(users=asked)
    before = who(grafana)
    users = [grafana.user(one) for one in names]
    for user, login in zip(users, (*names[1:], names[0]), strict=True):
        user["login"] = login
    foreseen = access(check=True, users=asked)
    assert grafana.changes() == []
    done = access(users=asked)
    assert done["changes"] == foreseen["changes"]
    assert done["diff"] == foreseen["diff"]
    assert len(done["changes"]) == len(names) + 1
    assert who(grafana) == before
    assert not access(users=asked)["changed"]


def test_a_login_is_freed_before_the_next_needs_it(access: Run, grafana: FakeGrafana) -> None:
    asked = people("anna", "otto")
    access(users=asked)
    before = who(grafana)
    rename(grafana, "otto", "x")
    rename(grafana, "anna", "otto")
    foreseen = access(check=True, users=asked[::-1])["changes"]
    assert access(users=asked[::-1])["changes"] == foreseen == ["user otto is anna again", "user x is otto again"]
    assert who(grafana) == before


@pytest.mark.parametrize("names", [("anna", "otto"), ("anna", "otto", "olga")])
def test_logins_that_change_places_in_the_inventory_take_the_accounts_along(
    access: Run, grafana: FakeGrafana, names: tuple[str, ...]
) -> None:
    """Prevents: somebody else's account, with what they made, under another's login. Mail and password tell."""
    access(users=people(*names))
    before = who(grafana)
    following = dict(zip(names, (*names[1:], names[0]), strict=True))
    asked = [one | {"login": following[one["login"]]} for one in people(*names)]
    foreseen = access(check=True, users=asked)["changes"]
    assert access(users=asked)["changes"] == foreseen
    assert len(foreseen) == len(names) + 1
    assert who(grafana) == {"admin": 1} | {following[one]: before[one] for one in names}
    assert {one["email"]: one["password"] for one in grafana.users.values() if one["id"] != 1} == {
        one["email"]: one["password"] for one in asked
    }
    assert not access(users=asked)["changed"]
    access(users=asked[1:])
    assert names[1] not in who(grafana)


def test_mail_addresses_that_change_places_leave_the_accounts_where_they_are(access: Run, grafana: FakeGrafana) -> None:
    """The passwords, which stay with the logins, say that the mail addresses alone were wrong."""
    asked = people("anna", "otto")
    access(users=asked)
    before = who(grafana)
    asked[0]["email"], asked[1]["email"] = asked[1]["email"], asked[0]["email"]
    foreseen = access(check=True, users=asked)["changes"]
    assert access(users=asked)["changes"] == foreseen
    assert who(grafana) == before
    assert grafana.user("anna")["email"] == "otto@mail.test"
    assert not access(users=asked)["changed"]


def test_people_whom_nothing_tells_apart_are_refused_before_anything_changes(access: Run, grafana: FakeGrafana) -> None:
    """Prevents: one's account in the other's hands, with the other's role."""
    asked = people("anna", "otto", update_password="on_create")
    access(users=asked)
    for one in grafana.users.values():
        one["password"] = ADMIN if one["id"] == 1 else f"chosen {one['id']}"
    asked[0] |= {"email": asked[1]["email"], "role": "Admin", "enabled": False}
    asked[1] |= {"email": "anna@mail.test"}
    message = access(fails=True, users=asked)["msg"]
    assert "anna and otto have changed mail addresses" in message
    assert grafana.user("anna")["role"] == "Viewer"
    # Who shall not sign in does not, whoever it is.
    assert [path for _, path in grafana.changes()] == [f"/api/admin/users/{grafana.user('anna')['id']}/disable"]


def test_who_stepped_aside_for_somebody_who_was_refused_gets_their_login_again(
    access: Run, grafana: FakeGrafana
) -> None:
    """Prevents: somebody who can no longer sign in because another could not be renamed."""
    asked = people("anna", "otto")
    access(users=asked)
    before = who(grafana)
    anna, otto = grafana.user("anna"), grafana.user("otto")
    anna["login"], otto["login"] = "otto", "anna"
    grafana.refused[("PUT", f"/api/users/{otto['id']}")] = 500
    assert "user otto: Grafana answers PUT" in access(fails=True, users=asked)["msg"]
    assert who(grafana) == {"admin": 1, "otto": before["anna"], "anna": before["otto"]}
    grafana.refused.clear()
    access(users=asked)
    assert who(grafana) == before


def test_a_run_that_was_cut_off_between_two_logins_is_finished_by_the_next(access: Run, grafana: FakeGrafana) -> None:
    asked = people("anna", "otto")
    access(users=asked)
    before = who(grafana)
    rename(grafana, "otto", "anna-x")
    rename(grafana, "anna", f"moving-{grafana.user('anna')['uid']}")
    rename(grafana, "anna-x", "anna")
    access(users=asked)
    assert who(grafana) == before
