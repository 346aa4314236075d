"""Leases of callbacks in memory."""

from __future__ import annotations

import pytest

from worker.api.runners.leases import CallbackLeases
from worker.api.runners.protocol import CALLBACK_LEASE_S


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def leases(clock):
    return CallbackLeases(lambda: clock[0])


def test_leased_once(leases):
    assert leases.take(["a", "b"]) == {"a", "b"}
    assert leases.take(["a", "b", "c"]) == {"c"}


def test_released_lease_can_be_taken(leases):
    leases.take(["a", "b"])
    leases.release("a", "unknown")
    assert leases.take(["a", "b"]) == {"a"}


def test_expired_lease_can_be_taken(leases, clock):
    leases.take(["a"])
    clock[0] += CALLBACK_LEASE_S - 1
    assert leases.take(["a"]) == set()
    clock[0] += 1
    assert leases.take(["a"]) == {"a"}
    assert leases.take(["a"]) == set()
