"""The filter requirements_for, on made-up lines and on the backend's own lock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.requirements_for import requirements_for

LOCK = Path(__file__).parents[2] / "app/requirements/runtime.txt"

TEXT = """\
always==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
old==2.0 ; python_full_version < '3.13' \\
    --hash=sha256:cc
browser==3.0 ; sys_platform == 'emscripten' \\
    --hash=sha256:dd
arm==4.0 ; platform_machine == 'aarch64' \\
    --hash=sha256:ee
"""


def names(text: str) -> set[str]:
    return set(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?==", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("version", "machine", "wanted"),
    [
        ("3.11.2", "x86_64", {"always", "old"}),
        ("3.13.5", "x86_64", {"always"}),
        ("3.13.5", "aarch64", {"always", "arm"}),
    ],
)
def test_it_keeps_what_the_host_needs(version: str, machine: str, wanted: set[str]) -> None:
    assert names(requirements_for(TEXT, version, machine)) == wanted


def test_hashes_stay_and_markers_go() -> None:
    text = requirements_for(TEXT, "3.11.2", "x86_64")
    assert text == (
        "always==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nold==2.0 \\\n    --hash=sha256:cc\n"
    )


def test_a_marker_that_cannot_be_read_is_said() -> None:
    with pytest.raises(AnsibleFilterError, match="no marker at all"):
        requirements_for("x==1 ; no marker at all\n", "3.11.2", "x86_64")


@pytest.mark.parametrize("version", ["3.11.2", "3.13.5"])
def test_the_backend_s_lock_needs_nothing_of_other_platforms(version: str) -> None:
    """Prevents: a deployment to Debian 12 that asks the index for a package which only browsers have."""
    needed = names(requirements_for(LOCK.read_text(), version, "x86_64"))
    assert {"starlette", "uvicorn", "sqlalchemy", "uvloop"} <= needed
    assert "httpx2-jsfetch" not in needed
    assert "colorama" not in needed
