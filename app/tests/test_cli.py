"""The commands."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from allin_backend import __version__
from allin_backend.cli import main
from allin_backend.database.revision import REVISION
from support import SOURCE, database_url

PROJECT = SOURCE.parent


@pytest.fixture(autouse=True)
def _no_variables_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("ALLIN_"):
            monkeypatch.delenv(name)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_check_config_of_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["check-config"]) == 0
    monkeypatch.setenv("ALLIN_PORT", "x")
    assert main(["check-config"]) == 2
    assert "ALLIN_PORT='x'" in capsys.readouterr().err


def test_check_config_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLIN_PORT", "x")  # the file alone counts
    path = tmp_path / "env"
    path.write_text(f'# made by the role\nALLIN_PORT="7001"\nALLIN_DATABASE_URL={database_url(tmp_path)}\n')

    assert main(["check-config", "--env-file", str(path)]) == 0
    assert not (tmp_path / "test.db").exists()

    path.write_text("ALLIN_PORT='70001'\nALLIN_ENVIROMENT=dev\n")
    assert main(["check-config", "--env-file", str(path)]) == 2
    error = capsys.readouterr().err
    assert "2 problems" in error
    assert "ALLIN_PORT=7000" in error
    assert "ALLIN_ENVIRONMENT" in error


def test_check_config_reads_the_files_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    monkeypatch.setenv("ALLIN_TOKEN_KEYS_FILE", str(path))
    monkeypatch.setenv("ALLIN_CACHE_PASSWORD_FILE", str(tmp_path / "password"))

    assert main(["make-token-key"]) == 0
    path.write_text(capsys.readouterr().out)
    (tmp_path / "password").write_text("secret\n")
    assert main(["check-config"]) == 0

    (tmp_path / "password").unlink()
    path.write_text("secret\n")
    for command in ("check-config", "serve"):
        assert main([command]) == 2
        error = capsys.readouterr().err
        assert "2 problems" in error
        assert "ALLIN_CACHE_PASSWORD_FILE" in error
        assert "ALLIN_TOKEN_KEYS_FILE" in error
        assert "secret" not in error


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff", "UTF-8"), (b"ALLIN_PORT", "there is no '='"), (b'A="x', "quote")],
)
def test_check_config_of_an_unusable_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    path = tmp_path / "env"
    if content is not None:
        path.write_bytes(content)

    assert main(["check-config", "--env-file", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


def test_serve_refuses_a_bad_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLIN_DATABASE_URL", database_url(tmp_path))
    monkeypatch.setenv("ALLIN_PORT", "x")

    assert main(["serve"]) == 2
    assert "1 problem in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_declared_scripts_exist() -> None:
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]

    assert sorted(scripts) == ["allin-backend", "allin-simulator", "allin-traffic"]
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_locks_hold_what_the_package_declares() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    requested = [
        line
        for line in (PROJECT / "requirements/runtime.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert sorted(requested) == sorted(declared)
    for name in ("runtime.txt", "test.txt"):
        lock = (PROJECT / "requirements" / name).read_text()
        assert "://" not in lock
        assert "--hash=sha256:" in lock
        for requirement in declared:
            package = re.split(r"[\[~<>=]", requirement)[0].replace("_", "-")
            assert re.search(rf"^{package}(\[|==)", lock, re.MULTILINE), (name, package)


def test_wheel_is_complete(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, project)
    shutil.copytree(SOURCE, project / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True)

    with zipfile.ZipFile(tmp_path / f"allin_backend-{__version__}-py3-none-any.whl") as wheel:
        wheel.extractall(tmp_path / "installed")
        packed = {name for name in wheel.namelist() if name.startswith("allin_backend/")}
    present = {
        str(path.relative_to(SOURCE))
        for path in (SOURCE / "allin_backend").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == present
    assert "allin_backend/py.typed" in packed

    env = {"PYTHONPATH": str(tmp_path / "installed"), "ALLIN_DATABASE_URL": database_url(tmp_path)}
    command = [sys.executable, "-m", "allin_backend", "migrate"]
    migrated = subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    assert migrated.stdout == f"schema 0000 -> {REVISION}\n"
