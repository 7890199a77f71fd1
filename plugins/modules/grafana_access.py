#!/usr/bin/python
"""Ansible module `grafana_access`: who may do what in Grafana, as the inventory says it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_access
author: AllIN operations
short_description: Who may do what in Grafana, as the inventory says it
description:
  - Brings the admin password, users, teams, folders with their permissions, and service accounts with their tokens to
    what is asked for. One remote call that asks Grafana a few times; nothing is sent where nothing differs.
  - Whether a password holds is found out by signing in with it, since Grafana tells no passwords.
  - What the module has managed before and is no longer asked for goes. What it never managed stays, and is named in
    RV(foreign). Which is which stands in C(managed.json) in O(state_dir).
  - People can change their own login. Who was managed is known by Grafana's identifier, and gets the login back, also
    where several have each other's. One of them has the login C(moving-<identifier>) meanwhile.
  - Where logins change places in O(users), accounts follow mail address and password. Where the passwords stayed with
    the logins, the mail addresses change places. Who cannot be told by a password is refused.
  - An entry that Grafana refuses does not keep the others. The module fails at its end, and names all that were
    refused. Users who leave go first.
  - Everything is done in the first organisation, wherever the administrator works at the moment.
  - In check mode it asks and changes nothing; when the admin password itself would be changed, it can say no more.
options:
  url:
    description: Address of Grafana's API, without a slash at its end.
    type: str
    required: true
  validate_certs:
    description: Whether the certificate of an C(https) address must be valid.
    type: bool
    default: true
  timeout:
    description: Seconds for one request.
    type: float
    default: 30
  admin_user:
    description: Login of the server administrator that the first start has made.
    type: str
    required: true
  admin_password:
    description: The password that it shall have.
    type: str
    required: true
  reset_command:
    description: Command that sets the administrator's password to the line that it reads from its standard input.
    type: list
    elements: str
    required: true
  state_dir:
    description: Directory, of root alone, for the list of what is managed and for tokens, C(tokens/<account>.<token>).
    type: path
    required: true
  users:
    description:
      - People. One without O(users[].password) is not made here but by a first sign-in through OpenID Connect or LDAP.
      - Of people whom another service signs in that service decides name, mail, password, and whether they are enabled;
        role and server administration too, unless Grafana is set not to ask it. What differs is named in RV(pending).
    type: list
    elements: dict
    default: []
    suboptions:
      login:
        description: Name to sign in with.
        type: str
        required: true
      name:
        description: Full name.
        type: str
        default: ""
      email:
        description: Mail address.
        type: str
        default: ""
      password:
        description: Password to sign in with.
        type: str
        default: ""
      update_password:
        description: V(always) puts back another password, V(on_create) leaves what people change.
        type: str
        choices: [always, on_create]
        default: always
      role:
        description: Role in the organisation. V(None) sees only what permissions give.
        type: str
        choices: [None, Viewer, Editor, Admin]
        default: Viewer
      server_admin:
        description: Whether the person administers the server, users and all.
        type: bool
        default: false
      enabled:
        description: Whether the person may sign in.
        type: bool
        default: true
  users_exclusive:
    description: Whether users whom nobody asked for go, except O(admin_user) and those whom another service signs in.
    type: bool
    default: false
  teams:
    description: Teams.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      email:
        description: Mail address.
        type: str
        default: ""
      members:
        description: Logins. One that Grafana does not know yet is named in RV(pending).
        type: list
        elements: str
        default: []
  folders:
    description:
      - Folders. One that is missing is made; one that is no longer asked for goes when it is empty. One that somebody
        moved into another stays there.
    type: list
    elements: dict
    default: []
    suboptions:
      uid:
        description: Stable name.
        type: str
        required: true
      title:
        description: What people see. Empty for a folder that exists.
        type: str
        default: ""
      permissions:
        description: The whole list; empty for administrators alone. Without it Viewers view and Editors edit.
        type: list
        elements: dict
        suboptions:
          role:
            description: Everybody with this role, or this and a team or user.
            type: str
            choices: [Viewer, Editor]
          team:
            description: Name of a team.
            type: str
          user:
            description: Login of a user.
            type: str
          permission:
            description: What they may do.
            type: str
            choices: [view, edit, admin]
            required: true
  service_accounts:
    description: Accounts of programs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, also of the token's file.
        type: str
        required: true
      role:
        description: Role in the organisation.
        type: str
        choices: [None, Viewer, Editor, Admin]
        default: Viewer
      tokens:
        description: Tokens. One whose file is missing or refused is made anew.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name, unique in the account.
            type: str
            required: true
          seconds_to_live:
            description: Seconds that a new token is valid; 0 for ever.
            type: int
            default: 0
attributes:
  check_mode:
    description: Reports the same changes as a real run, and makes none.
    support: full
  diff_mode:
    description: The changes, a line each. Never a password or a token.
    support: full
"""

