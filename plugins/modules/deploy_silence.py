#!/usr/bin/python
"""Ansible module `deploy_silence`: keep Alertmanager quiet about the hosts of a deployment, for a bounded time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_silence
author: AllIN operations
short_description: Keep Alertmanager quiet about the hosts of a deployment, for a bounded time
description:
  - Sets silences through the API of an Alertmanager, which tells the other members of its cluster, or lifts them again.
  - One is for the alerts of O(hosts) (label C(host)), one for those of O(jobs) that are about no single host (without
    that label). Neither hides the Watchdog, nor anything of a host or a job that is not named.
  - Where no Alertmanager answers, as at a first deployment, nothing is silenced, which is no error.
  - Nothing of it is left after the run, so it reports no change. In check mode it sets none.
options:
  url:
    description: Address of Alertmanager as the host reaches it.
    type: str
    required: true
  state:
    description: Whether to set the silences or to lift those of O(silences).
    type: str
    choices: [present, absent]
    default: present
  hosts:
    description: Values of the label C(host).
    type: list
    elements: str
    default: []
  jobs:
    description: Values of the label C(job), of jobs all of whose targets are concerned.
    type: list
    elements: str
    default: []
  minutes:
    description: When the silences end by themselves, whatever happens to the run.
    type: int
    default: 30
  created_by:
    description: Who silences.
    type: str
    default: ""
  comment:
    description: Why.
    type: str
    default: ""
  silences:
    description: Ids of what is to be lifted.
    type: list
    elements: str
    default: []
  wait_seconds:
    description:
      - How long to wait at most, before lifting, until what began during the silences is over. A service that has just
        been started again is seen by the next scrape; without this its alert would be told when it is over already.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Silence the hosts that are about to change
  deploy_silence:
    url: http://127.0.0.1:9093
    hosts: [app1, app2]
    jobs: [backend-api-production]
    created_by: jane
    comment: Deployment by site.yml
"""

RETURN = r"""
silences:
  description: Ids of the silences that were set.
  returned: always
  type: list
  elements: str
url:
  description: The address, as given.
  returned: always
  type: str
"""

import json
import re
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule

REQUEST_SECONDS = 10.0
POLL_SECONDS = 2.0


def call(method: str, url: str, body: Any = None) -> Any:
    """Send one request and return the JSON of the answer, or None for an empty one. Raises OSError, ValueError."""
    request = urllib.request.Request(  # noqa: S310 - of the inventory
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    # A proxy from the environment cannot reach the host's own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=REQUEST_SECONDS) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def any_of(values: list[str]) -> str:
    """Return a regular expression for exactly these values."""
    return "|".join(re.escape(value) for value in sorted(values))


def matchers(name: str, values: list[str], **others: str) -> list[dict[str, Any]]:
    """Return the matchers of one silence: one of these values, these other labels, and not the Watchdog."""
    return [
        {"name": name, "value": any_of(values), "isRegex": True, "isEqual": True},
        *({"name": other, "value": value, "isRegex": False, "isEqual": True} for other, value in others.items()),
        {"name": "alertname", "value": "Watchdog", "isRegex": False, "isEqual": False},
    ]


def silence(parameters: dict[str, Any]) -> list[str]:
    """Set the silences and return their ids. Raises OSError, ValueError."""
    now = datetime.now(UTC)
    ends = now + timedelta(minutes=parameters["minutes"])
    wanted = []
    if parameters["hosts"]:
        wanted.append(matchers("host", parameters["hosts"]))
    if parameters["jobs"]:
        wanted.append(matchers("job", parameters["jobs"], host=""))
    ids = []
    for one in wanted:
        body = {
            "matchers": one,
            "startsAt": now.isoformat(),
            "endsAt": ends.isoformat(),
            "createdBy": parameters["created_by"] or "ansible",
            "comment": parameters["comment"] or "Deployment",
        }
        ids.append(str(call("POST", f"{parameters['url']}/api/v2/silences", body)["silenceID"]))
    return ids


def hushed(url: str, silences: list[str]) -> list[str]:
    """Return the names of the alerts that these silences hide and that began after them. Raises OSError, ValueError."""
    begin = [str(call("GET", f"{url}/api/v2/silence/{number}")["startsAt"]) for number in silences]
    starts = min((moment(one) for one in begin), default=datetime.now(UTC))
    return [
        str(one["labels"].get("alertname"))
        for one in call("GET", f"{url}/api/v2/alerts") or []
        if set(silences) & set(one["status"]["silencedBy"]) and moment(one["startsAt"]) > starts
    ]


def moment(text: str) -> datetime:
    """Return a time of Alertmanager's. Raises ValueError."""
    # Old Pythons read neither Z nor a number of decimals other than three or six.
    return datetime.fromisoformat(re.sub(r"[.][0-9]+", "", text.replace("Z", "+00:00")))


def wait_until_over(url: str, silences: list[str], seconds: int) -> None:
    """Wait until nothing that began during the silences goes on; no longer than that, and not where nobody answers."""
    deadline = time.monotonic() + seconds
    try:
        while hushed(url, silences) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    except (OSError, ValueError, KeyError):
        # That the silences cannot be lifted either is said there.
        return


def reason(error: Exception) -> str:
    """Return what an error says, with the answer's body where there is one."""
    if isinstance(error, urllib.error.HTTPError):
        with error:
            return f"{error.code} {error.read(500).decode('utf-8', 'replace').strip()}"
    return str(getattr(error, "reason", error))


def main() -> None:
    """Set or lift silences."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "jobs": {"type": "list", "elements": "str", "default": []},
            "minutes": {"type": "int", "default": 30},
            "created_by": {"type": "str", "default": ""},
            "comment": {"type": "str", "default": ""},
            "silences": {"type": "list", "elements": "str", "default": []},
            "wait_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    url = parameters["url"] = parameters["url"].rstrip("/")
    result: dict[str, Any] = {"changed": False, "silences": [], "url": url}
    if module.check_mode:
        module.exit_json(msg="Nothing is silenced in check mode.", **result)
    if parameters["state"] == "absent":
        wait_until_over(url, parameters["silences"], parameters["wait_seconds"])
        for number in parameters["silences"]:
            try:
                call("DELETE", f"{url}/api/v2/silence/{number}")
            except (OSError, ValueError) as error:
                module.warn(
                    f"The silence {number} at {url} could not be lifted ({reason(error)}); it ends by itself."
                    f" By hand: amtool --alertmanager.url={url} silence expire {number}"
                )
        module.exit_json(msg=f"Lifted: {', '.join(parameters['silences']) or 'nothing'}", **result)
    try:
        call("GET", f"{url}/api/v2/status")
    except (OSError, ValueError) as error:
        module.exit_json(msg=f"No Alertmanager answers at {url} ({reason(error)}), so nothing is silenced.", **result)
    try:
        result["silences"] = silence(parameters)
    except (OSError, ValueError, KeyError) as error:
        module.fail_json(msg=f"{url} does not take the silence: {reason(error)}", **result)
    module.exit_json(msg=f"For {parameters['minutes']} minutes: {', '.join(result['silences'])}", **result)


if __name__ == "__main__":
    main()
