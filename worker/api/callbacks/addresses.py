"""The addresses that callbacks may be sent to: public ones, unless a setting allows all.

The checked address is the one that is connected to, so that a name cannot resolve to another one in
between (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import httpcore

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[Any]]]

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_IPV4_MASK: Final = 0xFFFFFFFF


class AddressNotPublic(Exception):
    """A callback's host has an address that is not public."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet; embedded IPv4 addresses count as such."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        elif address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & _IPV4_MASK)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


def literal(host: str) -> Address | None:
    """The IP address that a URL's host is; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


class PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, unless private ones are permitted."""

    def __init__(self, resolve: Resolve | None = None, *, private: bool = False) -> None:
        """Make the backend.

        Args:
            resolve: returns what `socket.getaddrinfo` does, for host and port.
            private: whether any address is permitted.
        """
        self._inner = httpcore.AnyIOBackend()
        self._resolve = resolve or _resolve
        self._private = private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve the host once, check its addresses, and connect to the first.

        Raises:
            AddressNotPublic: one of its addresses is not public.
            httpcore.ConnectError: the host cannot be resolved or does not answer.
        """
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise httpcore.ConnectError(f"cannot resolve {host}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            is_allowed = self._private or is_public(ipaddress.ip_address(address.split("%")[0]))
            if not is_allowed:
                raise AddressNotPublic(f"{host} has the address {address}, which is not public")
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refused: a Unix socket is local.

        Raises:
            AddressNotPublic: always.
        """
        del timeout, socket_options
        raise AddressNotPublic(f"{path} is a Unix socket")

    async def sleep(self, seconds: float) -> None:
        """Required by the interface."""
        await self._inner.sleep(seconds)


async def _resolve(host: str, port: int) -> Sequence[Any]:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
