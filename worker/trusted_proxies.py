"""Determines a viewer's address from the peer and X-Forwarded-For headers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    Network: TypeAlias = IPv4Network | IPv6Network
    Address: TypeAlias = IPv4Address | IPv6Address

HOPS_MAX: Final = 32
_IPV6_HOST_BITS: Final = 64


class TrustedProxies:
    """The proxies whose X-Forwarded-For headers are trusted."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Parse the proxies' addresses.

        Args:
            networks: addresses (`10.0.0.7`, `::1`) and networks (`10.0.0.0/8`).

        Raises:
            ValueError: an entry is neither.
        """
        self._networks: list[Network] = [ip_network(text, strict=False) for text in networks]

    def viewer(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address of the viewer behind a peer.

        Each proxy appends the address of its own peer to the header, so the last address that is
        not a trusted proxy's is the viewer's. The addresses before it are not trustworthy: the
        viewer may have sent them.

        Args:
            peer: the address of the TCP connection.
            forwarded: the values of the request's X-Forwarded-For headers, in order.

        Returns:
            the peer's address, if the peer is not a trusted proxy.
        """
        found = _address(peer)
        if found is None or not self._trusts(found):
            return peer if found is None else str(found)
        hops = [hop for value in forwarded for hop in value.split(",")][-HOPS_MAX:]
        for hop in reversed(hops):
            # A zone (`fe80::1%…`) may be any text, and is valid on the sender's machine only.
            before = None if "%" in hop else _address(hop.strip())
            if before is None:
                break
            found = before
            if not self._trusts(found):
                break
        return str(found)

    def trusts(self, peer: str) -> bool:
        """Whether a peer is a trusted proxy."""
        found = _address(peer) if self._networks else None
        return found is not None and self._trusts(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def client_of(address: str) -> str:
    """The key by which a client is limited: an IPv6 client has a network of 64 bits to itself."""
    if ":" not in address:
        return address
    found = _address(address)
    if not isinstance(found, IPv6Address):
        return address if found is None else str(found)
    return str(IPv6Address(int(found) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS))


def _address(text: str) -> Address | None:
    """Parse `10.0.0.7`, `10.0.0.7:5050`, `::1` or `[::1]:5050`; an IPv4-mapped address is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
