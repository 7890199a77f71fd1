"""``allin-backend migrate``, as a deployment runs it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from allin_backend.cli import main
from support import database_url


@pytest.fixture(autouse=True)
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("ALLIN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ALLIN_DATABASE_URL", database_url(tmp_path))


def test_a_dry_run_says_what_a_run_does_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--dry-run"]) == 0
    foretold = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == foretold
    assert foretold.startswith("schema 0000 -> ")

    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["migrate", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(": nothing to do\n")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_configuration_may_come_from_the_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment file that is to be deployed, before it is."""
    monkeypatch.setenv("ALLIN_PORT", "x")  # what is given counts alone
    monkeypatch.setattr("sys.stdin", io.StringIO(f'ALLIN_DATABASE_URL="{database_url(tmp_path)}"\n'))
    assert main(["migrate", "--env-file", "-"]) == 0
    assert (tmp_path / "test.db").exists()

    monkeypatch.setattr("sys.stdin", io.StringIO("ALLIN_PORT=x\n"))
    assert main(["migrate", "--env-file", "-"]) == 2
    assert "ALLIN_PORT" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_database_that_cannot_be_reached_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setenv("ALLIN_DATABASE_URL", "postgresql+asyncpg://allin@127.0.0.1:9/allin")
    assert main(["migrate", *options]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err
