"""Action `check_receivers`: find secrets that would be shown, secrets that are not there, and misspelt keys."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_receivers
author: AllIN operations
short_description: Find mistakes in an Alertmanager's receivers, routes and inhibition rules, as the user wrote them
description:
  - Looks at the user's own parts of a configuration on the controller, and fails once, with one line for each problem.
  - A problem is a secret that stands in the configuration, where the release reads it from a file too; a file of
    secrets that nothing writes; a further secret that would replace one of the role's; and a key that is none of
    Alertmanager's.
  - The value of a secret is never shown.
options:
  parts:
    description: The variables that hold parts of the configuration, by name.
    type: dict
    required: true
  release:
    description: Version of the Alertmanager that will read the configuration.
    type: str
    required: true
  release_known:
    description:
      - Whether it is that one. Where the host was not asked yet it may be a newer one, so of the keys that no release
        has only those are problems that look like another one misspelt.
    type: bool
    default: true
  secrets_dir:
    description: Directory of the files of secrets.
    type: str
    required: true
  secrets:
    description: Names of the files that C(alertmanager_extra_secrets) makes.
    type: list
    elements: str
    default: []
  empty_secrets:
    description: Those of them in which nothing would be.
    type: list
    elements: str
    default: []
  own_secrets:
    description: Names of the files that the role itself writes with these settings.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse secrets that would be shown, and secrets that are not there
  check_receivers:
    parts:
      alertmanager_extra_integrations:
        critical: {pagerduty_configs: [{routing_key_file: /etc/alertmanager-secrets/pagerduty}]}
    release: 0.33.1
    secrets_dir: /etc/alertmanager-secrets
    secrets: [pagerduty]
"""

RETURN = r"""
problems:
  description: One line for each problem, as in the message.
  type: list
  elements: str
  returned: always
inline:
  description: Secrets that stand in the configuration because the release reads them from nowhere else.
  type: list
  elements: str
  returned: success
"""

import difflib
import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

OLDEST = (0, 25)  # Debian 12's
TRIXIE = (0, 28)
NEWEST = (0, 33)
# Secrets that may stand in a file -> the first release with the key that ends in _file, of those that we know.
SECRET_KEYS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(
        ("api_key", "auth_password", "bearer_token", "client_secret", "credentials", "password", "routing_key"), OLDEST
    ),
    "service_key": OLDEST,
    **dict.fromkeys(("bot_token", "token", "token_id", "user_key", "webhook_url"), TRIXIE),
    **dict.fromkeys(("alert_source_token", "api_secret", "app_token", "auth_secret"), NEWEST),
}
# Secrets in one place, and something else in others: what they are in -> the key.
SECRET_PLACES: Mapping[str, str] = {"slack_configs": "api_url", "tls_config": "key"}
# Secrets that no release reads from a file.
INLINE_KEYS = ("endpoint_params", "proxy_connect_header", "secret_key")
# Addresses that a file may hold: what they are in -> the first release with the key url_file, of those that we know.
URL_PLACES: Mapping[str, tuple[int, int]] = {"webhook_configs": TRIXIE, "incidentio_configs": NEWEST}
# An address with a password in it.
WITH_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]+@")
# What the user names as they like.
FREE = ("attributes", "custom_fields", "details", "fields", "headers", "payload")

RECEIVER_KEYS = tuple(
    f"{kind}_configs"
    for kind in (
        *("discord", "email", "incidentio", "jira", "mattermost", "msteams", "msteamsv2", "opsgenie", "pagerduty"),
        *("pushover", "rocketchat", "slack", "sns", "telegram", "victorops", "webex", "webhook", "wechat"),
    )
)
ROUTE_KEYS = (
    *("active_time_intervals", "continue", "group_by", "group_interval", "group_wait", "match", "match_re", "matchers"),
    *("mute_time_intervals", "receiver", "repeat_interval", "routes"),
)
INHIBIT_KEYS = (
    *("equal", "name", "source_match", "source_match_re", "source_matchers"),
    *("target_match", "target_match_re", "target_matchers"),
)
# What the role writes in the directory of secrets, with these settings or with others.
ROLE_SECRETS: Mapping[str, str] = {
    "README": "what the directory is for",
    "slack_api_url": "alertmanager_slack_api_url",
    "smtp_password": "alertmanager_smtp_password",
    "heartbeat_url": "alertmanager_heartbeat_url",
}
EXTRA = "alertmanager_extra_secrets"


