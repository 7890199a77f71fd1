"""Filters `grafana_ini` and `grafana_role_path`: what Grafana reads, from what an inventory says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: grafana
author: AllIN operations
short_description: What Grafana reads, from what an inventory says
description:
  - C(grafana_ini) writes a mapping of sections to settings as Grafana's configuration file. A setting that is null is
    left out, so that Grafana's own default holds. Values with characters that mean something to the format are quoted.
  - C(grafana_role_path) writes a mapping of roles to groups of people as the JMESPath expression by which Grafana finds
    the role of who signs in. The strongest role of somebody's groups counts.
options:
  _input:
    description: The mapping.
    type: dict
    required: true
"""

EXAMPLES = r"""
ini: "{{ {'server': {'http_port': 3001}} | grafana_ini }}"
path: "{{ {'Admin': ['platform-team']} | grafana_role_path(default='Viewer') }}"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

TOP = "DEFAULT"
"""Settings above the first section."""
ROLES = ("GrafanaAdmin", "Admin", "Editor", "Viewer")
"""From strong to weak."""
QUOTED = set('#;`"\\')


def value_text(section: str, key: str, value: object) -> str:
    """Return a value as the file has it. Raises AnsibleFilterError for what it cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, Mapping)):
        raise AnsibleFilterError(f"grafana_settings: {section}.{key} is a list or a mapping; Grafana wants a text.")
    text = str(value)
    if "\n" in text or "\r" in text or '"""' in text:
        raise AnsibleFilterError(f"grafana_settings: {section}.{key} must be one line without three quotes in a row.")
    # ; and # would begin a comment, and ` and " end at the next of their kind.
    return f'"""{text}"""' if set(text) & QUOTED or text != text.strip() else text


def grafana_ini(settings: Mapping[str, Any]) -> str:
    """Return sections and settings as Grafana's configuration file."""
    blocks = []
    for section, entries in settings.items():
        if entries is None:
            continue
        if not isinstance(entries, Mapping):
            raise AnsibleFilterError(f"grafana_settings: {section} must be a mapping of settings to values.")
        lines = [
            f"{key} = {value_text(section, key, value)}".rstrip() for key, value in entries.items() if value is not None
        ]
        if lines:
            blocks.append("\n".join(lines if section == TOP else [f"[{section}]", *lines]))
    blocks.sort(key=lambda block: block.startswith("["))  # what has no section stands first
    return "\n\n".join(blocks)


def literal(text: str) -> str:
    """Return a text as JMESPath's raw string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def grafana_role_path(roles: Mapping[str, Sequence[str]], default: str = "", groups: str = "groups") -> str:
    """Return the JMESPath expression that gives the strongest role of somebody's groups, or `default`."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise AnsibleFilterError(f"grafana_oidc: roles has {', '.join(unknown)}; there are {', '.join(ROLES)}.")
    parts = []
    for role in ROLES:
        tests = [f"contains({groups}[*], {literal(name)})" for name in roles.get(role) or ()]
        if tests:
            parts.append(f"({' || '.join(tests)}) && {literal(role)}")
    if default:
        parts.append(literal(default))
    return " || ".join(parts)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"grafana_ini": grafana_ini, "grafana_role_path": grafana_role_path}
