"""Passwords are kept as Argon2id hashes."""

from __future__ import annotations

import asyncio
import unicodedata
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from secrets import token_bytes
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

THREADS: Final = 2
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32


class Passwords:
    """Hashes and verifies in a few threads, so that the event loop goes on; others wait for their turn.

    The default parameters are the first that the OWASP Password Storage Cheat Sheet gives as a minimum for Argon2id:
    19 MiB of memory, 2 iterations, 1 lane. At most ``threads`` times that memory is in use at a time.
    """

    def __init__(
        self, *, memory_kib: int = 19 * 1024, iterations: int = 2, lanes: int = 1, threads: int = THREADS
    ) -> None:
        self._hasher: Final = PasswordHasher(
            time_cost=iterations,
            memory_cost=memory_kib,
            parallelism=lanes,
            salt_len=SALT_BYTES,
            hash_len=HASH_BYTES,
            type=Type.ID,
        )
        # The hash of no password, made without any hashing; verifying against it costs what any other does.
        salt, nothing = (_base64(token_bytes(length)) for length in (SALT_BYTES, HASH_BYTES))
        self._nobody: Final = f"$argon2id$v=19$m={memory_kib},t={iterations},p={lanes}${salt}${nothing}"
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="passwords")

    async def hash(self, password: str) -> str:
        """The hash to store, with its salt and parameters."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one that was hashed.

        ``stored`` is ``None`` where there is no such user, or one without a password: the answer then is no, and takes
        as long, so that nobody learns from the time who has an account.

        Raises:
            argon2.exceptions.InvalidHashError: ``stored`` is not a hash.
        """
        loop = asyncio.get_running_loop()
        target = self._nobody if stored is None else stored
        matches = await loop.run_in_executor(self._threads, self._matches, target, password)
        return matches and stored is not None

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _hash(self, password: str) -> str:
        return self._hasher.hash(_canonical(password))

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, _canonical(password))
        except VerifyMismatchError:
            return False


def _canonical(password: str) -> str:
    # Keyboards differ in how they write the same accented letter.
    return unicodedata.normalize("NFC", password)


def _base64(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")