def meant(name: str, known: Iterable[str]) -> str:
    """Return a guess at what was meant, for a message."""
    # What both end in would make any two of them look close.
    same = "_configs" if name.endswith("_configs") else ""
    close = difflib.get_close_matches(name.removesuffix(same), [one.removesuffix(same) for one in known], n=1)
    return f", did you mean {close[0]}{same}?" if close else ""


class Checker:
    """Collects all problems of one inventory.

    Args:
        release: version of the Alertmanager that will read it.
        secrets_dir: directory of the files of secrets.
        secrets: names of the files that the user's further secrets make.
        own: names of the files that the role writes.
        release_known: false where a newer one may read it.
    """

    def __init__(
        self, release: str, secrets_dir: str, secrets: Sequence[str], own: Sequence[str], *, release_known: bool = True
    ) -> None:
        major, minor = (int(number) for number in release.split(".")[:2])
        self.release = (major, minor)
        self.release_known = release_known
        self.secrets_dir = posixpath.normpath(secrets_dir)
        self.secrets = secrets
        self.own = own
        self.problems: list[str] = []
        self.inline: list[str] = []
        self.advised: dict[str, object] = {}
        """File that a message advises -> the secret that shall be there."""

    def check(self, parts: Mapping[str, Any]) -> None:
        """Check what stands in the variables."""
        self.check_integrations("alertmanager_extra_integrations", parts.get("alertmanager_extra_integrations"))
        for variable in ("alertmanager_environments", "alertmanager_teams"):
            for place, entry in elements(variable, parts.get(variable)):
                self.check_integrations(f"{place}.extra_integrations", entry.get("extra_integrations"))
        for place, receiver in elements("alertmanager_extra_receivers", parts.get("alertmanager_extra_receivers")):
            if not receiver.get("name"):
                self.problems.append(f"{place}: has no name. Write for example: name: pager")
            self.check_receiver(place, {key: value for key, value in receiver.items() if key != "name"})
        self.check_routes("alertmanager_extra_routes", parts.get("alertmanager_extra_routes"))
        variable = "alertmanager_extra_inhibit_rules"
        for place, rule in elements(variable, parts.get(variable)):
            self.check_keys(place, rule, INHIBIT_KEYS, "an inhibition rule")

    def check_secrets(self, empty: Sequence[str]) -> None:
        """Check the names of the further secrets, and that something is in them."""
        for name in self.secrets:
            if name in ROLE_SECRETS:
                self.problems.append(
                    f"{EXTRA}.{name}: is a file that the role writes itself ({ROLE_SECRETS[name]}). "
                    f"Give it another name, for example {name.lower()}_2"
                )
            elif name in empty:
                self.problems.append(f"{EXTRA}.{name}: is empty. Put the secret there, from a vault")

    def check_integrations(self, path: str, integrations: Mapping[str, Any] | None) -> None:
        """Check the parts of receivers that each severity has."""
        for severity, receiver in (integrations or {}).items():
            if isinstance(receiver, Mapping):
                self.check_receiver(f"{path}.{severity}", receiver)

    def check_receiver(self, path: str, receiver: Mapping[str, Any]) -> None:
        """Check the parts of one receiver."""
        self.check_keys(path, receiver, RECEIVER_KEYS, "a receiver")
        for kind, configs in receiver.items():
            # Those of a newer release too.
            if not str(kind).endswith("_configs") or (kind not in RECEIVER_KEYS and self.release <= NEWEST):
                continue
            if not isinstance(configs, list) or not all(isinstance(one, Mapping) for one in configs):
                self.problems.append(
                    f"{path}.{kind}: is no list of mappings. Write each of them behind a dash, or in brackets: "
                    f"{kind}: [{{...}}]"
                )
                continue
            for number, config in enumerate(configs):
                self.check_config(f"{path}.{kind}[{number}]", kind, config, kind.removesuffix("_configs"))

    def check_config(self, path: str, inside: str, config: Mapping[str, Any], name: str) -> None:
        """Check one part of a receiver, and what is in it, for secrets."""
        for key, value in config.items():
            place = f"{path}.{key}"
            if key == "http_headers" and isinstance(value, Mapping):
                self.check_headers(place, value, name)
            elif key in FREE:
                continue
            elif key in INLINE_KEYS:
                if value:
                    self.inline.append(place)
            elif isinstance(value, str) and WITH_PASSWORD.match(value):
                if key == "url" and self.release >= URL_PLACES.get(inside, (999, 0)):
                    self.shown(place, "url_file: {}", f"{name}_url", value)
                else:
                    self.inline.append(place)
            elif isinstance(value, Mapping):
                self.check_config(place, str(key), value, name)
            elif str(key).endswith("_file") and isinstance(value, str):
                self.check_file(place, value, f"{key}: {{}}")
            elif value and (key in SECRET_KEYS or SECRET_PLACES.get(inside) == key):
                if self.release < SECRET_KEYS.get(key, OLDEST):
                    self.inline.append(place)
                    continue
                self.shown(place, f"{key}_file: {{}}", f"{name}_{key}", value)

    def check_headers(self, path: str, headers: Mapping[str, Any], name: str) -> None:
        """Check the further headers of requests."""
        for header, content in headers.items():
            if not isinstance(content, Mapping):
                continue
            file = f"{name}_{header}".lower().replace("-", "_")
            if content.get("secrets"):
                self.shown(f"{path}.{header}.secrets", "files: [{}]", file, content["secrets"])
            files = content.get("files")
            for number, value in enumerate(files if isinstance(files, list) else []):
                self.check_file(f"{path}.{header}.files[{number}]", str(value), "files: [{}]")

    def free_file(self, name: str, secret: object = None) -> str:
        """Return a name for a file of secrets that neither the role has nor another secret was given."""
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        return next(
            one for one in candidates if one not in ROLE_SECRETS and self.advised.setdefault(one, secret) == secret
        )

    def shown(self, place: str, instead: str, name: str, secret: object) -> None:
        """Note a secret that must stand in a file."""
        key = place.rpartition(".")[2]
        file = self.free_file(name, secret)
        self.problems.append(
            f"{place}: a secret in alertmanager.yml is shown by --diff. Instead of {key} write "
            f"{instead.format(f'{self.secrets_dir}/{file}')}, and from a vault {EXTRA}: {{{file}: ...}}"
        )

    def check_file(self, place: str, value: str, again: str) -> None:
        """Check that something writes a file of secrets."""
        path = posixpath.normpath(value)
        if not path.startswith(f"{self.secrets_dir}/"):
            return
        name = path.removeprefix(f"{self.secrets_dir}/")
        if name not in self.secrets and name not in self.own:
            what = f"nothing writes {path}"
            file, other = name, ""
            if name in ROLE_SECRETS:
                what += f", which is of {ROLE_SECRETS[name]} where that is in use"
                file = self.free_file(name, path)
                other = f" {again.format(f'{self.secrets_dir}/{file}')}, and"
            guess = meant(name, [*self.secrets, *self.own])
            self.problems.append(
                f"{place}: {what}{guess + ' Or write' if guess else '. Write'}{other} from a vault: "
                f"{EXTRA}: {{{file}: ...}}"
            )

    def check_routes(self, path: str, routes: Any) -> None:
        """Check the keys of routes, and of those in them."""
        for place, route in elements(path, routes):
            self.check_keys(place, route, ROUTE_KEYS, "a route")
            self.check_routes(f"{place}.routes", route.get("routes"))

    def check_keys(self, path: str, part: Mapping[str, Any], known: Sequence[str], what: str) -> None:
        """Find keys that Alertmanager has not."""
        # A release newer than those that we know may have more; its own amtool judges before it gets the configuration.
        if self.release > NEWEST:
            return
        for key in part:
            if key not in known:
                guess = meant(str(key), known)
                if guess or self.release_known:
                    guess = guess or ". There are: " + ", ".join(known)
                    self.problems.append(f"{path}.{key}: is no key of {what}{guess}")


