"""The addresses that callbacks may be sent to."""

from __future__ import annotations

import ipaddress

import httpcore
import pytest

from worker.api.callbacks.addresses import AddressNotPublic, PublicBackend, is_public, literal


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"]
)
def test_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "2002:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "::1"])
async def test_spellings_of_loopback_are_refused(host):
    """The resolved address counts: getaddrinfo(3) resolves `0x7f.1` to 127.0.0.1."""
    with pytest.raises(AddressNotPublic, match="which is not public"):
        await PublicBackend().connect_tcp(host, 80, timeout=5)


async def test_unix_socket_is_refused():
    with pytest.raises(AddressNotPublic):
        await PublicBackend().connect_unix_socket("/run/docker.sock")


async def test_unresolvable_name():
    with pytest.raises(httpcore.ConnectError):
        await PublicBackend().connect_tcp("no..host", 80, timeout=5)


@pytest.mark.parametrize(
    ("host", "address"), [("10.0.0.1", "10.0.0.1"), ("[::1]", "::1"), ("::1", "::1"), ("a.b", None)]
)
def test_literal(host, address):
    assert literal(host) == (None if address is None else ipaddress.ip_address(address))
