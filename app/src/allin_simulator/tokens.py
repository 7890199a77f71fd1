"""Tokens that say themselves what they are for.

A token is its content and a signature over it, so the simulator knows it again after a restart without keeping a file,
and accounts stay connected when the local stack is deployed anew. What is lost in a restart is the memory of revoked
and of used-up tokens; these are accepted again until they end.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final, Literal

import msgspec

_SIGNATURE_BYTES: Final = 16


class Token(msgspec.Struct, frozen=True, array_like=True):
    kind: Literal["access", "refresh"]
    platform: str
    client_id: str
    person: str
    """Whose account the token opens."""
    scope: str
    grant: str
    """The authorization that the token comes from; a connected account has one."""
    serial: str
    expires_at: float
    """Unix seconds."""


class Signer:
    """Writes and reads tokens, with a key made from ``secret``."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(f"allin-simulator tokens {secret}".encode()).digest()

    def write(self, token: Token) -> str:
        content = msgspec.json.encode(token)
        return f"{_text(content)}.{_text(self._signature(content))}"

    def read(self, text: str) -> Token | None:
        """The token, whether or not it has ended; ``None`` if it was not written with this key."""
        content, _, signature = text.partition(".")
        try:
            decoded = _bytes(content)
            if not hmac.compare_digest(_bytes(signature), self._signature(decoded)):
                return None
            return msgspec.json.decode(decoded, type=Token)
        except (Base64Error, ValueError):  # ValueError: not ASCII
            return None

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_SIGNATURE_BYTES]


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
