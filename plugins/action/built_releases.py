"""Action `built_releases`: ask a host for its Python and what is built there, and take silence for neither."""

from __future__ import annotations

DOCUMENTATION = r"""
module: built_releases
author: AllIN operations
short_description: Ask a host for its Python and what is built there, and take silence for neither
description:
  - A release that is a virtual environment is built on the host, for the host's Python, and has a file C(.complete)
    when it is. Changes nothing, and needs no privileges.
  - A host that cannot be reached, or does not exist yet, has told nothing. That is no failure, since a later play may
    make it.
options:
  name:
    description: Service whose releases are in C(/opt/<name>/releases).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Ask the host what it has
  built_releases:
    name: allin-backend
"""

RETURN = r"""
python:
  description: Version of its Python, major and minor, for example 3.13; empty where it did not answer.
  type: str
  returned: always
machine:
  description: Its architecture as C(uname -m) says it; empty where it did not answer.
  type: str
  returned: always
releases:
  description: Versions that are complete.
  type: list
  elements: str
  returned: always
"""

from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

ROOT = PurePosixPath("/opt")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Entry point for Ansible."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec={"name": {"type": "str", "required": True}})
        complete = {
            "paths": [str(ROOT / arguments["name"] / "releases")],
            "patterns": [".complete"],
            "hidden": True,
            "recurse": True,
            "depth": 2,
        }
        silence = {"changed": False, "python": "", "machine": "", "releases": []}
        try:
            facts = self.ask(
                "ansible.builtin.setup", {"gather_subset": ["!all", "!min", "platform", "python"]}, task_vars
            )
            found = self.ask("ansible.builtin.find", complete, task_vars)
        except AnsibleError as error:  # a connection that cannot be made is one of them
            return {**silence, "msg": f"not asked: {error.message}"}
        facts = facts.get("ansible_facts") or {}
        version = (facts.get("ansible_python") or {}).get("version") or {}
        return {
            "changed": False,
            "python": f"{version['major']}.{version['minor']}" if version else "",
            "machine": str(facts.get("ansible_architecture") or ""),
            "releases": sorted(PurePosixPath(one["path"]).parent.name for one in found.get("files") or []),
        }

    def ask(self, module: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Return a module's answer. Raises AnsibleError where the host cannot be reached."""
        return dict(self._execute_module(module, module_args=arguments, task_vars=task_vars))
