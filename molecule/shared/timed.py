#!/usr/bin/env python3
"""Run molecule, and say behind its output how long each stage took.

molecule/shared/timed.py test --scenario-name containers
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BEGIN = re.compile(r"^INFO\s+\S+ ➜ (?P<stage>\w+): Executing$")
"""What molecule says when a stage begins, without its colours."""


def stages(lines: Iterable[str], clock: Callable[[], float] = time.monotonic) -> Iterator[tuple[str, float]]:
    """Print each line as it comes; yield the stages that began, in their order, with the seconds until the next one."""
    stage, began = "", clock()
    for line in lines:
        sys.stdout.write(line)
        sys.stdout.flush()
        if found := BEGIN.match(COLOUR.sub("", line).strip()):
            if stage:
                yield stage, clock() - began
            stage, began = found["stage"], clock()
    if stage:
        yield stage, clock() - began


def main(arguments: list[str]) -> int:
    """Run molecule with these arguments; return its exit code."""
    with subprocess.Popen(
        ["molecule", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as molecule:
        took = list(stages(molecule.stdout or []))
    print("\nSECONDS OF EACH STAGE")
    for stage, seconds in [*took, ("all", sum(seconds for _, seconds in took))]:
        print(f"{stage:<12} {seconds:5.0f}")
    return molecule.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
