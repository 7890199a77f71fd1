#!/usr/bin/python
"""Ansible module `datasource_check`: find out whether Grafana gets data from its data sources, and why not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: datasource_check
author: AllIN operations
short_description: Find out whether Grafana gets data from its data sources
description:
  - Runs on a Grafana host. Asks Grafana, over its own API, to test each data source, as its page would; a source of the
    type C(prometheus) is asked for data too, through Grafana.
  - Names each trouble as V(Data source fails) or V(No data), with what was seen and with the cure. Reports, and never
    fails; whoever has registered the result decides. Changes nothing.
options:
  url:
    description: Address of Grafana as the host itself reaches it.
    type: str
    required: true
  user:
    description: Account that may see the data sources.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  uids:
    description: Data sources that there must be.
    type: list
    elements: str
    default: [prometheus]
  validate_certs:
    description: Whether the certificate of an C(https) address must be valid.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Test the data sources
  datasource_check:
    url: http://127.0.0.1:3001
    user: admin
    password: "{{ grafana_admin_password }}"
"""

RETURN = r"""
troubles:
  description: What is wrong, each with C(case), C(what), C(seen) and C(cure).
  returned: always
  type: list
  elements: dict
lines:
  description: The same for people, a line each; one line where all is well.
  returned: always
  type: list
  elements: str
"""

import base64
import json
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

REQUEST_SECONDS = 40.0
"""Longer than Grafana waits for a data source."""
CONNECT_SECONDS = 5.0
CLOCK_SECONDS = 60.0
FAILS = "Data source fails"
NO_DATA = "No data"
RUN = "ansible-playbook site.yml --tags grafana"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        case: how people call it.
        what: where it is.
        seen: what was seen there.
        cure: what to do.
    """

    case: str
    what: str
    seen: str
    cure: str

    def __str__(self) -> str:
        """Return it as a line for people."""
        return f"{self.case}: {self.what}: {self.seen}. Cure: {self.cure}{'' if self.cure.endswith('?') else '.'}"


@dataclass(frozen=True)
class Answer:
    """An answer of Grafana; `status` is 0 where there was none, and `text` then says why."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        """The content, parsed; an empty mapping where it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return {}

    @property
    def message(self) -> str:
        """What it says, in a line."""
        content = self.json
        said = content.get("message") or content.get("error") if isinstance(content, dict) else ""
        return " ".join(str(said or self.text).split())[:300].rstrip(".")


class Grafana:
    """The API of one Grafana."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.url = parameters["url"].rstrip("/")
        account = f"{parameters['user']}:{parameters['password']}".encode()
        # The administrator may work in another organisation at the moment.
        self.headers = {"Authorization": f"Basic {base64.b64encode(account).decode()}", "X-Grafana-Org-Id": "1"}
        context = ssl.create_default_context()
        if not parameters["validate_certs"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def get(self, path: str) -> Answer:
        """Return the answer to a path below the API's root."""
        request = urllib.request.Request(f"{self.url}/api/{path}", headers=self.headers)  # noqa: S310 - of the inventory
        try:
            with self.opener.open(request, timeout=REQUEST_SECONDS) as answer:
                text = answer.read().decode("utf-8", "replace")
                return Answer(int(answer.status), text)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode("utf-8", "replace"))
        except (OSError, ValueError) as error:
            return Answer(0, str(getattr(error, "reason", error)))


def connection(url: str) -> str:
    """Return what is wrong with connecting to an address from this host; empty where a connection can be made."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except socket.gaierror:
        return "name"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError:
        return "route"
    return ""


def cure_of(source: dict[str, Any], problem: str) -> str:
    """Return what to do about a data source that cannot be reached from Grafana's host, or can."""
    url = str(source.get("url"))
    host = urllib.parse.urlsplit(url).hostname or url
    setting = (
        "grafana_prometheus_url" if source["uid"] == "prometheus" else f"the url of the data source {source['uid']}"
    )
    here = f", as seen from Grafana's host, where {host} is Grafana's host itself" if host in LOOPBACK else ""
    cures = {
        "name": f"{host} has no address on Grafana's host: correct {setting}, or the name service",
        "refused": (
            f"nothing listens at {url}{here}. Is the service up, and does it listen on an address that Grafana's host "
            f"reaches (<role>_listen_address is 127.0.0.1 by default)? Else correct {setting}"
        ),
        "timeout": f"a firewall between Grafana's host and {host} drops it, or {host} is down",
        "route": f"no way from Grafana's host to {host}: routes, or a firewall that refuses",
        "": f"something answers at {url}, but not as it should. The right service and path? curl {url}; {setting}",
    }
    return cures[problem]


