"""Passwords, encryption, tokens, and the files with secrets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError
from hypothesis import given
from hypothesis import strategies as st

from allin_backend.preflight import check_files
from allin_backend.secret_files import read_line
from allin_backend.security.encryption import DecryptionError, TokenCipher, make_key
from allin_backend.security.passwords import Passwords
from allin_backend.security.tokens import digest, new_token
from allin_backend.settings import ConfigurationError
from support import make_settings

CHEAP: Final = {"memory_kib": 8, "iterations": 1}
CIPHER: Final = TokenCipher([make_key()])


Result = TypeVar("Result")


def with_passwords(passwords: Passwords, scenario: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(scenario)
    finally:
        passwords.close()


def test_password_is_verified() -> None:
    passwords = Passwords(**CHEAP)

    async def scenario() -> None:
        stored = await passwords.hash("Zürich 8001")
        assert await passwords.verify(stored, "Zürich 8001")
        # The same letter as another keyboard writes it.
        assert await passwords.verify(stored, "Zu\u0308rich 8001")
        assert not await passwords.verify(stored, "zürich 8001")
        assert await passwords.hash("Zürich 8001") != stored
        assert "rich" not in stored

    with_passwords(passwords, scenario())


def test_default_parameters_are_what_the_docstring_says() -> None:
    passwords = Passwords()
    stored = with_passwords(passwords, passwords.hash("x"))

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_nobody_costs_what_anybody_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    verify = PasswordHasher.verify

    def spy(self: PasswordHasher, stored: str, password: str) -> Any:
        verified.append(stored)
        return verify(self, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", spy)
    passwords = Passwords(memory_kib=16, iterations=3, lanes=2)

    async def scenario() -> None:
        assert not await passwords.verify(await passwords.hash("x"), "y")
        assert not await passwords.verify(None, "y")

    with_passwords(passwords, scenario())
    known, nobody = verified
    assert extract_parameters(known) == extract_parameters(nobody)


def test_what_is_no_hash_is_an_error() -> None:
    passwords = Passwords(**CHEAP)

    with pytest.raises(InvalidHashError):
        with_passwords(passwords, passwords.verify("x", "x"))


@given(st.text())
def test_what_was_encrypted_is_decrypted(text: str) -> None:
    encrypted = CIPHER.encrypt(text)

    assert CIPHER.decrypt(encrypted) == text
    assert not CIPHER.needs_rotation(encrypted)
    assert CIPHER.encrypt(text) != encrypted


def test_rotation(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old, new = make_key(), make_key()
    path.write_text(f"{old}\n")
    encrypted = TokenCipher.from_file(path).encrypt("t")

    path.write_text(f"# since May\n{new}\n\n{old}\n")
    cipher = TokenCipher.from_file(path)
    assert cipher.decrypt(encrypted) == "t"
    assert cipher.needs_rotation(encrypted)
    assert not cipher.needs_rotation(cipher.encrypt("t"))

    path.write_text(f"{new}\n")
    with pytest.raises(DecryptionError, match="ALLIN_TOKEN_KEYS_FILE"):
        TokenCipher.from_file(path).decrypt(encrypted)


def test_changed_or_foreign_text_is_not_decrypted() -> None:
    encrypted = CIPHER.encrypt("t")

    for text in (encrypted[:-6] + "AAAA==", "", "t", "ü"):
        with pytest.raises(DecryptionError) as caught:
            CIPHER.decrypt(text)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_no_cipher_without_a_key() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TokenCipher([])


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("", ["there is no key"]),
        ("# none\n \n", ["there is no key"]),
        ("# one\nhunter2\n" + "A" * 44 + "\nhunter2", ["line 2 is", "line 3 is", "line 4 is"]),
    ],
)
def test_unusable_keys(tmp_path: Path, content: str, messages: list[str]) -> None:
    path = tmp_path / "keys"
    path.write_text(content)

    with pytest.raises(ConfigurationError) as caught:
        TokenCipher.from_file(path)
    assert len(caught.value.problems) == len(messages)
    for problem, message in zip(caught.value.problems, messages, strict=True):
        assert message in problem
        assert "make-token-key" in problem
        assert "hunter2" not in problem


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    key = make_key()
    cipher = TokenCipher([key])

    assert key not in repr(cipher) + repr(vars(cipher))


def test_tokens() -> None:
    token = new_token()

    assert re.fullmatch(r"allin_[A-Za-z0-9_-]{43}", token)
    assert new_token() != token
    assert digest("allin_x") == "d65325599b9e7caa237fa6b05a659471d9411cef5ed61bebdda4f7e6bb155f99"


def test_first_line_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for content in ("pass word \n", "pass word ", "pass word \r\nmore"):
        path.write_bytes(content.encode())
        assert read_line("ALLIN_CACHE_PASSWORD_FILE", path) == "pass word "
    assert read_line("ALLIN_CACHE_PASSWORD_FILE", None) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\nhunter2", "first line is empty"), (b"hunter2\xff", "UTF-8")],
    ids=["missing", "empty", "binary"],  # else the directory's name would have the content
)
def test_unusable_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError) as caught:
        read_line("ALLIN_CACHE_PASSWORD_FILE", path)
    [problem] = caught.value.problems
    assert problem.startswith(f"ALLIN_CACHE_PASSWORD_FILE='{path}'")
    assert message in problem
    assert "hunter2" not in problem
    assert caught.value.__context__ is None


def test_every_named_file_is_checked(tmp_path: Path) -> None:
    names = (
        "ALLIN_DATABASE_PASSWORD_FILE",
        "ALLIN_CACHE_PASSWORD_FILE",
        "ALLIN_TOKEN_KEYS_FILE",
        "ALLIN_PLATFORMS_FILE",
    )
    settings = make_settings(tmp_path, **{name: str(tmp_path) for name in names})

    with pytest.raises(ConfigurationError) as caught:
        check_files(settings)
    assert [problem.partition("=")[0] for problem in caught.value.problems] == list(names)

    check_files(make_settings(tmp_path, ALLIN_FAULTS_FILE=str(tmp_path / "none")))
