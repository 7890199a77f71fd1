"""Action `unpacked_releases`: ask a host which releases it has unpacked, and take silence for none."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unpacked_releases
author: AllIN operations
short_description: Ask a host which releases it has unpacked, and take silence for none
description:
  - Lists C(/opt/<name>/releases) in one call. Changes nothing, and needs no privileges.
  - A host that cannot be reached, or does not exist yet, has none. That is no failure, since a later play may make it.
options:
  names:
    description: Services to ask about.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Ask the host what it has
  unpacked_releases:
    names: [prometheus, alertmanager]
"""

RETURN = r"""
releases:
  description: Name -> versions.
  type: dict
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
        _, arguments = self.validate_argument_spec(
            argument_spec={"names": {"type": "list", "elements": "str", "required": True}}
        )
        releases: dict[str, list[str]] = {name: [] for name in arguments["names"]}
        question = {"paths": [str(ROOT / name / "releases") for name in releases], "file_type": "directory"}
        try:
            answer = self._execute_module("ansible.builtin.find", module_args=question, task_vars=task_vars)
        except AnsibleError as error:  # a connection that cannot be made is one of them
            return {"changed": False, "releases": releases, "msg": f"not asked: {error.message}"}
        for one in answer.get("files") or []:
            path = PurePosixPath(one["path"])
            releases[path.parent.parent.name].append(path.name)
        return {"changed": False, "releases": releases}
