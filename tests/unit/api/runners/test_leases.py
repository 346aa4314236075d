"""Leases of callbacks in memory."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from worker.api.runners import leases as leases_module
from worker.api.runners.leases import CallbackLeases, LeaseReads
from worker.api.runners.protocol import CALLBACK_LEASE_S


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def leases(clock):
    return CallbackLeases(lambda: clock[0], per_account=3, limit=5)


def of(account, *task_ids):
    return [(account, task_id) for task_id in task_ids]


def test_leased_once(leases):
    assert leases.take(of("x", "a", "b")) == ["a", "b"]
    assert leases.take(of("x", "a", "b", "c")) == ["c"]


def test_released_lease_can_be_taken(leases):
    leases.take(of("x", "a", "b"))
    leases.release("a", "unknown")
    assert leases.take(of("x", "a", "b")) == ["a"]


def test_expired_lease_can_be_taken(leases, clock):
    leases.take(of("x", "a"))
    clock[0] += CALLBACK_LEASE_S - 1
    assert leases.take(of("x", "a")) == []
    clock[0] += 1
    assert leases.take(of("x", "a")) == ["a"]
    assert leases.take(of("x", "a")) == []


def test_account_has_a_limit(leases):
    """An account with many callbacks gets its share, oldest first; the rest follows a release."""
    assert leases.take(of("x", "a", "b", "c", "d", "e")) == ["a", "b", "c"]
    leases.release("b")
    assert leases.take(of("x", "a", "b", "c", "d", "e")) == ["b"]


def test_accounts_take_turns(leases):
    """Within the total limit each account gets one, then the next one."""
    pending = [*of("x", "a", "b", "c"), *of("y", "d", "e", "f")]
    assert leases.take(pending) == ["a", "d", "b", "e", "c"]


def test_account_without_a_lease_gets_one_beyond_the_limit(leases):
    leases.take([*of("x", "a", "b", "c"), *of("y", "d", "e", "f")])
    assert leases.take(of("z", "g", "h")) == ["g"]


def test_renewed_lease(leases, clock):
    leases.take(of("x", "a", "b"))
    clock[0] += CALLBACK_LEASE_S - 1
    leases.renew("a", "unknown")
    clock[0] += 2
    assert leases.take(of("x", "a", "b")) == ["b"]


async def test_slow_read_of_one_callback(monkeypatch: Any) -> None:
    """The others are delivered meanwhile; it is read once, and returned later."""
    monkeypatch.setattr(leases_module, "_READ_LIMIT_S", 0.01)
    reads: Any = LeaseReads()
    gate, begun = asyncio.Event(), []

    async def read(task_id: str) -> str:
        begun.append(task_id)
        if task_id == "slow":
            await gate.wait()
        if task_id == "broken":
            raise OSError("broken")
        return task_id

    for task_id in ("slow", "other", "broken", "slow"):
        reads.begin(task_id, partial(read, task_id))
    read_since, failures = await reads.ended()
    assert (read_since, list(failures)) == ({"other": "other"}, ["broken"])
    assert await reads.ended() == ({}, {})
    assert reads.running
    gate.set()
    assert await reads.ended() == ({"slow": "slow"}, {})
    assert begun == ["slow", "other", "broken"]
    reads.begin("next", partial(read, "next"))
    await reads.cancel()
