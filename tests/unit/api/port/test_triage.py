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


def test_clients_behind_a_trusted_proxy(triage: Triage) -> None:
    exhaust(triage, "/nothing", peer=PROXY, forwarded=b"203.0.113.1")
    assert sort(triage, "/nothing", peer=PROXY, forwarded=b"203.0.113.2").allowed
    assert sort(triage, "/nothing", peer=PEER, forwarded=b"203.0.113.1").address == PEER


def test_probes(triage: Triage) -> None:
    exhaust(triage, "/healthz")
    found = sort(triage, "/healthz")
    assert found.probe
    assert not found.allowed
