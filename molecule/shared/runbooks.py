"""The first commands of every runbook, run on a host as somebody on call would."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: What cannot be run on a host of the tests -> why.
LEFT_OUT: Mapping[str, str] = {
    r"\bdocker ": "the host of the tests has no containers of its own",
    r"192\.0\.2\.|app\.example\.com": "an address that stands for the reader's own",
    r"grafana\.service|GRAFANA": "Grafana is not there where its archive could not be had",
    r"certbot": "nobody renews certificates there",
    r"find / |du -xh": "it reads the whole disk",
}
#: What a shell and its tools say of a command that does not fit the host.
MISFIT = re.compile(
    r"command not found|No such file|could not be found|not a valid|[Uu]nrecognized|[Ii]nvalid option|Usage:|"
    r"Could not (?:connect|resolve)|Failed to|parse error|parameter null or not set"
)
#: Runs on the host; commands come as JSON, and so do the results.
RUNNER = """
import concurrent.futures, json, subprocess, sys
def run(command):
    done = subprocess.run(["timeout", "30", "bash", "-l", "-c", command], capture_output=True, text=True)
    return [done.returncode, done.stdout[-20000:], done.stderr]
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(json.dumps(list(pool.map(run, json.loads(%r)))))
"""


@dataclass(frozen=True)
class Ran:
    """A command of a runbook, and what came of it."""

    page: str
    command: str
    status: int
    output: str
    errors: str

    @property
    def trouble(self) -> str:
        """What is wrong with the command; empty where nothing is. That grep finds nothing is an answer."""
        finds_nothing = self.status == 1 and re.search(r"(?:^|[|;] *)grep [^|;]*$", self.command)
        if self.status != 0 and not finds_nothing:
            return f"status {self.status}: {self.errors.strip() or self.output[-300:]}"
        if self.output.startswith('{"status":"error"'):
            return self.output
        return self.errors.strip() if MISFIT.search(self.errors) else ""


def commands(pages: Path) -> list[tuple[str, str]]:
    """Return (page, command) for each line of the first commands of each runbook, without what is left out."""
    found = []
    for page in sorted(pages.glob("*.md")):
        look = page.read_text().split("## First look")[1].split("\n## ")[0]
        for block in re.findall(r"^```sh\n(.*?)^```$", look, re.MULTILINE | re.DOTALL):
            lines = block.splitlines()
            found += [(page.stem, line) for line in lines if not any(re.search(one, line) for one in LEFT_OUT)]
    return found


def run(host: str, pages: Path) -> list[Ran]:
    """Run them all in a container, as root in a login shell, four at once."""
    wanted = commands(pages)
    done = subprocess.run(
        ["docker", "exec", "--interactive", host, "python3", "-"],
        input=RUNNER % json.dumps([command for _, command in wanted]),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    results = json.loads(done.stdout)
    return [Ran(*one, *result) for one, result in zip(wanted, results, strict=True)]
