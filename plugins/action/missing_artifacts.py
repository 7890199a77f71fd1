"""Action `missing_artifacts`: say what an estate lacks, and how to supply it, or who goes without."""

from __future__ import annotations

DOCUMENTATION = r"""
module: missing_artifacts
author: AllIN operations
short_description: Say what an estate lacks, and how to supply it, or who goes without
description:
  - Judges what the action C(artifacts) has found, on the controller. Fails with one table where something is missing
    that this run needs; returns the hosts that go without where it is optional.
  - A host that has the release unpacked already needs no archive.
options:
  artifacts:
    description: What C(artifacts) has returned.
    type: list
    elements: dict
    required: true
  roles:
    description: Roles that this run deploys. What others lack stops nobody.
    type: list
    elements: str
    required: true
  answers:
    description: Host -> what C(unpacked_releases) has returned there.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Say what is missing
  missing_artifacts:
    artifacts: "{{ looked.artifacts }}"
    roles: [prometheus, grafana]
"""

RETURN = r"""
left_out:
  description: Roles that hosts go without, each with C(role), C(version), C(file), C(hosts) and C(why).
  type: list
  elements: dict
  returned: always
missing:
  description: Names of the files that are missing.
  type: list
  elements: str
  returned: always
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase

HEADINGS = ("ROLE", "VERSION", "ARCH", "FILE", "FOR", "LOOKED IN", "CAME BACK")
PACKAGED = ("prometheus", "alertmanager", "node_exporter")
"""Roles that Debian has a package for."""
WHEELS = ("backend",)
"""Roles that are made of Python packages instead of an archive."""
COUNTS = {2: "Two", 3: "Three", 4: "Four"}


def has(answers: Mapping[str, Any], host: str, one: Mapping[str, Any]) -> bool:
    """Say whether a host has unpacked what an archive would bring."""
    releases = (answers.get(host) or {}).get("releases") or {}
    return bool(one["architecture"]) and one["version"] in releases.get(one["role"], [])


def lacking(artifacts: Sequence[Mapping[str, Any]], answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is missing, with the hosts that cannot do without."""
    found = []
    for one in artifacts:
        hosts = [host for host in one["hosts"] if not has(answers, host, one)]
        if hosts and not one["found"]:
            found.append({**one, "hosts": hosts})
    return found


def table(missing: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the missing ones, a line for each place that was looked in."""
    rows = [HEADINGS]
    for one in missing:
        cells = (one["role"], one["version"], one["architecture"] or "any", one["file"], some(one["hosts"]))
        for number, look in enumerate(one["looked"]):
            # The file's name has a column of its own.
            place = look["place"].removesuffix(f"/{one['file']}")
            rows.append((*(cells if number == 0 else ("",) * 5), place, look["said"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = (zip(row, widths, strict=True) for row in rows)
    return ["  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines]


def some(hosts: Sequence[str]) -> str:
    """Return the names of hosts, of many only the first."""
    return ", ".join(hosts) if len(hosts) < 4 else f"{', '.join(hosts[:3])} and {len(hosts) - 3} more"


def ways(missing: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ways to supply what is missing."""
    roles = sorted({str(one["role"]) for one in missing})
    archives = [role for role in roles if role not in WHEELS]
    wheels = len(archives) < len(roles)
    folders = ["artifacts_dir: /path"] * bool(archives) + ["backend_wheels_dir: /path/wheels"] * wheels
    found = [
        [
            "A folder. Where upstream is reached: ansible-playbook -i <inventory> playbooks/artifacts.yml",
            f"-e artifacts_into=/path; bring it to this controller; in the inventory: {', '.join(folders)}",
        ]
    ]
    if archives:
        other = [f"another version, {', '.join(f'{role}_version' for role in archives)}, that one of these places has"]
        if packaged := [f"{role}_install_method: package" for role in archives if role in PACKAGED]:
            other.insert(0, f"Debian's package, {', '.join(packaged)}")
        found += [
            [
                "A mirror. Let a web server serve that folder; in the inventory: artifact_mirror_url: https://<server>/<path>"
            ],
            [other[0][:1].upper() + other[0][1:], *(f"or {text}" for text in other[1:])],
        ]
    if wheels:
        found.append(
            [
                "For Python packages an index that this controller's pip reaches; in the inventory:",
                "backend_wheels_index_url: https://<server>/simple",
            ]
        )
    return [
        f"{COUNTS[len(found)]} ways to supply them:",
        *(
            f"  {number}. {line}" if line is lines[0] else f"     {line}"
            for number, lines in enumerate(found, 1)
            for line in lines
        ),
    ]


def cures(missing: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to do: write a pin where there is none, which no folder replaces, and the ways to supply the rest."""
    unpinned = [one for one in missing if not one.get("has_pin", True)]
    pinned = [one for one in missing if one not in unpinned]
    return pins(unpinned) + [""] * bool(unpinned and pinned) + (ways(pinned) if pinned else [])


def pins(missing: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to write for the ones that nothing is compared with: no place is asked for them."""
    found: list[str] = []
    seen: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in missing:
        seen.setdefault((str(one["role"]), str(one["version"]), str(one["pin"])), []).append(one)
    for (role, version, pin), ones in seen.items():
        architectures = sorted({str(one["architecture"]) for one in ones})
        found.append(
            f"What has no SHA-256 is asked for nowhere. For {role} {version} write in the inventory "
            f"{pin}: {{{', '.join(f'{architecture}: <64 hex digits>' for architecture in architectures)}}}"
        )
        if published := sorted({str(one["sums"]) for one in ones if one["sums"]}):
            found += [f"  upstream publishes it: {address}" for address in published]
        else:
            found.append("  upstream publishes none: take what sha256sum says of a file that you trust")
        both = [version for version in ones[0]["pinned"] if all(version in one["pinned"] for one in ones)]
        found += [f"  or take a version that has its SHA-256 here: {role}_version: {version}" for version in both]
    return found


def why(one: Mapping[str, Any]) -> str:
    """Return in one line why a host goes without."""
    return "; ".join(f"{look['place']}: {look['said']}" for look in one["looked"])


def counted(missing: Sequence[object]) -> str:
    """Return how many there are, as the beginning of a sentence."""
    return (
        "1 artifact that this run needs is"
        if len(missing) == 1
        else f"{len(missing)} artifacts that this run needs are"
    )


class ActionModule(ActionBase):  # type: ignore[misc]
    """Entry point for Ansible."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge; fail with the table where something needed is missing."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "artifacts": {"type": "list", "elements": "dict", "required": True},
                "roles": {"type": "list", "elements": "str", "required": True},
                "answers": {"type": "dict", "default": {}},
            }
        )
        found = lacking(arguments["artifacts"], arguments["answers"])
        missing = [one for one in found if not one["optional"] and one["role"] in arguments["roles"]]
        left_out = [
            {
                "role": one["role"],
                "version": one["version"],
                "file": one["file"],
                "hosts": one["hosts"],
                "why": why(one),
            }
            for one in found
            if one["optional"]
        ]
        result = {"changed": False, "left_out": left_out, "missing": [one["file"] for one in missing]}
        if missing:
            head = f"{counted(missing)} nowhere to be had. No host was changed."
            return {**result, "failed": True, "msg": "\n".join([head, "", *table(missing), "", *cures(missing)])}
        return result
