"""How requests to the API are sorted."""

from __future__ import annotations

import pytest
from fakes import FakeAccounts

from worker.api.accounts import Account
from worker.api.port.triage import Sorted, Triage
from worker.trusted_proxies import TrustedProxies

KEY = b"wk_alice"
PEER, PROXY = "192.0.2.1", "10.0.0.7"


@pytest.fixture
def triage() -> Triage:
    accounts = FakeAccounts({KEY.decode(): Account(name="alice", control=False)})
    return Triage(accounts, TrustedProxies([PROXY]))


def sort(
    triage: Triage,
    path: str,
    key: bytes = b"",
    *,
    method: str = "GET",
    peer: str = PEER,
    forwarded: bytes = b"",
) -> Sorted:
    headers = [(b"x-api-key", key), (b"x-forwarded-for", forwarded)]
    return triage.sort(method, path, headers, peer=peer, now=0.0)


def exhaust(triage: Triage, path: str, **more: str) -> None:
    """Send such requests until one is not allowed."""
    assert any(not sort(triage, path, **more).allowed for _ in range(2000))


@pytest.mark.parametrize("flood", ["/api/v1/tasks", "/nothing", "/", "/healthz"])
def test_valid_keys_are_not_limited(triage: Triage, flood: str) -> None:
    exhaust(triage, flood)
    for _ in range(2000):
        found = sort(triage, "/api/v1/tasks", KEY)
        assert found.allowed
        assert found.client == ("account", "alice")


def test_an_account_has_a_rate(triage: Triage) -> None:
    assert any(not sort(triage, "/api/v1/tasks", KEY).allowed for _ in range(9000))


def test_invalid_keys_do_not_close_the_pages(triage: Triage) -> None:
    exhaust(triage, "/api/v1/tasks")
    exhaust(triage, "/nothing")
    assert sort(triage, "/page/dashboard.js").allowed
    assert sort(triage, "/api/v1/tasks", method="OPTIONS").allowed
    assert sort(triage, "/healthz").allowed
    assert not sort(triage, "/api/v1/tasks", b"wk_bad").allowed


def test_a_key_is_valid_for_the_api_only(triage: Triage) -> None:
    assert sort(triage, "/", KEY).client == ("address", PEER)


def test_addresses_have_their_own_rates(triage: Triage) -> None:
    exhaust(triage, "/nothing", peer="2001:db8::1")
    assert not sort(triage, "/nothing", peer="2001:db8::2").allowed
    assert sort(triage, "/nothing", peer="2001:db8:0:1::1").allowed


FLOODS = {
    "a few addresses": [f"192.0.2.{number}" for number in range(2, 14)],
    "a /24": [f"198.51.100.{number}" for number in range(256)],
    "a /64": [f"2001:db8:0:2::{number:x}" for number in range(1, 5000)],
    "a /56": [f"2001:db8:0:{number:x}::1" for number in range(0x100, 0x200)],
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/", b""),
        ("OPTIONS", "/api/v1/tasks", b""),
        ("GET", "/api/v1/tasks", b""),
        ("POST", "/api/v1/inference", b"wk_bad"),
        ("GET", "/nothing", b""),
        ("POST", "/healthz", b""),
        ("GET", "/healthz", b""),
        ("GET", "/metrics", b""),
    ],
)
def test_flood_from_some_addresses_refuses_no_other(
    triage: Triage, method: str, path: str, key: bytes, flood: str
) -> None:
    """The first requests of all others are allowed, and all with a valid key."""
    addresses = FLOODS[flood]
    headers = [(b"x-api-key", key)]
    for number in range(6000):
        now = number / 1000
        peer = addresses[number % len(addresses)]
        triage.sort(method, path, headers, peer=peer, now=now)
        if now % 2 == 1:
            for other in (f"192.0.2.{100 + now:g}", f"203.0.113.{now:g}", f"2001:db8:1:{now:g}::1"):
                assert triage.sort(method, path, headers, peer=other, now=now).allowed, now
            valid = triage.sort("GET", "/api/v1/tasks", [(b"x-api-key", KEY)], peer=peer, now=now)
            assert valid.allowed


def test_accounts_that_send_much_limit_no_other() -> None:
    """The total of all accounts is shared as well."""
    keys = {f"wk_{number}": Account(name=str(number), control=False) for number in range(30)}
    triage = Triage(FakeAccounts(keys), TrustedProxies([]))
    for number in range(60_000):
        name = number % 29
        exhausting = [(b"x-api-key", f"wk_{name}".encode())]
        triage.sort("GET", "/api/v1/tasks", exhausting, peer=PEER, now=number / 10_000)
        if number % 1000 == 0:
            found = triage.sort(
                "GET", "/api/v1/tasks", [(b"x-api-key", b"wk_29")], peer=PEER, now=number / 10_000
            )
            assert found.allowed


def test_flood_from_more_addresses_than_are_remembered(triage: Triage) -> None:
    """Valid keys and probes are served; the others again when it ends."""
    for number in range(20_000):
        now = number / 4000
        peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        triage.sort("GET", "/", [], peer=peer, now=now)
        triage.sort("GET", "/healthz", [], peer=peer, now=now)
        if number % 100 == 0:
            valid = triage.sort("GET", "/api/v1/tasks", [(b"x-api-key", KEY)], peer=peer, now=now)
            assert valid.allowed
            assert triage.sort("GET", "/healthz", [], peer="10.9.9.9", now=now).probe
    assert triage.sort("GET", "/", [], peer="10.9.9.9", now=now + 1).allowed


def test_clients_behind_a_trusted_proxy(triage: Triage) -> None:
    exhaust(triage, "/nothing", peer=PROXY, forwarded=b"203.0.113.1")
    assert sort(triage, "/nothing", peer=PROXY, forwarded=b"203.0.113.2").allowed
    assert sort(triage, "/nothing", peer=PEER, forwarded=b"203.0.113.1").address == PEER


def test_probes(triage: Triage) -> None:
    exhaust(triage, "/healthz")
    found = sort(triage, "/healthz")
    assert found.probe
    assert not found.allowed
