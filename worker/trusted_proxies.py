"""A viewer's address: the peer's, or what trusted proxies say in X-Forwarded-For."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    Network: TypeAlias = IPv4Network | IPv6Network
    Address: TypeAlias = IPv4Address | IPv6Address

HOPS_MAX: Final = 32


class TrustedProxies:
    """The networks whose word is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Trust these.

        Args:
            networks: addresses (`10.0.0.7`, `::1`) and networks (`10.0.0.0/8`).

        Raises:
            ValueError: one is neither.
        """
        self._networks: list[Network] = [ip_network(text, strict=False) for text in networks]

    def viewer(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address of the viewer behind a peer.

        Each proxy writes the address that it was connected from behind what it was told, so the
        last one that is not a trusted proxy's is the viewer's. What stands before it, anybody can
        have written.

        Args:
            peer: the address of the TCP connection.
            forwarded: the values of the request's X-Forwarded-For headers, in order.
        """
        found = _address(peer)
        if found is None or not self._trusts(found):
            return peer if found is None else str(found)
        hops = [hop for value in forwarded for hop in value.split(",")][-HOPS_MAX:]
        for hop in reversed(hops):
            # A zone (`fe80::1%…`) may be any text, and means nothing on another machine.
            before = None if "%" in hop else _address(hop.strip())
            if before is None:
                break
            found = before
            if not self._trusts(found):
                break
        return str(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    """Read `10.0.0.7`, `10.0.0.7:5050`, `::1` or `[::1]:5050`; IPv4 inside IPv6 is IPv4."""
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
