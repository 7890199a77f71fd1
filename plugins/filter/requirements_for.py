"""Filter `requirements_for`: what of a locked requirements file a host of another Python needs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from packaging.markers import InvalidMarker, Marker

DOCUMENTATION = r"""
name: requirements_for
author: AllIN operations
short_description: What of a locked requirements file a host of another Python needs
description:
  - Takes the text of a requirements file and returns it without the requirements whose environment marker does not hold
    on the host, and without markers.
  - pip evaluates markers for the Python that runs it, also when it downloads for another one (C(pip download
    --python-version)), so the controller would fetch what its own Python needs.
options:
  _input:
    description: The requirements file, as C(uv pip compile) or C(pip-compile) writes it.
    type: str
    required: true
  version:
    description: The host's Python, in full, for example C(3.11.2).
    type: str
    required: true
  machine:
    description: The host's architecture as C(uname -m) says it.
    type: str
    required: true
"""

EXAMPLES = r"""
text: "{{ lookup('ansible.builtin.file', 'runtime.txt') | requirements_for(version='3.11.2', machine='x86_64') }}"
"""

RETURN = r"""
_value:
  description: The requirements file for that host.
  type: str
"""


def requirements_for(text: str, version: str, machine: str) -> str:
    """Return the requirements of `text` that hold for CPython `version` on Linux, `machine`.

    Raises AnsibleFilterError for a marker that cannot be read.
    """
    environment = {
        "implementation_name": "cpython",
        "implementation_version": version,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
        "sys_platform": "linux",
        "extra": "",
    }
    kept: list[str] = []
    # A requirement goes on over lines that end with a backslash: name==1 ; marker \ --hash=... \ --hash=...
    for entry in text.replace("\\\n", "\0").splitlines():
        first, *hashes = entry.split("\0")
        requirement, semicolon, marker = first.partition(" ; ")
        if semicolon:
            try:
                holds = Marker(marker.strip()).evaluate(environment)
            except InvalidMarker as error:
                raise AnsibleFilterError(f"requirements_for: {first.strip()!r} cannot be read: {error}") from error
            if not holds:
                continue
        kept.append(" \\\n".join([requirement.rstrip(), *(one.rstrip() for one in hashes)]))
    return "\n".join(kept) + "\n"


class FilterModule:
    """What Ansible asks a filter plugin for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"requirements_for": requirements_for}
