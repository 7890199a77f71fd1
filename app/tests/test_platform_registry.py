"""The file with the platforms' clients: every mistake is named, no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allin_backend.platforms.registry import load_platforms
from allin_backend.settings import ConfigurationError


def write(directory: Path, content: object) -> Path:
    file = directory / "platforms.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def problems(file: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_platforms(file)
    return caught.value.problems


def test_no_file_no_platforms() -> None:
    assert len(load_platforms(None)) == 0


def test_platforms_of_a_file(tmp_path: Path) -> None:
    client = {"client_id": "i", "client_secret": "s"}
    file = write(tmp_path, {"twitter": client, "facebook": client})

    platforms = load_platforms(file, "http://127.0.0.1:7080")

    assert list(platforms) == ["facebook", "twitter"]
    assert (platforms["twitter"].client_id, platforms["twitter"].client_secret) == ("i", "s")
    assert platforms["twitter"].addresses.api == "http://127.0.0.1:7080/twitter"
    assert "linkedin" not in platforms


def test_every_problem_is_named_and_no_value_repeated(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {
            "myspace": {},
            "facebook": "topsecret",
            "twitter": {"client_id": "", "client_secret": ["topsecret"], "token": "topsecret"},
            "linkedin": {"client_id": "i", "client_secret": "topsecret\n"},
        },
    )

    found = problems(file)

    assert [problem.removeprefix(f"ALLIN_PLATFORMS_FILE='{file}': ").split()[0] for problem in found] == [
        "'myspace'",
        "facebook",
        "twitter.client_id",
        "twitter.client_secret",
        "twitter.'token'",
        "linkedin.client_secret",
    ]
    assert "topsecret" not in str(found)


@pytest.mark.parametrize(
    ("content", "phrase"),
    [("{", "is not JSON"), ("", "is not JSON"), ("[]", "must be an object"), ('"x"', "must be an object")],
)
def test_files_that_are_something_else(tmp_path: Path, content: str, phrase: str) -> None:
    assert phrase in problems(write(tmp_path, content))[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in problems(tmp_path / "missing")[0]
