"""X-Forwarded-For is used only from trusted proxies, up to the first address that is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.trusted_proxies import TrustedProxies, client_of

TRUSTED = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "viewer"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # not trusted
        ("10.1.2.3", [], "10.1.2.3"),  # a trusted proxy without the header
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.7", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["2001:db8::9"], "2001:db8::9"),
        ("::ffff:10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # forged by the viewer
        ("10.1.2.3", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["203.0.113.9, 10.9.9.9, 192.0.2.7"], "203.0.113.9"),  # a chain
        ("10.1.2.3", ["10.4.4.4, 10.5.5.5"], "10.4.4.4"),  # all trusted
        ("10.1.2.3", ["203.0.113.9, nonsense"], "10.1.2.3"),
        ("10.1.2.3", ["203.0.113.9, nonsense, 10.5.5.5"], "10.5.5.5"),
        ("10.1.2.3", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.1.2.3", ["[2001:db8::9]:4711"], "2001:db8::9"),
        ("10.1.2.3", ["unknown"], "10.1.2.3"),
    ],
)
def test_the_viewer_is_the_last_address_that_is_not_a_trusted_proxy(peer, forwarded, viewer):
    assert TRUSTED.viewer(peer, forwarded) == viewer


def test_an_address_with_a_zone_is_ignored():
    """A zone may be any text."""
    proxies = TrustedProxies(["10.0.0.1"])
    assert proxies.viewer("10.0.0.1", ["fe80::1%anything at all"]) == "10.0.0.1"


def test_without_trusted_proxies_the_header_is_ignored():
    assert TrustedProxies(()).viewer("10.1.2.3", ["203.0.113.9"]) == "10.1.2.3"


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_header_gives_an_address(forwarded):
    found = TRUSTED.viewer("10.1.2.3", forwarded)
    assert TrustedProxies([found])


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ("::1", "::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_client_of(address, client):
    """An IPv6 client is its network of 64 bits."""
    assert client_of(address) == client


def test_trusts():
    proxies = TrustedProxies(["10.0.0.0/8", "::1"])
    assert [proxies.trusts(peer) for peer in ("10.1.2.3", "::1", "11.0.0.1", "x")] == [
        True,
        True,
        False,
        False,
    ]
    assert not TrustedProxies([]).trusts("127.0.0.1")
