"""Whose address a request counts for."""

from __future__ import annotations

import pytest

from allin_backend.web.addresses import ClientAddresses
from support import http_scope

PROXIES = ("192.0.2.1", "2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # anybody can send the header
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.1", ["198.51.100.7, 203.0.113.9"], "203.0.113.9"),  # the first is the client's own word
        ("192.0.2.1", ["198.51.100.7", "203.0.113.9"], "203.0.113.9"),
        ("192.0.2.1", ["203.0.113.9, 192.0.2.1"], "203.0.113.9"),
        ("192.0.2.1", ["192.0.2.1"], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9, nonsense"], "192.0.2.1"),
        ("192.0.2.1", ["", " "], "192.0.2.1"),
        ("192.0.2.1", ["\xff"], "192.0.2.1"),
        ("::ffff:192.0.2.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8:1::5", ["2001:db8:2:3:4::5"], "2001:db8:2:3::/64"),
        ("2001:db8:2:3::99", [], "2001:db8:2:3::/64"),
        ("testclient", ["203.0.113.9"], "unknown"),
    ],
)
def test_address(peer: str, forwarded: list[str], expected: str) -> None:
    scope = dict(http_scope("/"), client=(peer, 1))
    scope["headers"] = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]

    assert ClientAddresses(PROXIES).of(scope) == expected


def test_without_a_peer() -> None:
    assert ClientAddresses(PROXIES).of(dict(http_scope("/"), client=None)) == "unknown"
