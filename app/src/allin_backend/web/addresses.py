"""Whose address a request comes from, as far as it can be known."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from starlette.types import Scope

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNKNOWN: Final = "unknown"
_IPV6_PREFIX: Final = 64


class ClientAddresses:
    """Finds the address that a request's limits count for.

    ``X-Forwarded-For`` is believed only as far as ``trusted`` proxies wrote it: anybody can send the header.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(name) for name in trusted]

    def of(self, scope: Scope) -> str:
        """The client's address; of an IPv6 address the /64 network, which one customer owns as a whole."""
        peer = scope.get("client")
        address = _parse(peer[0]) if peer else None
        if address is not None and self._is_trusted(address):
            address = self._forwarded(scope, address)
        if address is None:
            return UNKNOWN
        if address.version == 6:
            return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
        return str(address)

    def _forwarded(self, scope: Scope, peer: _Address) -> _Address:
        """The last address of the header that no trusted proxy has; ``peer`` where there is none."""
        values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for text in reversed(",".join(values).split(",")):
            address = _parse(text.strip())
            if address is None:
                break
            peer = address
            if not self._is_trusted(address):
                break
        return peer

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that takes both kinds shows IPv4 clients in IPv6's form.
    return getattr(address, "ipv4_mapped", None) or address
