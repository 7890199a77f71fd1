"""Action `check_rule_files`: find rule files that Prometheus would never read, and those that would replace others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_rule_files
author: AllIN operations
short_description: Find the user's rule files that would be lost
description:
  - Looks on the controller at what each pattern of C(prometheus_rule_files) has found, and fails once, with one line
    for each problem.
  - A problem is a pattern that finds nothing; a wildcard in the directory, which is not expanded; a file whose name
    does not end in C(.yml), which Prometheus would not read; two files of one name, of which one would replace the
    other; and a file with the name of one of the role's.
options:
  found:
    description: What was found, one entry for each pattern, with C(pattern) and C(paths).
    type: list
    elements: dict
    required: true
  reserved:
    description: Names that the user's files must not have.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse rule files that would be lost
  check_rule_files:
    found:
      - pattern: /srv/rules/*.yml
        paths: [/srv/rules/payments.yml]
    reserved: [20-backend.rules.yml]
"""

RETURN = r"""
problems:
  description: One line for each problem, as in the message.
  type: list
  elements: str
  returned: always
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

VARIABLE = "prometheus_rule_files"
WILDCARDS = "*?["


def write(pattern: str) -> str:
    """Return the line to write."""
    return f"{VARIABLE}: ['{pattern}']"


def of_pattern(place: str, pattern: str, paths: Sequence[str]) -> str | None:
    """Say why a pattern finds nothing, where it does."""
    directory = Path(pattern).parent
    if any(sign in str(directory) for sign in WILDCARDS):
        return (
            f"{place}: {pattern} has a wildcard in its directory, which is not expanded, so it finds nothing. "
            f"Write one pattern for each directory, for example: {write('/srv/rules/payments/*.yml')}"
        )
    if paths:
        return None
    if pattern.startswith("~"):
        return (
            f"{place}: {pattern} finds no file, since ~ is not expanded. Write for example: {write('/srv/rules/*.yml')}"
        )
    if Path(pattern).is_dir():
        return f"{place}: {pattern} is a directory. Write for example: {write(pattern.rstrip('/') + '/*.yml')}"
    return (
        f"{place}: {pattern} finds no file on this machine. Correct the path or remove it; write for example: "
        f"{write('/srv/rules/*.yml')}"
    )


def problems(found: Sequence[Mapping[str, Any]], reserved: Sequence[str]) -> Iterator[str]:
    """Yield one line for each problem.

    Args:
        found: `pattern` and the `paths` that it has found.
        reserved: names that the user's files must not have.
    """
    taken: dict[str, Path] = {}
    seen: set[Path] = set()
    for number, one in enumerate(found):
        place = f"{VARIABLE}[{number}]"
        said = of_pattern(place, str(one["pattern"]), one["paths"])
        if said is not None:
            yield said
            continue
        for path in sorted(Path(text) for text in one["paths"]):
            # Two patterns that find one file find it once.
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            if path.suffix != ".yml":
                new = path.with_suffix(".yml") if path.suffix == ".yaml" else path.with_name(f"{path.name}.yml")
                yield (
                    f"{place}: Prometheus would not read {path}, because its name does not end in .yml. "
                    f"Rename it to {new.name}; or, if it holds no rules, write for example: "
                    f"{write(f'{path.parent}/*.yml')}"
                )
            elif path.name in reserved:
                yield (
                    f"{place}: {path} has the name of a file of this repository, which it would replace. "
                    f"Rename it, for example to 95-{path.name.partition('-')[2] or path.name}"
                )
            elif path.name in taken:
                yield (
                    f"{place}: {path} has the same name as {taken[path.name]}, and only one of the two would be there. "
                    f"Rename one, for example to {path.parent.name}-{path.name}"
                )
            else:
                taken[path.name] = path


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action plugin."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check; raise AnsibleActionFail with all problems."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "found": {"type": "list", "elements": "dict", "required": True},
                "reserved": {"type": "list", "elements": "str", "default": []},
            }
        )
        lines = list(problems(arguments["found"], arguments["reserved"]))
        if lines:
            counted = "1 rule file or pattern" if len(lines) == 1 else f"{len(lines)} rule files or patterns"
            raise AnsibleActionFail(
                "\n".join([f"{counted} cannot work as written:", *(f"- {line}" for line in lines)]),
                result={"problems": lines},
            )
        return {"changed": False, "problems": []}
