"""Encryption of what the database keeps for social platforms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from allin_backend.secret_files import read_text
from allin_backend.settings import ConfigurationError

VARIABLE: Final = "ALLIN_TOKEN_KEYS_FILE"


class DecryptionError(Exception):
    """A stored value was not encrypted with any of the present keys, or it has been changed."""

    def __init__(self) -> None:
        super().__init__(
            f"a stored token cannot be decrypted; add the key it was encrypted with to the file that {VARIABLE} names,"
            " below the first line, or have the account connected again"
        )


def make_key() -> str:
    """A new key, as a line of the keys' file."""
    return Fernet.generate_key().decode()


class TokenCipher:
    """Encrypts with the first key and decrypts with all of them: a new key goes on top of the file, old ones stay
    until nothing needs them."""

    def __init__(self, keys: Sequence[str]) -> None:
        """``keys`` are as ``make_key`` returns them.

        Raises:
            ValueError: there is no key, or one is malformed.
        """
        ciphers = [Fernet(key) for key in keys]
        self._all: Final = MultiFernet(ciphers)
        self._newest: Final = ciphers[0]

    @classmethod
    def from_file(cls, path: Path) -> TokenCipher:
        """With the keys in a file, one a line; empty lines and those that begin with ``#`` do not count.

        Raises:
            ConfigurationError: the file cannot be read, has no key, or a line is not a key.
        """
        problems: list[str] = []
        keys: list[str] = []
        for number, line in enumerate(read_text(VARIABLE, path).splitlines(), 1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            try:
                Fernet(key)
            except ValueError:
                problems.append(f"line {number} is not a key")
            keys.append(key)
        if not keys:
            problems.append("there is no key")
        if problems:
            how = "write a key with: allin-backend make-token-key"
            raise ConfigurationError([f"{VARIABLE}={str(path)!r}: {problem}; {how}" for problem in problems])
        return cls(keys)

    def encrypt(self, text: str) -> str:
        """The text, encrypted with the first key."""
        return self._newest.encrypt(text.encode()).decode()

    def decrypt(self, encrypted: str) -> str:
        """The text that was encrypted.

        Raises:
            DecryptionError: with what to do about it.
        """
        try:
            return self._all.decrypt(encrypted.encode()).decode()
        except InvalidToken:
            raise DecryptionError from None

    def needs_rotation(self, encrypted: str) -> bool:
        """Whether the value was not encrypted with the first key, so that it should be encrypted anew."""
        try:
            self._newest.decrypt(encrypted.encode())
        except InvalidToken:
            return True
        return False
