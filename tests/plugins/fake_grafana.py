"""A Grafana for tests of `grafana_access`: the part of its API that the module asks, in memory.

Answers as Grafana 12.4 does where the module looks; molecule/grafana proves the module against the real one.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Record = dict[str, Any]
Answer = tuple[int, Any]


class FakeGrafana:
    """Users, teams, folders and service accounts, and every request that was made."""

    def __init__(self, admin_password: str) -> None:
        """Begin as a first start does."""
        self.number = 0
        self.requests: list[tuple[str, str]] = []
        self.organisation = 1
        """Where the administrator works; requests that name none are about that one."""
        self.refused: dict[tuple[str, str], int] = {}
        """Method and path to the status with which it is refused."""
        self.url = ""
        self.users: dict[int, Record] = {}
        self.teams: dict[int, Record] = {}
        self.folders: dict[str, Record] = {}
        self.accounts: dict[int, Record] = {}
        self.add_user({"login": "admin", "email": "admin@localhost", "name": "", "password": admin_password})
        self.users[1] |= {"isAdmin": True, "role": "Admin"}

    def next(self) -> int:
        """Return a number that nothing has."""
        self.number += 1
        return self.number

    def user(self, login: str) -> Record:
        """Return a user by login."""
        return next(one for one in self.users.values() if one["login"] == login)

    def changes(self) -> list[tuple[str, str]]:
        """Return the requests that were more than a look."""
        return [one for one in self.requests if one[0] != "GET"]

    def add_user(self, body: Record) -> Answer:
        """Make a user."""
        number = self.next()
        self.users[number] = {
            "isAdmin": False,
            "isDisabled": False,
            "role": "Viewer",
            "authLabels": [],
            "name": "",
            **body,
            "login": body["login"].lower(),
            "email": body.get("email", "").lower(),
            "id": number,
            "uid": f"uid{number}",
        }
        return 200, {"id": number, "uid": f"uid{number}"}

    def make_user(self, body: Record) -> Answer:
        """Make a user that the administrator asks for."""
        for one in self.users.values():
            if one["login"] == body["login"].lower() or (body["email"] and one["email"] == body["email"]):
                said = f"User with email '{body['email']}' or username '{body['login']}' already exists"
                return 412, {"message": said}
        return self.add_user({**body, "role": "Viewer"})

    def change_user(self, number: str, *, synced: bool = False, **values: Any) -> Answer:
        """Change a user. Of one whom another service signs in it says everything, or all but what may be `synced`."""
        user = self.users[int(number)]
        if user["authLabels"] and (not synced or user.get("isExternallySynced", True)):
            return 403, {"message": "Cannot update external User"}
        for key in ("login", "email"):
            if any(values.get(key) and one[key] == values[key] for one in self.users.values() if one is not user):
                return 500, {"message": "Failed to update user"}
        return self.change(user, **values)

    def signed_in(self, header: str) -> bool:
        """Say whether a header is of somebody who may sign in."""
        kind, _, value = header.partition(" ")
        if kind == "Bearer":
            return any(value == token["key"] for one in self.accounts.values() for token in one["tokens"].values())
        login, _, password = base64.b64decode(value).decode().partition(":")
        return any(
            one["login"].lower() == login.lower() and one["password"] == password and not one["isDisabled"]
            for one in self.users.values()
        )

    def answer(self, method: str, path: str, body: Any, header: str, organisation: int | None = None) -> Answer:
        """Answer a request."""
        self.requests.append((method, path))
        if not self.signed_in(header):
            return 401, {"message": "Invalid username or password"}
        if (method, path) in self.refused:
            return self.refused[method, path], {"message": "Refused"}
        if (organisation or self.organisation) != 1 and path not in ("/api/user", "/api/users/search"):
            return 404, {"message": "Not in this organisation"}
        for wanted, pattern, work in self.routes():
            match = re.fullmatch(pattern, path)
            if method == wanted and match:
                return work(body, *(unquote(group) for group in match.groups()))
        return 404, {"message": "Not found"}

    def routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        """Return what is answered: method, path and work."""
        return [
            ("GET", "/api/user|/api/org", lambda _: (200, {})),
            ("GET", "/api/users/search", lambda _: (200, {"users": [self.shown(one) for one in self.users.values()]})),
            ("GET", "/api/org/users", lambda _: (200, [
                {"userId": one["id"], "login": one["login"], "role": one["role"],
                 "isExternallySynced": bool(one["authLabels"]) and one.get("isExternallySynced", True)}
                for one in self.users.values() if one["role"]
            ])),
            ("POST", "/api/org/users", lambda body: self.change(self.user(body["loginOrEmail"]), role=body["role"])),
            ("PATCH", "/api/org/users/(.+)", lambda body, number: self.change_user(number, synced=True, **body)),
            ("POST", "/api/admin/users", self.make_user),
            ("GET", "/api/users/(.+)", lambda _, number: (200, {
                key: self.users[int(number)].get("isExternallySynced", True)
                for key in ("isExternallySynced", "isGrafanaAdminExternallySynced")
            })),
            ("PUT", "/api/users/(.+)", lambda body, number: self.change_user(number, **body)),
            ("PUT", "/api/admin/users/(.+)/password", lambda body, number: self.change_user(number, **body)),
            ("PUT", "/api/admin/users/(.+)/permissions",
             lambda body, number: self.change_user(number, synced=True, isAdmin=body["isGrafanaAdmin"])),
            ("POST", "/api/admin/users/(.+)/(enable|disable)",
             lambda _, number, verb: self.change_user(number, isDisabled=verb == "disable")),
            ("DELETE", "/api/admin/users/(.+)", lambda _, number: self.remove_user(int(number))),
            ("GET", "/api/teams/search", lambda _: (200, {"teams": [
                {**one, "memberCount": len(one["members"])} for one in self.teams.values()
            ]})),
            ("POST", "/api/teams", self.add_team),
            ("PUT", "/api/teams/([^/]+)", lambda body, number: self.change(self.teams[int(number)], **body)),
            ("DELETE", "/api/teams/([^/]+)", lambda _, number: self.drop(self.teams, int(number))),
            ("GET", "/api/teams/(.+)/members", lambda _, number: (200, [
                {"userId": one, "login": self.users[one]["login"]} for one in self.teams[int(number)]["members"]
            ])),
            ("POST", "/api/teams/(.+)/members",
             lambda body, number: (self.teams[int(number)]["members"].append(body["userId"]), (200, {}))[1]),
            ("DELETE", "/api/teams/(.+)/members/(.+)",
             lambda _, number, user: (self.teams[int(number)]["members"].remove(int(user)), (200, {}))[1]),
            ("GET", "/api/folders", lambda _: (200, [
                one for one in self.folders.values() if "parentUid" not in one
            ])),
            ("GET", "/api/folders/([^/]+)", lambda _, uid: (
                (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})
            )),
            ("POST", "/api/folders", self.add_folder),
            ("PUT", "/api/folders/([^/]+)", lambda body, uid: self.change(self.folders[uid], title=body["title"])),
            ("DELETE", "/api/folders/([^/]+)", lambda _, uid: self.drop(self.folders, uid)),
            ("GET", "/api/folders/(.+)/counts", lambda _, uid: (200, {"dashboard": self.folders[uid]["dashboards"]})),
            ("GET", "/api/folders/(.+)/permissions", lambda _, uid: (200, self.folders[uid]["items"])),
            ("POST", "/api/folders/(.+)/permissions", lambda body, uid: self.change(self.folders[uid], **body)),
            ("GET", "/api/serviceaccounts/search", lambda _: (200, {"serviceAccounts": [
                {**one, "tokens": len(one["tokens"])} for one in self.accounts.values()
            ]})),
            ("POST", "/api/serviceaccounts", self.add_account),
            ("PATCH", "/api/serviceaccounts/([^/]+)",
             lambda body, number: self.change(self.accounts[int(number)], **body)),
            ("DELETE", "/api/serviceaccounts/([^/]+)", lambda _, number: self.drop(self.accounts, int(number))),
            ("GET", "/api/serviceaccounts/(.+)/tokens", lambda _, number: (200, [
                {key: value for key, value in one.items() if key != "key"}
                for one in self.accounts[int(number)]["tokens"].values()
            ])),
            ("POST", "/api/serviceaccounts/(.+)/tokens", self.add_token),
            ("DELETE", "/api/serviceaccounts/(.+)/tokens/(.+)",
             lambda _, number, token: self.drop(self.accounts[int(number)]["tokens"], int(token))),
        ]  # fmt: skip

    @staticmethod
    def shown(user: Record) -> Record:
        """Return a user as the search shows it."""
        return {key: value for key, value in user.items() if key not in ("password", "role")}

    @staticmethod
    def change(record: Record, **values: Any) -> Answer:
        """Change a record."""
        record.update(values)
        return 200, {}

    @staticmethod
    def drop(records: dict[Any, Record], key: Any) -> Answer:
        """Remove a record."""
        return (200, {}) if records.pop(key, None) else (404, {"message": "Not found"})

    def add_team(self, body: Record) -> Answer:
        """Make a team, as Grafana does: who makes it is in it."""
        number = self.next()
        self.teams[number] = {**body, "id": number, "members": [1]}
        return 200, {"teamId": number}

    def remove_user(self, number: int) -> Answer:
        """Remove a user, as Grafana does: from teams and folders too."""
        for team in self.teams.values():
            team["members"] = [one for one in team["members"] if one != number]
        for folder in self.folders.values():
            folder["items"] = [one for one in folder["items"] if one.get("userId") != number]
        return self.drop(self.users, number)

    def add_folder(self, body: Record) -> Answer:
        """Make a folder, as Grafana does: who makes it administers it."""
        if body["uid"] in self.folders:
            return 412, {"message": "the folder has been changed by someone else"}
        items = [{"role": "Editor", "permission": 2}, {"role": "Viewer", "permission": 1}]
        self.folders[body["uid"]] = {**body, "dashboards": 0, "items": [*items, {"userId": 1, "permission": 4}]}
        return 200, {}

    def add_account(self, body: Record) -> Answer:
        """Make a service account."""
        number = self.next()
        self.accounts[number] = {**body, "id": number, "tokens": {}}
        return 201, {"id": number}

    def add_token(self, body: Record, number: str) -> Answer:
        """Make a token; its key is told this once."""
        tokens = self.accounts[int(number)]["tokens"]
        if body["name"] in {one["name"] for one in tokens.values()}:
            return 409, {"message": "service account token with given name already exists"}
        token = self.next()
        tokens[token] = {"id": token, "name": body["name"], "key": f"glsa_{token}", "hasExpired": False}
        return 200, {"key": f"glsa_{token}"}


@contextmanager
def running(grafana: FakeGrafana) -> Iterator[FakeGrafana]:
    """Serve it on a port of the loopback while the block runs; `url` says where."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = urlsplit(self.path).path
            organisation = int(self.headers.get("X-Grafana-Org-Id") or 0)
            header = self.headers.get("Authorization") or ""
            status, answer = grafana.answer(self.command, path, body, header, organisation)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    grafana.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield grafana
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
