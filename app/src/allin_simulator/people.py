"""The people who have accounts on the platforms. Everybody exists: a name is enough."""

from __future__ import annotations

import hashlib
import re
from typing import Final

DEFAULT_PERSON: Final = "alex"
_PERSON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


def is_person(name: str) -> bool:
    return _PERSON.fullmatch(name) is not None


def user_id(platform: str, person: str) -> str:
    """The number of a person's account, always the same."""
    digest = hashlib.sha256(f"{platform} {person}".encode()).digest()
    return str(10**16 + int.from_bytes(digest[:8]) % (9 * 10**16))
