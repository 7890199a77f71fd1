"""Filter `newest_release`: of several files the one with the newest release in its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

DOCUMENTATION = r"""
name: newest_release
author: AllIN operations
short_description: Of several files the one with the newest release in its name
description:
  - Takes paths or names and returns the name of the newest release among those whose names have a form; empty where
    none has.
  - Releases are compared by their numbers, so 12.4.0 is newer than 9.5.2. A name with more than the form has, of a beta
    for example, is passed over.
options:
  _input:
    description: Paths or names.
    type: list
    elements: str
    required: true
  form:
    description: The whole name as a regular expression, V(VERSION) in place of the version, which is three numbers.
    type: str
    required: true
"""

EXAMPLES = r"""
name: "{{ query('ansible.builtin.fileglob', '/srv/*') | newest_release('grafana-VERSION[.]linux-amd64[.]tar[.]gz') }}"
"""

RETURN = r"""
_value:
  description: A name, or nothing.
  type: str
"""

VERSION = r"[0-9]+[.][0-9]+[.][0-9]+"


def newest_release(paths: Iterable[str], form: str) -> str:
    """Return the name of the newest release among these files, or nothing."""
    names = (path.rpartition("/")[2] for path in paths)
    found = sorted(name for name in names if re.fullmatch(form.replace("VERSION", VERSION), name))
    return max(found, key=numbers, default="")


def numbers(name: str) -> tuple[int, ...]:
    """Return the version that a name has, as numbers."""
    version = re.search(VERSION, name)
    return tuple(map(int, version.group().split("."))) if version else ()


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return filter name -> function."""
        return {"newest_release": newest_release}
