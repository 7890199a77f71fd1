"""Callback `left_out`: the last lines of a run say what it has left out, and why."""

from __future__ import annotations

DOCUMENTATION = r"""
name: left_out
type: aggregate
short_description: The last lines of a run say what it has left out
description:
  - Where an archive is optional and cannot be had, C(missing_artifacts) has its hosts go without. This callback repeats
    that behind everything else, where it is read.
  - Says nothing where nothing was left out.
author: AllIN operations
"""

import atexit
from typing import Any

from ansible.plugins.callback import CallbackBase

ACTION = "missing_artifacts"


def lines(left_out: list[dict[str, Any]]) -> list[str]:
    """Return what to print."""
    found = ["", "NOT DEPLOYED, because it is optional in this inventory and its archive was not to be had:"]
    for one in left_out:
        found += [
            f"  {one['role']} {one['version']} on {', '.join(one['hosts'])}: {one['file']}",
            f"    {one['why']}",
        ]
    return [
        *found,
        "  To have it: put the file into the folder, or run playbooks/artifacts.yml where upstream can be reached.",
    ]


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible's types are not looked at
    """Remembers what was left out, and prints it last."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "left_out"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Start with nothing that is left out."""
        super().__init__(*args, **kwargs)
        self._left_out: list[dict[str, Any]] = []

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember what was left out."""
        if result.task.action.rpartition(".")[2] == ACTION:
            self._left_out = list(result.result.get("left_out") or [])

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Print it behind what other callbacks still print now: recap and times."""
        if self._left_out:
            atexit.register(print, "\n".join(lines(self._left_out)))
