"""Signing in elsewhere: who a provider names gets the role of their group, and nobody else gets in."""

from __future__ import annotations

import http.cookiejar
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from apis import Grafana
from estate import gateway_of
from identity_provider import CLIENT_SECRET, Provider

ROLES = {"GrafanaAdmin": ["root"], "Admin": ["platform team"], "Editor": ["dev's"], "Viewer": ["everybody"]}


class Stay(urllib.request.HTTPRedirectHandler):
    """Keeps a redirect as the answer: where it leads is the test's own business."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Browser:
    """Somebody with cookies of their own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies), Stay)

    def get(self, path: str) -> tuple[int, str, str]:
        """Return status, Location and body."""
        try:
            with self.opener.open(self.url + path, timeout=10) as answer:
                return answer.status, "", answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers.get("Location", ""), error.read().decode()

    def sign_in(self, provider: Provider, person: dict[str, Any]) -> bool:
        """Sign in with the provider; say whether Grafana let the person in."""
        status, location, _ = self.get("/login/generic_oauth")
        assert (status, location.partition("?")[0]) == (302, f"{provider.url}/authorize")
        back = provider.authorize(location, person)
        self.get(f"/login/generic_oauth?{urllib.parse.urlencode(back)}")
        return self.get("/api/user")[0] == 200

    def role(self) -> str:
        """The role in the organisation, as Grafana tells it to the person."""
        (org,) = json.loads(self.get("/api/user/orgs")[2])
        return str(org["role"])


def somebody(name: str, *groups: str) -> dict[str, Any]:
    """What the provider says of somebody."""
    return {
        "sub": name,
        "preferred_username": name,
        "name": name.title(),
        "email": f"{name}@sso.test",
        "groups": groups,
    }


@pytest.fixture(scope="module")
def provider(deploy: Any, admin: Grafana) -> Iterator[Provider]:
    """A provider on this machine, which Grafana has been told of; afterwards Grafana is as it was."""
    found = Provider(gateway_of("allin-grafana"))
    try:
        run = deploy("--diff", grafana_oidc=found.settings(roles=ROLES))
        assert run.code == 0, run.output
        assert CLIENT_SECRET not in run.output
        yield found
        # Whom the inventory never named it leaves alone.
        for one in admin.get("/api/users/search?perpage=1000&query=sso.test")["users"]:
            assert admin.status("DELETE", f"/api/admin/users/{one['id']}") == 200
        assert deploy().code == 0
    finally:
        found.stop()


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (("everybody",), "Viewer"),
        (("everybody", "dev's"), "Editor"),
        (("platform team", "dev's", "everybody"), "Admin"),
        (("root",), "Admin"),
    ],
)
def test_a_group_gives_its_role(provider: Provider, url: str, groups: tuple[str, ...], role: str) -> None:
    browser = Browser(url)
    assert browser.sign_in(provider, somebody(f"sso-{role.lower()}-{len(groups)}", *groups))
    assert provider.refusals == []
    assert browser.role() == role
    is_server_admin = json.loads(browser.get("/api/user")[2])["isGrafanaAdmin"]
    assert is_server_admin == ("root" in groups)


@pytest.mark.parametrize("groups", [(), ("strangers",)])
def test_who_is_in_no_group_stays_out(provider: Provider, url: str, groups: tuple[str, ...]) -> None:
    assert not Browser(url).sign_in(provider, somebody("stranger", *groups))
    assert provider.refusals == []


def test_who_leaves_a_group_loses_its_role(provider: Provider, url: str, admin: Grafana) -> None:
    assert Browser(url).sign_in(provider, somebody("mover", "platform team"))
    again = Browser(url)
    assert again.sign_in(provider, somebody("mover", "everybody"))
    assert again.role() == "Viewer"
    # And who leaves all of them does not get in again.
    assert not Browser(url).sign_in(provider, somebody("mover"))
    assert admin.get("/api/users/lookup?loginOrEmail=mover@sso.test")["name"] == "Mover"


def test_a_code_that_another_browser_was_given_is_refused(provider: Provider, url: str) -> None:
    """Prevents: somebody who is signed in as an attacker without knowing it."""
    attacker, victim = Browser(url), Browser(url)
    back = provider.authorize(attacker.get("/login/generic_oauth")[1], somebody("mallory", "everybody"))
    victim.get("/login/generic_oauth")
    victim.get(f"/login/generic_oauth?{urllib.parse.urlencode(back)}")
    assert victim.get("/api/user")[0] == 401


def test_a_default_role_is_for_those_alone_whom_no_source_gives_another(
    deploy: Any, provider: Provider, url: str
) -> None:
    """Prevents: an ID token without groups, which many providers give, that makes everybody what the default says."""
    assert deploy(grafana_oidc=provider.settings(roles=ROLES, default_role="Editor")).code == 0
    nowhere = somebody("sso-nowhere")
    del nowhere["groups"]
    expected = [
        (somebody("sso-chief", "platform team"), "Admin"),
        (somebody("sso-guest", "everybody"), "Viewer"),
        (somebody("sso-stranger", "strangers"), "Editor"),
        (nowhere, "Editor"),
    ]
    try:
        for provider.in_id_token in ((), ("sub", "email", "preferred_username")):
            for who, role in expected:
                browser = Browser(url)
                assert browser.sign_in(provider, who)
                assert browser.role() == role, (who, provider.in_id_token)
    finally:
        provider.in_id_token = ()


def test_people_of_the_inventory_still_sign_in_here(provider: Provider, person: Any) -> None:
    assert person("victor").status("GET", "/api/user") == 200