EXAMPLES = r"""
- name: Give people the access that the inventory says
  grafana_access:
    url: http://127.0.0.1:3001
    admin_user: admin
    admin_password: "{{ grafana_admin_password }}"
    reset_command: [runuser, -u, grafana, --, grafana, cli, admin, reset-admin-password, --password-from-stdin]
    state_dir: /etc/grafana-access
    teams:
      - {name: payments, members: [anna]}
    folders:
      - {uid: payments, title: Payments, permissions: [{team: payments, permission: edit}]}
"""

RETURN = r"""
changes:
  description: What was changed, or would be, a sentence each.
  type: list
  elements: str
  returned: success
foreign:
  description: Logins of users whom nobody asked for.
  type: list
  elements: str
  returned: success
pending:
  description: What waits for somebody's first sign-in, or is not for this module to change, a sentence each.
  type: list
  elements: str
  returned: success
requests:
  description: How often Grafana was asked.
  type: int
  returned: success
"""

import base64
import contextlib
import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ansible.module_utils.basic import AnsibleModule

PERMISSIONS = {"view": 1, "edit": 2, "admin": 4}
DEFAULT_PERMISSIONS = frozenset({("role", "Viewer", 1), ("role", "Editor", 2)})
"""What Grafana gives a new folder."""
PAGE = 1000
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Without a dot, which joins account and token in a file's name."""
ORGANISATION = 1
"""The one that everybody is in. An administrator may have switched to another."""
KINDS = ("teams", "folders", "permissions", "service_accounts", "tokens")
RESET_SECONDS = 120

T = TypeVar("T")
Record = dict[str, Any]


class AccessError(Exception):
    """What cannot be done; the text tells a person what to do about it."""


class NoAnswerError(AccessError):
    """Nobody answers, so that asking for the rest would only take long."""