class Check:
    """One look at all data sources."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.grafana = Grafana(parameters)
        self.wanted: list[str] = parameters["uids"]
        self.tested: list[str] = []

    def look(self) -> list[Trouble]:
        """Return all that is wrong."""
        answer = self.grafana.get("datasources")
        where = f"Grafana at {self.grafana.url}"
        if answer.status == 0:
            cure = "systemctl status grafana; journalctl --unit grafana"
            return [Trouble(FAILS, where, f"it does not answer: {answer.message}", cure)]
        if answer.status in (401, 403):
            seen = f"it refuses the administrator: {answer.status} {answer.message}"
            return [Trouble(FAILS, where, seen, f"{RUN} sets the password that the inventory has")]
        if answer.status != 200:
            cure = "journalctl --unit grafana"
            return [Trouble(FAILS, where, f"it answers {answer.status} {answer.message}", cure)]
        sources = {str(one["uid"]): one for one in answer.json}
        missing = [
            Trouble(
                FAILS, uid, "Grafana has no such data source", f"{RUN}; journalctl --unit grafana | grep provisioning"
            )
            for uid in self.wanted
            if uid not in sources
        ]
        found = [trouble for source in sources.values() if (trouble := self.of_source(source))]
        return [*missing, *found]

    def of_source(self, source: dict[str, Any]) -> Trouble | None:
        """Return what is wrong with one data source."""
        uid, kind = str(source["uid"]), str(source["type"])
        if kind == "prometheus":
            answer = self.grafana.get(f"datasources/uid/{uid}/health")
            good = answer.status == 200 and answer.json.get("status") == "OK"
        elif kind == "alertmanager":  # its plugin has no test of its own in the server
            answer = self.grafana.get(f"datasources/proxy/uid/{uid}/api/v2/status")
            good = answer.status == 200 and "cluster" in answer.json
        else:
            return None  # only its own plugin knows
        self.tested.append(uid)
        if not good:
            url = str(source.get("url"))
            seen = f"Grafana's test of {url} says: {answer.message or answer.status}"
            return Trouble(FAILS, uid, seen, cure_of(source, connection(url)))
        return self.without_data(uid, source) if kind == "prometheus" else None

    def without_data(self, uid: str, source: dict[str, Any]) -> Trouble | None:
        """Return why panels of a data source that answers would be empty."""
        answer = self.grafana.get(f"datasources/proxy/uid/{uid}/api/v1/query?query=count(up)")
        try:
            data = answer.json["data"]["result"]
            taken = float(answer.json["data"]["result"][0]["value"][0]) if data else 0.0
        except (KeyError, IndexError, TypeError, ValueError):
            return Trouble(FAILS, uid, f"a query through Grafana answers {answer.status} {answer.message}", RUN)
        if not data:
            url = str(source.get("url"))
            cure = f"is {url} the Prometheus that scrapes this estate? Its targets: {url}/targets"
            return Trouble(NO_DATA, uid, "it answers, and has not a single target", cure)
        # Prometheus evaluates at its own time. What it is asked for is of Grafana's time, and of the browser's.
        skew = taken - time.time()
        if abs(skew) > CLOCK_SECONDS:
            seen = (
                f"Prometheus' clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of Grafana's host"
            )
            return Trouble(NO_DATA, uid, seen, "time synchronisation on both hosts: timedatectl status")
        return None


def main() -> None:
    """Look once."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "uids": {"type": "list", "elements": "str", "default": ["prometheus"]},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    check = Check(module.params)
    troubles = check.look()
    well = f"Grafana gets data from its data sources: {', '.join(sorted(check.tested))}."
    module.exit_json(
        changed=False,
        troubles=[vars(one) for one in troubles],
        lines=[str(one) for one in troubles] or [well],
    )


if __name__ == "__main__":
    main()
