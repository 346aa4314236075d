"""How slots and queue are shared between accounts."""

from __future__ import annotations

import pytest

from worker.api.runners.fairness import Capacity, Turns
from worker.api.runners.protocol import QueueFull


def capacity(**limits: int) -> Capacity:
    return Capacity(**{"max_running": 4, "queue_max": 3} | limits)


def test_one_slot_goes_round():
    """With one slot, accounts take turns, however old their tasks are."""
    turns = Turns(capacity())
    oldest = {"many": 1, "late": 100, "latest": 200}
    assert [turns.take(oldest, {}) for _ in range(4)] == ["many", "late", "latest", "many"]


def test_fewest_running_first():
    """A slot goes to the account that has the fewest."""
    assert Turns(capacity()).take({"a": 1, "b": 2}, {"a": 2, "b": 1}) == "b"


def test_account_at_its_limit():
    """It gets no further slot; no account gets one if all are at their limit."""
    turns = Turns(capacity(account_max_running=1))
    assert turns.take({"a": 1, "b": 2}, {"a": 1}) == "b"
    assert turns.take({"a": 1}, {"a": 1}) is None
    assert turns.take({}, {}) is None


@pytest.mark.parametrize(("queued", "of_account", "limit"), [(2, 1, None), (3, 0, None), (2, 2, 2)])
def test_queue(queued, of_account, limit):
    """The account's own limit is named in the refusal."""
    limits = capacity() if limit is None else capacity(account_max_queued=limit)
    if queued < 3 and limit is None:
        limits.check_queue(queued=queued, of_account=of_account)
        return
    with pytest.raises(QueueFull) as refused:
        limits.check_queue(queued=queued, of_account=of_account)
    assert refused.value.account_max == limit
