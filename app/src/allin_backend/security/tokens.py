"""Bearer tokens of sessions, and other random values that must not be guessed."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

PREFIX: Final = "allin_"
"""Lets a search for leaked secrets recognise one."""


def new_token() -> str:
    """A random token of 32 bytes, fit for URLs and headers."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is stored instead of a token: SHA-256 in hexadecimal."""
    # A token is random already: a slow hash would add nothing.
    return hashlib.sha256(token.encode()).hexdigest()
