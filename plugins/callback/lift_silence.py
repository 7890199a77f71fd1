"""Callback `lift_silence`: lift the silence of a run that ends without having done so itself, because it failed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lift_silence
type: aggregate
short_description: Lift the silence of a run that failed
description:
  - A play that fails ends the run, so that no later play can lift what M(deploy_silence) has set. At the end of every
    run this callback lifts what is still set, from the host where it was set, over the run's own connection.
  - Does nothing in a run that set no silence, or that lifted it.
author: AllIN operations
"""

from typing import Any

from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.playbook.play import Play
from ansible.plugins.callback import CallbackBase

MODULE = "deploy_silence"


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible's types are not looked at
    """Remembers what was silenced, and lifts it after the last play."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lift_silence"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Start with nothing that is silenced."""
        super().__init__(*args, **kwargs)
        self._silenced: dict[str, tuple[str, str]] = {}
        """Id of each silence -> the host where it was set, and Alertmanager's address there."""
        self._play: Any = None
        self._passwords: dict[str, str] = {}

    def set_play_context(self, play_context: Any) -> None:
        """Keep the passwords that were asked for on the command line."""
        self._passwords = {"conn_pass": play_context.password, "become_pass": play_context.become_pass}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Keep a play, which knows inventory and variables."""
        self._play = play

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember what a task without a loop has set or lifted."""
        self._remember(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Remember what one turn of a loop has set or lifted."""
        self._remember(result)

    def _remember(self, result: Any) -> None:
        answer = result.result
        if result.task.action.rpartition(".")[2] != MODULE or "url" not in answer:
            return
        host = answer.get("_ansible_delegated_vars", {}).get("ansible_delegated_host") or result.host.get_name()
        for number in answer["silences"]:
            self._silenced[number] = (host, answer["url"])
        for number in answer.get("invocation", {}).get("module_args", {}).get("silences") or []:
            self._silenced.pop(number, None)

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Lift what is still set."""
        silenced, self._silenced = self._silenced, {}
        for number, (host, url) in silenced.items():
            try:
                self._lift(number, host, url)
            except Exception as error:
                self._display.warning(f"The silence {number} could not be lifted: {error}. It ends by itself.")

    def _lift(self, number: str, host: str, url: str) -> None:
        variables, loader = self._play.get_variable_manager(), self._play.get_loader()
        inventory = variables._inventory
        # The play that failed had restricted it to its own hosts; --limit may leave this one out.
        inventory.remove_restriction()
        inventory.subset(None)
        task = {"name": f"Lift the silence {number}", MODULE: {"url": url, "state": "absent", "silences": [number]}}
        play = Play.load(
            {
                "name": "Lift the silence of a run that failed",
                "hosts": host,
                "gather_facts": False,
                "tags": ["always"],
                "tasks": [task],
            },
            variable_manager=variables,
            loader=loader,
        )
        queue = TaskQueueManager(inventory, variables, loader, self._passwords, run_additional_callbacks=False)
        try:
            if queue.run(play):
                raise RuntimeError(f"{host} does not answer")
        finally:
            queue.cleanup()
