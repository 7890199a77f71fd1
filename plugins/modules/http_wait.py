#!/usr/bin/python
"""Ansible module `http_wait`: wait, on the host itself, until an HTTP address answers as it should."""

from __future__ import annotations

DOCUMENTATION = r"""
module: http_wait
author: AllIN operations
short_description: Wait on the host until an HTTP address answers as it should
description:
  - Asks an address from the host itself, again and again, until the answer is as wanted or the time is over.
  - One remote call however often it asks. M(ansible.builtin.uri) with C(until) takes four for each attempt, and waits
    at least a second between two.
  - Changes nothing, so it runs in check mode as in any other.
  - A proxy from the environment is not used; what is asked is a service of the host itself.
options:
  url:
    description: Address to ask, C(http) or C(https).
    type: str
    required: true
  status_code:
    description: Status codes that are wanted.
    type: list
    elements: int
    default: [200]
  present:
    description: Regular expression (multi-line) that must be found in the body.
    type: str
  absent:
    description: Regular expression (multi-line) that must not be found in the body.
    type: str
  timeout:
    description: Seconds after which the module gives up.
    type: float
    default: 30
  validate_certs:
    description: Whether the certificate of an C(https) address must be valid.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Wait until Prometheus is ready
  http_wait:
    url: http://127.0.0.1:9090/-/ready
    timeout: 600
"""

RETURN = r"""
status:
  description: Status code of the last answer.
  returned: when there was one
  type: int
content:
  description: Body of the last answer, as text.
  returned: when there was one
  type: str
json:
  description: The same, parsed.
  returned: when the answer says that it is JSON
  type: raw
attempts:
  description: How often the address was asked.
  returned: always
  type: int
elapsed:
  description: Seconds that it took.
  returned: always
  type: float
"""

import contextlib
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
REQUEST_SECONDS = 5.0


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer: what is asked about is this address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


def ask(opener: urllib.request.OpenerDirector, url: str) -> dict[str, Any]:
    """Return status, content and json of one answer. Raises OSError where nobody answers."""
    try:
        response = opener.open(url, timeout=REQUEST_SECONDS)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        content = response.read().decode("utf-8", "replace")
        answer: dict[str, Any] = {"status": int(response.status), "content": content}
        if "json" in response.headers.get("Content-Type", ""):
            with contextlib.suppress(ValueError):
                answer["json"] = json.loads(content)
    return answer


def complaint(answer: dict[str, Any], parameters: dict[str, Any]) -> str:
    """Say what of the answer is not as wanted, or return an empty string."""
    content = answer["content"]
    if answer["status"] not in parameters["status_code"]:
        return f"it answers {answer['status']}, wanted is {' or '.join(map(str, parameters['status_code']))}"
    if parameters["present"] and not re.search(parameters["present"], content, re.MULTILINE):
        return f"the answer has nothing that matches {parameters['present']!r}"
    if parameters["absent"] and re.search(parameters["absent"], content, re.MULTILINE):
        return f"the answer still has what matches {parameters['absent']!r}"
    return ""


def main() -> None:
    """Ask until the answer is as wanted."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "status_code": {"type": "list", "elements": "int", "default": [200]},
            "present": {"type": "str"},
            "absent": {"type": "str"},
            "timeout": {"type": "float", "default": 30},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if not re.match(r"https?://", parameters["url"]):
        module.fail_json(
            msg=f"url must begin with http:// or https://, not {parameters['url']!r}", attempts=0, elapsed=0.0
        )
    for name in ("present", "absent"):
        try:
            re.compile(parameters[name] or "")
        except re.error as error:
            module.fail_json(msg=f"{name} is not a regular expression: {error}", attempts=0, elapsed=0.0)

    context = ssl.create_default_context()
    if not parameters["validate_certs"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), NoRedirect()
    )

    started = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    attempts = 0
    while True:
        attempts += 1
        answer: dict[str, Any] = {}
        try:
            answer = ask(opener, parameters["url"])
            wrong = complaint(answer, parameters)
        except (OSError, ValueError) as error:
            wrong = f"nobody answers: {getattr(error, 'reason', error)}"
        elapsed = time.monotonic() - started
        result = {**answer, "attempts": attempts, "elapsed": round(elapsed, 2)}
        if not wrong:
            module.exit_json(changed=False, **result)
        if elapsed + pause > parameters["timeout"]:
            module.fail_json(msg=f"{parameters['url']}: {wrong}, after {elapsed:.0f} s", **result)
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
