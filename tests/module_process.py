"""An Ansible module run as Ansible runs it: a process of its own, with its arguments as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def said_by(module: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run a module to its end; return what it said. One that says nothing fails with its errors."""
    program = (
        "import sys, runpy; from ansible.module_utils import basic; "
        "basic._ANSIBLE_ARGS = sys.argv[1].encode(); basic._ANSIBLE_PROFILE = 'legacy'; "
        f"runpy.run_path({str(module)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
