"""How a scenario is run: with the program that is to be had, the time of each stage, and what was left out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
LEFT_OUT = "LEFT OUT: containers that run out of memory."
# As molecule writes it, in colours.
STAGES = """\
printf '\\033[36mINFO    \\033[0m containers ➜ \\033[33mcreate\\033[0m: \\033[36mExecuting\\033[0m\\n'
printf 'folder=%s arguments=%s\\n' "$ALLIN_CADVISOR_FOLDER" "$*"
printf '\\033[36mINFO    \\033[0m containers ➜ \\033[33mcreate\\033[0m: \\033[32mExecuted: Successful\\033[0m\\n'
printf '\\033[36mINFO    \\033[0m containers ➜ \\033[33mverify\\033[0m: \\033[36mExecuting\\033[0m\\n'
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the artifacts folder, which is not there yet."""
    return tmp_path / "cache/allin-artifacts"


def run(
    tmp_path: Path, *arguments: str, code: int = 0, scenario: str = "containers"
) -> subprocess.CompletedProcess[str]:
    """Run a scenario with a molecule that says what it was told and ends with this code."""
    molecule = tmp_path / "bin/molecule"
    molecule.parent.mkdir(exist_ok=True)
    molecule.write_text(f"#!/bin/sh\n{STAGES}exit {code}\n", encoding="utf-8")
    molecule.chmod(0o755)
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "ALLIN_CADVISOR_FOLDER": "",
        "ALLIN_GRAFANA_ARCHIVE": "",
    }
    environment["PATH"] = f"{molecule.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(REPOSITORY / "molecule" / scenario / "run.sh"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_upstream_s_program_the_last_line_says_what_is_left_out(tmp_path: Path, cache: Path) -> None:
    for there in ("no folder", "an empty folder", "Debian's old program"):
        if there != "no folder":
            cache.mkdir(parents=True, exist_ok=True)
        if there == "Debian's old program":
            (cache / f"cadvisor-v0.38.7-debian11-linux-{MACHINE}").touch()
        done = run(tmp_path)
        assert done.returncode == 0, there
        assert "folder= " in done.stdout
        assert done.stdout.splitlines()[-1].startswith(LEFT_OUT)
        assert LEFT_OUT in run(tmp_path, "--left-out").stdout


def test_upstream_s_program_is_found_in_the_folder_and_in_the_folders_in_it(tmp_path: Path, cache: Path) -> None:
    for folder in (cache / "built", cache):
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / f"cadvisor-v0.60.5-linux-{MACHINE}"
        program.touch()
        done = run(tmp_path, "verify", "--debug")
        assert f"folder={folder} arguments=verify --scenario-name containers --debug" in done.stdout
        assert LEFT_OUT not in done.stdout
        assert LEFT_OUT not in run(tmp_path, "--left-out").stdout
        program.unlink()


def test_the_time_of_each_stage_stands_behind_what_molecule_says(tmp_path: Path) -> None:
    lines = run(tmp_path).stdout.splitlines()
    table = [line for line in lines[lines.index("SECONDS OF EACH STAGE") + 1 :] if not line.startswith("LEFT OUT")]
    assert [line.split()[0] for line in table] == ["create", "verify", "all"]
    assert all(float(line.split()[1]) >= 0 for line in table)


def test_a_scenario_that_fails_fails_the_run(tmp_path: Path) -> None:
    """Also where something is left out."""
    done = run(tmp_path, code=3)
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1].startswith(LEFT_OUT)


def test_without_an_archive_of_grafana_its_scenario_says_so(tmp_path: Path, cache: Path) -> None:
    """Prevents: silence where the artifacts folder is not there yet."""
    for _ in ("no folder", "an empty folder"):
        done = run(tmp_path, scenario="grafana")
        assert (done.returncode, done.stdout.partition(":")[0]) == (0, "LEFT OUT")
        cache.mkdir(parents=True, exist_ok=True)


NEWEST = REPOSITORY / "molecule/shared/newest.sh"
GRAFANA = r"grafana(-VERSION\.linux-|_VERSION_[0-9]+_linux_)ARCH\.tar\.gz"


def test_the_newest_release_for_this_machine_is_taken(tmp_path: Path) -> None:
    """Prevents: the newest by the name of its folder, and an archive under upstream's newer name that nobody finds."""
    another = {"amd64": "arm64", "arm64": "amd64"}[MACHINE]
    names = [
        f"beta.d/grafana-99.0.0.linux-{another}.tar.gz",
        f"z 1.2.3/grafana-9.5.2.linux-{MACHINE}.tar.gz",
        f"grafana-12.4.0.linux-{MACHINE}.tar.gz",
        f"a-99.0.0/grafana_12.4.3_24388279614_linux_{MACHINE}.tar.gz",
        f"grafana-12.10.0.linux-{MACHINE}.tar.gz",
    ]  # fmt: skip
    for number, name in enumerate(names):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        found = subprocess.run([NEWEST, tmp_path / "cache", GRAFANA], check=True, capture_output=True, text=True).stdout
        assert found == (f"{path}\n" if number else "")
    cadvisor = tmp_path / "cache" / f"cadvisor-v0.60.5-linux-{MACHINE}"
    cadvisor.touch()
    form = "cadvisor-vVERSION-linux-ARCH"
    found = subprocess.run([NEWEST, tmp_path / "cache", form], check=True, capture_output=True, text=True).stdout
    assert found == f"{cadvisor}\n"