class Api:
    """Grafana's API."""

    def __init__(self, url: str, *, validate_certs: bool, timeout: float) -> None:
        """Remember the address; `timeout` is the seconds for one request."""
        self.url = url
        self.timeout = timeout
        self.requests = 0
        context = ssl.create_default_context()
        if not validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        # No proxy from the environment: it is the host's own service.
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self.admin = ""

    def ask(self, method: str, path: str, body: object = None, authorization: str = "") -> tuple[int, Any]:
        """Send a request, as the administrator unless told otherwise; return status and parsed answer.

        Raises NoAnswerError when nobody answers.
        """
        self.requests += 1
        headers = {"Content-Type": "application/json", "Authorization": authorization or self.admin}
        if not authorization:
            headers["X-Grafana-Org-Id"] = str(ORGANISATION)
        request = urllib.request.Request(  # noqa: S310  # the caller's own address
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        try:
            with self.opener.open(request, timeout=self.timeout) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        except (OSError, ValueError) as error:
            raise NoAnswerError(f"{self.url} does not answer {method} {path}: {error}.") from error
        try:
            return status, json.loads(text)
        except ValueError:
            return status, None

    def call(self, method: str, path: str, body: object = None, *, missing: bool = False) -> Any:
        """Send a request that must succeed; return the parsed answer, None for a 404 with `missing`.

        Raises AccessError with what Grafana says.
        """
        status, answer = self.ask(method, path, body)
        if status == 404 and missing:
            return None
        if not 200 <= status < 300:
            said = answer.get("message", "") if isinstance(answer, dict) else ""
            raise AccessError(
                f"Grafana answers {method} {path.partition('?')[0]} with {status}: {said or 'no reason'}."
            )
        return answer

    def pages(self, path: str, member: str) -> Iterator[Record]:
        """Yield what a search returns, page by page."""
        page = 1
        while True:
            found = self.call("GET", f"{path}?perpage={PAGE}&page={page}").get(member) or []
            yield from found
            if len(found) < PAGE:
                return
            page += 1

    def accepts(self, authorization: str) -> bool:
        """Say whether somebody may sign in. Any answer but 401 is a yes: who is in may still not see everything."""
        return self.ask("GET", "/api/user", authorization=authorization)[0] != 401


def basic(login: str, password: str) -> str:
    """Return the header of a login and a password."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def quoted(text: object) -> str:
    """Return a text as a part of a path."""
    return urllib.parse.quote(str(text), safe="")


class Access:
    """One run: what is, what shall be, and what was done about it."""

    def __init__(self, parameters: Record, *, check_mode: bool, api: Api | None = None) -> None:
        """Read what earlier runs have managed."""
        self.wanted = parameters
        self.check_mode = check_mode
        self.api = api or Api(
            parameters["url"], validate_certs=parameters["validate_certs"], timeout=parameters["timeout"]
        )
        self.directory = Path(parameters["state_dir"])
        self.changes: list[str] = []
        self.foreign: list[str] = []
        self.pending: list[str] = []
        self.refused: list[str] = []
        stored: Record = {}
        with contextlib.suppress(FileNotFoundError):
            stored = json.loads((self.directory / "managed.json").read_text(encoding="utf-8"))
        self.managed: dict[str, set[str]] = {kind: set(stored.get(kind, ())) for kind in KINDS}
        people = stored.get("users", {})
        # Login -> Grafana's identifier, which stays when people change their login. Older files have logins alone.
        self.people: dict[str, str] = people if isinstance(people, dict) else dict.fromkeys(people, "")
        self.users: dict[str, Record] = {}
        self.others: list[Record] = []
        self.gone: set[int] = set()
        self.entries = {one["login"].lower(): one for one in self.wanted["users"]}
        self.asked = set(self.entries)
        self.followed: set[int] = set()
        """Whose login the inventory has given to another account."""
        self.unclear: dict[str, str] = {}
        """Logins of people of whom nobody can say which account is theirs, with the reason."""
        self.moving: set[int] = set()
        self.teams: dict[str, Record] = {}
        self.folders: dict[str, Record] = {}

    # What is common

    def do(self, sentence: str, work: Callable[[], T]) -> T | None:
        """Make a change, unless this is check mode, and note it."""
        done = None if self.check_mode else work()
        self.changes.append(sentence)
        return done

    def change(self, sentence: str, method: str, path: str, body: object = None) -> Any:
        """Ask Grafana for a change, unless this is check mode, and note it; return the answer."""
        return self.do(sentence, lambda: self.api.call(method, path, body))

    @contextlib.contextmanager
    def entry(self, what: str) -> Iterator[None]:
        """Go on with the next entry when this one is refused: it must not leave somebody access who shall have none."""
        try:
            yield
        except NoAnswerError:
            raise
        except AccessError as error:
            self.refused.append(f"{what}: {error}")

    def write(self, path: Path, text: str) -> None:
        """Write a file for root alone, whole or not at all."""
        for directory in (self.directory, path.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        staged = path.with_name(f".{path.name}.new")
        staged.unlink(missing_ok=True)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        staged.replace(path)

    def save(self) -> None:
        """Write down what is managed now."""
        if self.check_mode:
            return
        content = {"users": self.people, **{kind: sorted(names) for kind, names in self.managed.items()}}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        path = self.directory / "managed.json"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            self.write(path, text)

    def run(self) -> None:
        """Bring everything to what is asked for, who leaves first. What was done before a failure is remembered.

        Raises AccessError with all that was refused.
        """
        wrong = [name for name in names_of_files(self.wanted) if not FILE_NAME.fullmatch(name)]
        if wrong:
            raise AccessError(
                f"{', '.join(wrong)}: a service account or token has letters, digits, _ and - in its name."
            )
        if not self.sign_in():
            return
        try:
            self.read_users()
            self.remove_users()
            self.set_users()
            self.set_teams()
            self.set_folders()
            self.set_service_accounts()
            self.remove_teams()
        except (AccessError, OSError) as error:
            self.refused.append(str(error))
        finally:
            self.save()
        if self.refused:
            raise AccessError("\n".join(self.refused))

    # The administrator

    def sign_in(self) -> bool:
        """Make the inventory's password the one that holds; say whether there is more to see."""
        user, password = self.wanted["admin_user"], self.wanted["admin_password"]
        self.api.admin = basic(user, password)
        if self.api.accepts(self.api.admin):
            return True
        self.do(f"the password of {user} is set", self.reset)
        if self.check_mode:
            return False
        if not self.api.accepts(self.api.admin):
            raise AccessError(
                f"The password of Grafana's first administrator was set, and {user} cannot sign in with it. "
                "Either somebody has tried wrong ones too often: then wait five minutes. Or the first administrator is "
                "disabled, or has another name than grafana_admin_user says."
            )
        return True

    def reset(self) -> None:
        """Set the password with Grafana's own tool, which needs the database alone."""
        done = subprocess.run(
            self.wanted["reset_command"],
            input=self.wanted["admin_password"] + "\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=RESET_SECONDS,
        )
        if done.returncode != 0 or "changed successfully" not in done.stdout + done.stderr:
            said = (done.stdout + done.stderr).replace(self.wanted["admin_password"], "***").strip().splitlines()
            raise AccessError(f"Grafana's tool did not set the admin password: {' '.join(said[-5:]) or 'no output'}")

    # People

    def read_users(self) -> None:
        """Read who there is, by the login that the inventory knows, or else by the one they have, in small letters."""
        rights = {one["userId"]: one for one in self.api.call("GET", "/api/org/users")}
        found = [
            {**one, **{key: rights.get(one["id"], {}).get(key) for key in ("role", "isExternallySynced")}}
            for one in self.api.pages("/api/users/search", "users")
        ]
        managed = {number: login for login, number in self.people.items() if number}
        for one in found:
            login, known_as = one["login"].lower(), managed.get(one.get("uid") or "")
            # Another login that the other service gave, and the inventory has, is theirs; one that people took is not.
            if known_as and known_as != login and login in self.asked and one.get("authLabels"):
                self.people[login] = self.people.pop(known_as)
                managed[one["uid"]] = login
        self.users = {managed[one["uid"]]: one for one in found if one.get("uid") in managed}
        for circle in self.circles():
            self.see_who_is_who(circle)
        for one in found:
            if one.get("uid") in managed:
                continue
            if one["login"].lower() in self.users:
                self.others.append(one)
            else:
                self.users[one["login"].lower()] = one

    def circles(self) -> Iterator[dict[str, str]]:
        """Yield people whose mail addresses have changed places: login to the login of who has the address."""
        mails = {
            one["email"].lower(): login
            for login, one in self.users.items()
            if login in self.asked and one.get("email") and not one.get("authLabels")
        }
        source = {login: mails[mail] for login, one in self.entries.items() if (mail := one["email"].lower()) in mails}
        left = {login for login in mails.values() if source.get(login, login) != login}
        while left:
            circle: dict[str, str] = {}
            login = min(left)
            while login in left:
                left.discard(login)
                circle[login] = source.get(login, "")
                login = circle[login]
            if login in circle:
                yield circle

    def see_who_is_who(self, circle: dict[str, str]) -> None:
        """Find by the passwords whether logins have changed places in the inventory, or mail addresses."""
        passwords = {login: self.entries[login]["password"] for login in circle}
        if len({one for one in passwords.values() if one}) == len(circle):

            def fits(accounts: dict[str, str]) -> bool:
                return all(
                    self.api.accepts(basic(self.users[accounts[login]]["login"], password))
                    for login, password in passwords.items()
                )

            if fits(circle):
                users, numbers = dict(self.users), dict(self.people)
                for login, other in circle.items():
                    self.users[login], self.people[login] = users[other], numbers[other]
                    self.followed.add(users[other]["id"])
                return
            if fits({login: login for login in circle}):
                return
        names = " and ".join(sorted(circle))
        for login in circle:
            self.unclear[login] = (
                f"{names} have changed mail addresses, and their passwords do not tell whose account is whose. Write "
                "in grafana_users the mail addresses that they have in Grafana, and rename there who shall have "
                "another login"
            )

    def remove_users(self) -> None:
        """Remove who is no longer asked for, and name whom nobody ever asked for."""
        asked = self.asked | {self.wanted["admin_user"].lower()}
        for login in sorted(set(self.people) - asked):
            with self.entry(f"user {login}"):
                if login in self.users:
                    self.remove_user(self.users[login], login)
                    del self.users[login]
                del self.people[login]
        unasked = {login: one for login, one in self.users.items() if login not in asked and login not in self.people}
        unasked |= {one["login"].lower(): one for one in self.others}
        for login, one in sorted(unasked.items()):
            if not self.wanted["users_exclusive"] or one.get("authLabels"):
                self.foreign.append(login)
                continue
            with self.entry(f"user {login}"):
                self.remove_user(one, login)
                self.others = [other for other in self.others if other is not one]
                self.users = {name: user for name, user in self.users.items() if user is not one}

    def remove_user(self, known: Record, login: str) -> None:
        """Remove a user, whatever they are called now."""
        called = "" if known["login"].lower() == login else f", now called {known['login']},"
        self.change(f"user {login}{called} is removed", "DELETE", f"/api/admin/users/{known['id']}")
        self.gone.add(known["id"])

    def set_users(self) -> None:
        """Make and change who is asked for."""
        # Who is there comes first: somebody may have taken the login of somebody new.
        for one in sorted(self.wanted["users"], key=lambda one: one["login"].lower() not in self.users):
            login = one["login"].lower()
            with self.entry(f"user {login}"):
                known = self.users.get(login)
                if known is None and not one["password"]:
                    self.pending.append(f"{one['login']} has not signed in yet")
                    continue
                if known is None:
                    known = self.add_user(one)
                self.people[login] = known.get("uid") or ""
                known["kept"] = self.kept(one, known)
                if known["kept"]:
                    service = ", ".join(known["authLabels"])
                    self.pending.append(f"{login} is signed in by {service}, which decides: {', '.join(known['kept'])}")
                if login in self.unclear:
                    if not one["enabled"]:
                        self.set_enabled(one, known)
                    raise AccessError(self.unclear[login])
                # One that is refused does not keep the others; who may sign in comes first.
                for work in (self.set_enabled, self.set_role, self.set_server_admin, self.change_user):
                    with self.entry(f"user {login}"):
                        work(one, known)

    def add_user(self, one: Record) -> Record:
        """Make a user and return it as Grafana would."""
        body = {key: one[key] for key in ("login", "name", "email", "password")}
        asked = {**body, "OrgId": ORGANISATION}
        made = self.change(f"user {one['login']} is added", "POST", "/api/admin/users", asked) or {}
        known = {**body, "id": made.get("id"), "uid": made.get("uid"), "isAdmin": False, "isDisabled": False}
        known |= {"role": "Viewer", "new": True}
        self.people[one["login"].lower()] = known["uid"] or ""
        self.users[one["login"].lower()] = known
        if made:
            # Who may be in no organisation at all, or in the role that grafana_settings gives to new ones.
            found = [user for user in self.api.call("GET", "/api/org/users") if user["userId"] == made["id"]]
            known["role"] = found[0]["role"] if found else None
        return known

    def kept(self, one: Record, known: Record) -> list[str]:
        """Return what differs in somebody whom another service signs in, and Grafana lets nobody change."""
        if not known.get("authLabels"):
            return []
        texts = ("login", "name", "email")
        kept = [key for key in texts if one[key] and one[key].lower() != (known.get(key) or "").lower()]
        if one["password"] and one["update_password"] == "always":  # noqa: S105
            kept.append("password")
        kept += ["enabled"] if known["isDisabled"] == one["enabled"] else []
        synced = known
        if known["isAdmin"] != one["server_admin"] or known["role"] is None:
            synced = self.api.call("GET", f"/api/users/{known['id']}")
        if known["role"] != one["role"] and synced.get("isExternallySynced"):
            kept.append("role")
        if known["isAdmin"] != one["server_admin"] and synced.get("isGrafanaAdminExternallySynced"):
            kept.append("server_admin")
        return kept

    def change_user(self, one: Record, known: Record) -> None:
        """Bring login, name, mail address and password to what is asked for."""
        if known.get("new") or known.get("authLabels"):
            return
        login = one["login"]
        self.rename(one, known)
        # Somebody who is disabled is refused with any password.
        asked = one["password"] and one["update_password"] == "always" and not known["isDisabled"]  # noqa: S105
        called = known["really"] if "really" in known else known["login"]
        if asked and not self.api.accepts(basic(called, one["password"])):
            body = {"password": one["password"]}
            self.change(f"the password of {login} is set", "PUT", f"/api/admin/users/{known['id']}/password", body)

    @staticmethod
    def told(one: Record, known: Record) -> dict[str, str]:
        """Return login, name and mail address that a user shall have, as Grafana keeps them."""
        told = {key: one[key] or known.get(key) or "" for key in ("login", "name", "email")}
        return told | {key: told[key].lower() for key in ("login", "email")}

    def rename(self, one: Record, known: Record) -> None:
        """Give a user login, name and mail address, when nobody has them any more."""
        told = self.told(one, known)
        before = {key: known.get(key) or "" for key in told}
        if told == before:
            return
        self.moving.add(known["id"])
        try:
            for key, what in (("login", "login"), ("email", "mail address")):
                if told[key] != before[key].lower():
                    self.make_room(key, what, told[key], known)
            called = (known["was"] if "was" in known else before["login"]).lower()
            sentence = f"user {told['login']} gets name and mail"
            if told["login"] != called:
                sentence = f"user {called} is {told['login']} {'now' if known['id'] in self.followed else 'again'}"
            self.give(sentence, known, told)
        except NoAnswerError:
            raise
        except AccessError:
            self.step_back(known, before)
            raise
        finally:
            self.moving.discard(known["id"])

    def give(self, sentence: str, known: Record, told: dict[str, str]) -> None:
        """Write down a user's login, name and mail address; a check remembers the login that they really have."""
        self.change(sentence, "PUT", f"/api/users/{known['id']}", told)
        if self.check_mode:
            known.setdefault("really", known["login"])
        known.update(told)

    def has(self, key: str, value: str) -> Record | None:
        """Return who has a login or a mail address."""
        everybody = [*self.others, *self.users.values()]
        return next((one for one in everybody if (one.get(key) or "").lower() == value), None)

    def make_room(self, key: str, what: str, value: str, known: Record) -> None:
        """Have somebody who has what another shall have take their own. Who waits in a circle steps aside."""
        other = self.has(key, value)
        if other is None or other is known:
            return
        login = next((login for login, one in self.users.items() if one is other), "")
        own = self.entries.get(login)
        if own is None or other.get("authLabels") or login in self.unclear or self.told(own, other)[key] == value:
            raise AccessError(
                f"is called {known['login']} now, and somebody else (id {other['id']}) has the {what} {value}. "
                f"Give one of them another {what} in Grafana"
            )
        if other["id"] not in self.moving:
            self.rename(own, other)
            return
        aside = f"moving-{other['uid']}" + ("" if key == "login" else "@example.invalid")
        if self.has(key, aside) is not None:
            raise AccessError(
                f"needs the {what} {aside} for a moment, and somebody has it. Give them another in Grafana"
            )
        told = {name: other.get(name) or "" for name in ("login", "name", "email")}
        other.setdefault("was", other["login"])
        self.give(f"user {other['was']} has the {what} {aside} for a moment", other, told | {key: aside})

    def step_back(self, known: Record, before: dict[str, str]) -> None:
        """Give somebody who stepped aside for nothing what they had, as far as it is free."""
        told = {key: known.get(key) or "" for key in before}
        if told == before:
            return
        told |= {key: value for key, value in before.items() if self.has(key, value) is None}
        self.give(f"user {told['login']} is back", known, told)

    def set_enabled(self, one: Record, known: Record) -> None:
        """Let a user sign in, or no longer."""
        if known["isDisabled"] == one["enabled"] and "enabled" not in known["kept"]:
            verb = "enable" if one["enabled"] else "disable"
            self.change(f"user {one['login']} is {verb}d", "POST", f"/api/admin/users/{known['id']}/{verb}")

    def set_role(self, one: Record, known: Record) -> None:
        """Bring the role in the organisation to what is asked for."""
        login = one["login"]
        if "role" in known["kept"]:
            return
        if known["role"] is None:
            body = {"loginOrEmail": known["login"], "role": one["role"]}
            self.change(f"user {login} joins the organisation as {one['role']}", "POST", "/api/org/users", body)
        elif known["role"] != one["role"]:
            self.change(
                f"user {login} is {one['role']}, was {known['role']}",
                "PATCH",
                f"/api/org/users/{known['id']}",
                {"role": one["role"]},
            )

    def set_server_admin(self, one: Record, known: Record) -> None:
        """Let a user administer the server, or no longer."""
        if known["isAdmin"] != one["server_admin"] and "server_admin" not in known["kept"]:
            self.change(
                f"user {one['login']} {'administers' if one['server_admin'] else 'no longer administers'} the server",
                "PUT",
                f"/api/admin/users/{known['id']}/permissions",
                {"isGrafanaAdmin": one["server_admin"]},
            )

    # Teams

    def set_teams(self) -> None:
        """Make and change the teams that are asked for."""
        self.teams = {one["name"]: one for one in self.api.pages("/api/teams/search", "teams")}
        for one in self.wanted["teams"]:
            with self.entry(f"team {one['name']}"):
                self.set_team(one)

    def set_team(self, one: Record) -> None:
        """Make or change a team."""
        known = self.teams.get(one["name"])
        body = {"name": one["name"], "email": one["email"]}
        if known is None:
            number = self.do(f"team {one['name']} is added", partial(self.make_team, body))
            known = {**body, "id": number, "memberCount": 0}
            self.teams[one["name"]] = known
        elif (known.get("email") or "") != one["email"]:
            with self.entry(f"team {one['name']}"):
                self.change(f"team {one['name']} gets its mail", "PUT", f"/api/teams/{known['id']}", body)
        self.managed["teams"].add(one["name"])
        self.set_members(one, known)

    def make_team(self, body: Record) -> int:
        """Make a team without anybody in it, since Grafana puts in who makes it; return its number."""
        number = int(self.api.call("POST", "/api/teams", body)["teamId"])
        for member in self.api.call("GET", f"/api/teams/{number}/members"):
            self.api.call("DELETE", f"/api/teams/{number}/members/{member['userId']}")
        return number

    def set_members(self, one: Record, known: Record) -> None:
        """Bring the members of a team to what is asked for."""
        path = f"/api/teams/{known['id']}/members"
        there = {}
        if known["id"] is not None and known.get("memberCount") != 0:
            members = self.api.call("GET", path)
            there = {one["userId"]: one["login"].lower() for one in members if one["userId"] not in self.gone}
        wanted = {login.lower() for login in one["members"]}
        keep = {self.users[login]["id"] for login in wanted if login in self.users}
        # Who leaves comes first: somebody who is refused must not keep others.
        for number, login in sorted(there.items(), key=lambda member: member[1]):
            if number not in keep:
                with self.entry(f"team {one['name']}"):
                    self.change(f"{login} leaves the team {one['name']}", "DELETE", f"{path}/{number}")
        for login in sorted(wanted):
            if login not in self.users:
                self.wait(login, f"{login} joins the team {one['name']} when they have signed in once")
            elif self.users[login]["id"] not in there:
                body = {"userId": self.users[login]["id"]}
                self.change(f"{login} joins the team {one['name']}", "POST", path, body)

    def wait(self, login: str, sentence: str) -> None:
        """Note what waits for somebody. Who has a password here is missing because they were refused, which is told."""
        if not any(one["password"] for one in self.wanted["users"] if one["login"].lower() == login.lower()):
            self.pending.append(sentence)

    # Folders

    def set_folders(self) -> None:
        """Make folders and bring their permissions to what is asked for."""
        if not self.wanted["folders"] and not self.managed["folders"] | self.managed["permissions"]:
            return
        # What is at the top, up to so many; the others are asked for one by one.
        self.folders = {one["uid"]: one for one in self.api.call("GET", f"/api/folders?limit={PAGE}")}
        for one in self.wanted["folders"]:
            with self.entry(f"folder {one['uid']}"):
                self.set_folder(one)
        asked = {one["uid"] for one in self.wanted["folders"]}
        open_again = self.managed["permissions"] - {
            one["uid"] for one in self.wanted["folders"] if one["permissions"] is not None
        }
        for uid in sorted(open_again):
            with self.entry(f"folder {uid}"):
                known = self.folder(uid) if uid in asked or uid not in self.managed["folders"] else None
                if known:
                    # One in another has that one's permissions, and by default none of its own.
                    self.set_permissions(uid, set() if known.get("parentUid") else set(DEFAULT_PERMISSIONS))
                self.managed["permissions"].discard(uid)
        for uid in sorted(self.managed["folders"] - asked):
            with self.entry(f"folder {uid}"):
                self.remove_folder(uid)

    def folder(self, uid: str) -> Record | None:
        """Return a folder, wherever it is."""
        if uid not in self.folders:
            found = self.api.call("GET", f"/api/folders/{quoted(uid)}", missing=True)
            if found is None:
                return None
            self.folders[uid] = found
        return self.folders[uid]

    def set_folder(self, one: Record) -> None:
        """Make or change a folder."""
        uid, known = one["uid"], self.folder(one["uid"])
        if known is None:
            if not one["title"]:
                raise AccessError(f"Grafana has no folder {uid}. Give it a title, and it is made.")
            body = {"uid": uid, "title": one["title"]}
            self.change(f"folder {uid} is added", "POST", "/api/folders", body)
            self.managed["folders"].add(uid)
        elif one["title"] and known["title"] != one["title"]:
            body = {"title": one["title"], "overwrite": True}
            with self.entry(f"folder {uid}"):
                self.change(f"folder {uid} is called {one['title']}", "PUT", f"/api/folders/{quoted(uid)}", body)
        if one["permissions"] is not None:
            if known and known.get("parentUid"):
                self.pending.append(f"folder {uid} is in folder {known['parentUid']}, and has its permissions too")
            self.set_permissions(uid, self.permissions(one), new=known is None)
            self.managed["permissions"].add(uid)

    def permissions(self, folder: Record) -> set[tuple[str, Any, int]]:
        """Return the permissions that are asked for, with Grafana's numbers of teams and users."""
        wanted: set[tuple[str, Any, int]] = set()
        for one in folder["permissions"]:
            permission = PERMISSIONS[one["permission"]]
            if one.get("role"):
                wanted.add(("role", one["role"], permission))
            if one.get("team"):
                team = self.teams.get(one["team"])
                if team is None:
                    raise AccessError(
                        f"Folder {folder['uid']} has a permission for the team {one['team']}: there is none."
                    )
                wanted.add(("teamId", team["id"], permission))
            if one.get("user"):
                user = self.users.get(one["user"].lower())
                if user is None:
                    self.wait(one["user"], f"{one['user']} gets folder {folder['uid']} when they have signed in once")
                    continue
                wanted.add(("userId", user["id"], permission))
        return wanted

    def set_permissions(self, uid: str, wanted: set[tuple[str, Any, int]], *, new: bool = False) -> None:
        """Bring the permissions of a folder to `wanted`. A new one always has another: who makes it administers it."""
        path = f"/api/folders/{quoted(uid)}/permissions"
        there = set()
        for one in [] if new else self.api.call("GET", path):
            # Of somebody who was removed it goes by itself, in check mode too.
            if one.get("inherited") or one.get("userId") in self.gone:
                continue
            kind = "userId" if one.get("userId") else "teamId" if one.get("teamId") else "role"
            there.add((kind, one[kind], one["permission"]))
        if new or there != wanted:
            items = [{kind: who, "permission": permission} for kind, who, permission in sorted(wanted, key=str)]
            self.change(f"folder {uid} gets its permissions", "POST", path, {"items": items})

    def remove_folder(self, uid: str) -> None:
        """Remove a folder that nobody asks for any more, unless something is in it."""
        path = f"/api/folders/{quoted(uid)}"
        exists = self.folder(uid) is not None
        if exists and any(self.api.call("GET", f"{path}/counts").values()):
            self.pending.append(f"folder {uid} goes when it is empty")
            return
        if exists:
            self.change(f"folder {uid} is removed", "DELETE", path)
        self.managed["folders"].discard(uid)

    # Programs

    def set_service_accounts(self) -> None:
        """Make and change the service accounts and tokens that are asked for."""
        wanted = {one["name"]: one for one in self.wanted["service_accounts"]}
        if not wanted and not self.managed["service_accounts"]:
            return
        there = {one["name"]: one for one in self.api.pages("/api/serviceaccounts/search", "serviceAccounts")}
        for name in sorted(self.managed["service_accounts"] - set(wanted)):
            with self.entry(f"service account {name}"):
                if name in there:
                    path = f"/api/serviceaccounts/{there[name]['id']}"
                    self.change(f"service account {name} is removed", "DELETE", path)
                for token in sorted(self.managed["tokens"]):
                    if token.startswith(f"{name}."):
                        self.forget_token(token)
                self.managed["service_accounts"].discard(name)
        for name, one in wanted.items():
            with self.entry(f"service account {name}"):
                self.set_service_account(one, there.get(name))

    def set_service_account(self, one: Record, known: Record | None) -> None:
        """Make or change a service account, with its tokens."""
        name = one["name"]
        if known is None:
            body = {"name": name, "role": one["role"], "isDisabled": False}
            made = self.change(f"service account {name} is added", "POST", "/api/serviceaccounts", body)
            known = {"id": (made or {}).get("id"), "tokens": 0}
        elif known["role"] != one["role"]:
            path = f"/api/serviceaccounts/{known['id']}"
            body = {"role": one["role"]}
            with self.entry(f"service account {name}"):
                self.change(f"service account {name} is {one['role']}, was {known['role']}", "PATCH", path, body)
        self.managed["service_accounts"].add(name)
        self.set_tokens(one, known)

    def set_tokens(self, account: Record, known: Record) -> None:
        """Remove the tokens of an account that are no longer asked for, and make those that are."""
        path = f"/api/serviceaccounts/{known['id']}/tokens"
        there = {one["name"]: one for one in self.api.call("GET", path)} if known.get("tokens") else {}
        asked = {f"{account['name']}.{one['name']}" for one in account["tokens"]}
        for name in sorted(self.managed["tokens"] - asked):
            owner, _, token = name.partition(".")
            if owner != account["name"]:
                continue
            with self.entry(f"token {name}"):
                if token in there:
                    gone = f"{path}/{there[token]['id']}"
                    self.change(f"token {name} is removed", "DELETE", gone)
                self.forget_token(name)
        for one in account["tokens"]:
            name = f"{account['name']}.{one['name']}"
            with self.entry(f"token {name}"):
                if not self.holds(name, there.get(one["name"])):
                    self.do(f"token {name} is made", partial(self.make_token, path, one, name, there.get(one["name"])))
                self.managed["tokens"].add(name)

    def holds(self, name: str, known: Record | None) -> bool:
        """Say whether Grafana has a token, and takes the one in its file."""
        if known is None or known.get("hasExpired") or known.get("isRevoked"):
            return False
        try:
            key = (self.directory / "tokens" / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return False
        return self.api.ask("GET", "/api/org", authorization=f"Bearer {key}")[0] != 401

    def make_token(self, path: str, token: Record, name: str, known: Record | None) -> None:
        """Make a token in the place of one of the same name, and keep it."""
        if known is not None:
            self.api.call("DELETE", f"{path}/{known['id']}")
        made = self.api.call("POST", path, {"name": token["name"], "secondsToLive": token["seconds_to_live"]})
        self.write(self.directory / "tokens" / name, made["key"] + "\n")

    def forget_token(self, name: str) -> None:
        """Remove the file of a token that nobody asks for any more."""
        if not self.check_mode:
            (self.directory / "tokens" / name).unlink(missing_ok=True)
        self.managed["tokens"].discard(name)

    def remove_teams(self) -> None:
        """Remove teams that are no longer asked for."""
        for name in sorted(self.managed["teams"] - {one["name"] for one in self.wanted["teams"]}):
            with self.entry(f"team {name}"):
                if name in self.teams:
                    path = f"/api/teams/{self.teams[name]['id']}"
                    self.change(f"team {name} is removed", "DELETE", path)
                self.managed["teams"].discard(name)


def specification() -> Record:
    """Return what the module takes, as Ansible wants it."""
    text: Record = {"type": "str", "default": ""}
    name: Record = {"type": "str", "required": True}
    role: Record = {"type": "str", "choices": ["None", "Viewer", "Editor", "Admin"], "default": "Viewer"}

    def entries(options: Record) -> Record:
        return {"type": "list", "elements": "dict", "default": [], "options": options}

    return {
        "url": name,
        "validate_certs": {"type": "bool", "default": True},
        "timeout": {"type": "float", "default": 30},
        "admin_user": name,
        "admin_password": {"type": "str", "required": True, "no_log": True},
        "reset_command": {"type": "list", "elements": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
        "users_exclusive": {"type": "bool", "default": False},
        "users": entries(
            {
                "login": name,
                "name": text,
                "email": text,
                "password": {"type": "str", "default": "", "no_log": True},
                "update_password": {
                    "type": "str",
                    "choices": ["always", "on_create"],
                    "default": "always",
                    "no_log": False,
                },
                "role": role,
                "server_admin": {"type": "bool", "default": False},
                "enabled": {"type": "bool", "default": True},
            }
        ),
        "teams": entries({"name": name, "email": text, "members": {"type": "list", "elements": "str", "default": []}}),
        "folders": entries(
            {
                "uid": name,
                "title": text,
                "permissions": {
                    "type": "list",
                    "elements": "dict",
                    "options": {
                        "role": {"type": "str", "choices": ["Viewer", "Editor"]},
                        "team": {"type": "str"},
                        "user": {"type": "str"},
                        "permission": {"type": "str", "choices": list(PERMISSIONS), "required": True},
                    },
                },
            }
        ),
        "service_accounts": entries(
            {
                "name": name,
                "role": role,
                "tokens": {
                    **entries({"name": name, "seconds_to_live": {"type": "int", "default": 0}}),
                    "no_log": False,
                },
            }
        ),
    }


def names_of_files(parameters: Record) -> Iterator[str]:
    """Yield the names that become a part of a file's name."""
    for account in parameters["service_accounts"]:
        yield account["name"]
        yield from (token["name"] for token in account["tokens"])


def outcome(access: Access) -> Record:
    """Return what the run found and did; never a secret."""
    result: Record = {
        "changed": bool(access.changes),
        "changes": access.changes,
        "foreign": access.foreign,
        "pending": access.pending,
        "requests": access.api.requests,
    }
    if access.changes:
        after = "".join(f"{sentence}\n" for sentence in access.changes)
        result["diff"] = {"before_header": "Grafana", "after_header": "Grafana", "before": "", "after": after}
    return result


def main() -> None:
    """Entry point for Ansible."""
    module = AnsibleModule(argument_spec=specification(), supports_check_mode=True)
    access = Access(module.params, check_mode=module.check_mode)
    try:
        access.run()
    except (AccessError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=str(error), changes=access.changes, changed=bool(access.changes))
    module.exit_json(**outcome(access))


if __name__ == "__main__":
    main()