def elements(path: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the mappings of a list, each with its place."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            if isinstance(one, Mapping):
                yield f"{path}[{number}]", one


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action plugin."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check; raise AnsibleActionFail with all problems."""
        super().run(tmp, task_vars)
        texts = {"type": "list", "elements": "str", "default": []}
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "parts": {"type": "dict", "required": True},
                "release": {"type": "str", "required": True},
                "release_known": {"type": "bool", "default": True},
                "secrets_dir": {"type": "str", "required": True},
                "secrets": texts,
                "empty_secrets": texts,
                "own_secrets": texts,
            }
        )
        checker = Checker(
            arguments["release"],
            arguments["secrets_dir"],
            arguments["secrets"],
            arguments["own_secrets"],
            release_known=arguments["release_known"],
        )
        checker.check(arguments["parts"])
        checker.check_secrets(arguments["empty_secrets"])
        if checker.problems:
            count = len(checker.problems)
            counted = "1 setting" if count == 1 else f"{count} settings"
            raise AnsibleActionFail(
                "\n".join(
                    [
                        f"{counted} of the role alertmanager must be corrected:",
                        *(f"- {one}" for one in checker.problems),
                    ]
                ),
                result={"problems": checker.problems},
            )
        return {"changed": False, "problems": [], "inline": checker.inline}
