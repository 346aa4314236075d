"""X-Forwarded-For is believed from trusted proxies only, and only as far as they can know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.trusted_proxies import TrustedProxies

TRUSTED = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "viewer"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # not trusted
        ("10.1.2.3", [], "10.1.2.3"),  # a trusted one that says nothing
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.7", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["2001:db8::9"], "2001:db8::9"),
        ("::ffff:10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # the viewer's own lie
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
def test_viewer(peer, forwarded, viewer):
    """The right-most address that is no trusted proxy's."""
    assert TRUSTED.viewer(peer, forwarded) == viewer


def test_zone():
    """A zone is any text at all, so an address with one is not believed."""
    proxies = TrustedProxies(["10.0.0.1"])
    assert proxies.viewer("10.0.0.1", ["fe80::1%anything at all"]) == "10.0.0.1"


def test_nobody_is_trusted_by_default():
    """Without trusted proxies the header changes nothing."""
    assert TrustedProxies(()).viewer("10.1.2.3", ["203.0.113.9"]) == "10.1.2.3"


@given(st.lists(st.text(max_size=60), max_size=5))
def test_garbage(forwarded):
    """Whatever the header holds, an address comes out."""
    found = TRUSTED.viewer("10.1.2.3", forwarded)
    assert TrustedProxies([found])
