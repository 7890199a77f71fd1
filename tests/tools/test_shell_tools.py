"""The shell tools where they can be tried in a moment: when nothing is to be done, and when they cannot go on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def call(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script with its standard error joined to its output."""
    return subprocess.run(
        [str(script), *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a tiny repository with a .venv that nothing has been installed into."""
    (tmp_path / "tools").mkdir()
    shutil.copy(REPOSITORY / "tools" / "ensure_venv.sh", tmp_path / "tools")
    (tmp_path / "requirements").mkdir()
    for name in ("controller", "test"):
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"{name}==1\n", encoding="utf-8")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path


def complete(clone: Path, name: str) -> None:
    """Make .venv look completed from one of the lists."""
    lock = f"requirements/{name}.txt"
    digest = hashlib.sha256((clone / lock).read_bytes()).hexdigest()
    with (clone / ".venv" / ".allin-locks").open("a", encoding="utf-8") as stamp:
        stamp.write(f"{digest}  {lock}\n")


def ensure_venv(clone: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run ensure_venv.sh with a Python that is none, so that it stops as soon as it finds something to do."""
    return call(clone / "tools" / "ensure_venv.sh", f"requirements/{name}.txt", PYTHON="/bin/false")


@pytest.mark.parametrize(
    ("completed", "asked"), [("controller", "controller"), ("test", "test"), ("test", "controller")]
)
def test_a_complete_environment_is_left_alone(clone: Path, completed: str, asked: str) -> None:
    complete(clone, completed)
    result = ensure_venv(clone, asked)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_small_list_does_not_do_for_the_tests(clone: Path) -> None:
    complete(clone, "controller")
    result = ensure_venv(clone, "test")
    assert result.returncode == 1
    assert "PYTHON=/bin/false is not a Python of version 3.11 or newer" in result.stdout


def test_a_changed_list_is_noticed(clone: Path) -> None:
    complete(clone, "test")
    (clone / "requirements" / "test.txt").write_text("test==2\n", encoding="utf-8")
    assert ensure_venv(clone, "test").returncode == 1


def test_an_environment_whose_python_is_gone_is_noticed(clone: Path) -> None:
    complete(clone, "test")
    (clone / ".venv" / "bin" / "python").unlink()
    (clone / ".venv" / "bin" / "python").symlink_to("/no/such/python")
    assert ensure_venv(clone, "test").returncode == 1


def test_an_unknown_list_is_refused(clone: Path) -> None:
    result = ensure_venv(clone, "nonsense")
    assert result.returncode == 2
    assert "usage:" in result.stdout


def fake_docker(tmp_path: Path, body: str) -> str:
    """Put a docker on PATH that does `body`; return that PATH.

    Whatever else could change this machine fails at once, so that a broken script breaks a test and nothing more.
    """
    for name in ("docker", "dockerd", "apt-get", "mmdebstrap", "systemctl", "setsid", "mount"):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body if name == 'docker' else 'exit 1'}\n", encoding="utf-8")
        path.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_an_engine_that_answers_is_left_alone(tmp_path: Path) -> None:
    result = call(REPOSITORY / "tools" / "ensure_docker.sh", PATH=fake_docker(tmp_path, "echo 26.1.5"))
    assert (result.returncode, result.stdout) == (0, "")


def test_a_remote_engine_that_is_silent_is_named_and_nothing_is_installed(tmp_path: Path) -> None:
    result = call(
        REPOSITORY / "tools" / "ensure_docker.sh",
        PATH=fake_docker(tmp_path, "exit 1"),
        DOCKER_HOST="tcp://far.example:2375",
    )
    assert result.returncode == 1
    assert "tcp://far.example:2375" in result.stdout
    assert "installing" not in result.stdout


def test_an_unknown_release_is_refused() -> None:
    result = call(REPOSITORY / "molecule" / "shared" / "image" / "build.sh", "woody")
    assert result.returncode == 2
    assert "trixie|bookworm" in result.stdout


def test_the_image_needs_an_engine_and_says_so(tmp_path: Path) -> None:
    result = call(
        REPOSITORY / "molecule" / "shared" / "image" / "build.sh", "trixie", PATH=fake_docker(tmp_path, "exit 1")
    )
    assert result.returncode == 1
    assert "tools/ensure_docker.sh" in result.stdout


def test_an_image_of_the_same_recipe_is_not_built_again(tmp_path: Path) -> None:
    body = f"""case "$1 $2" in
"version --format") echo 26.1.5 ;;
"image inspect") cat "{tmp_path}/label" 2>/dev/null ;;
*) exit 1 ;;
esac"""
    path = fake_docker(tmp_path, body)
    script = REPOSITORY / "molecule" / "shared" / "image" / "build.sh"
    environment = {
        "PATH": path,
        "XDG_CACHE_HOME": str(tmp_path),
        "ALLIN_DEBIAN_MIRROR": "file:/no/such/mirror",
    }
    result = call(script, "trixie", **environment)
    assert result.returncode == 1
    assert "could not be built" in result.stdout or "could not build" in result.stdout
    recipe = call(script, "--print-recipe", "trixie", **environment).stdout.strip()
    assert len(recipe) == 16
    (tmp_path / "label").write_text(f"{recipe}\n", encoding="utf-8")
    result = call(script, "trixie", **environment)
    assert (result.returncode, result.stdout) == (0, "")
    assert call(script, "--print-recipe", "bookworm", **environment).stdout.strip() != recipe


def test_an_image_that_a_scenario_runs_on_stays(tmp_path: Path) -> None:
    body = f"""case "$1 $2" in
"version "*) echo 26.1.5 ;;
"container inspect") [ "$3" = --format ] && echo "sha256:used /allin-faults" ;;
"container ls") echo 354f0f8b8e94 ;;
"image ls") printf 'sha256:used\\nsha256:unused\\n' ;;
"image rm") echo "$@" >>"{tmp_path}/removed"; case "$*" in *sha256:used*) exit 1 ;; esac ;;
*) exit 1 ;;
esac"""
    result = call(REPOSITORY / "tools" / "down.sh", PATH=fake_docker(tmp_path, body))
    assert result.returncode == 0, result.stdout
    assert "the container allin-faults runs on it" in result.stdout
    assert (tmp_path / "removed").read_text(encoding="utf-8") == "image rm --force sha256:unused\n"


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    """Return a tiny repository whose `make` does what a file says, for `tools/test.sh`."""
    for name, body in {
        "tools/check_machine.py": "exit 0",
        "molecule/grafana/run.sh": "echo 'LEFT OUT: Grafana'",
        "molecule/containers/run.sh": "exit 0",
        "bin/make": '. "$(dirname "$0")/layer"',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    shutil.copy(REPOSITORY / "tools" / "test.sh", tmp_path / "tools")
    return tmp_path


def run_layers(clone: Path, layer: str) -> tuple[int, list[str]]:
    """Run all layers, each as the commands of `layer` do it; return the exit code and the closing lines."""
    (clone / "bin" / "layer").write_text(layer, encoding="utf-8")
    result = call(clone / "tools" / "test.sh", PATH=f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return result.returncode, result.stdout.split("######## make test\n")[1].splitlines()


def test_the_last_lines_of_a_failed_run_say_which_tests_failed(tested: Path) -> None:
    code, lines = run_layers(
        tested, 'if [[ $2 == app ]]; then echo "FAILED tests/test_x.py::test_y - because"; echo more; exit 2; fi'
    )
    assert code == 1
    assert lines[-3:] == ["== why app failed:", "FAILED tests/test_x.py::test_y - because", "4 passed, 1 failed"]


def test_the_last_lines_of_a_failed_run_show_its_end_where_no_test_is_named(tested: Path) -> None:
    code, lines = run_layers(tested, 'if [[ $2 == lint ]]; then seq 20; echo "line is too long" >&2; exit 1; fi')
    assert code == 1
    assert lines[-3:] == ["20", "line is too long", "4 passed, 1 failed"]
    assert "13" not in lines


def test_a_run_without_a_failure_explains_none(tested: Path) -> None:
    code, lines = run_layers(tested, "echo 'FAILED is a word that a log may contain'")
    assert code == 0
    assert not [line for line in lines if "FAILED" in line or "why" in line]
