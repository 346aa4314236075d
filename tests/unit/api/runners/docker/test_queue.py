"""The order in which containers are started."""

from __future__ import annotations

import dataclasses

import pytest
from docker_samples import container

from worker.api.runners.docker.queue import next_to_start
from worker.api.runners.fairness import Capacity, Turns


def turns(**limits: int) -> Turns:
    return Turns(Capacity(**{"max_running": 9, "queue_max": 9} | limits))


def created(number: int, task_id: str = "t", account: str = "acme"):
    labels = dict(container("created").labels)
    labels |= {"worker.created-at": f"2026-01-02T03:04:0{number}+00:00", "worker.task-id": task_id}
    labels |= {"worker.account": account}
    return dataclasses.replace(container("created"), labels=labels)


@pytest.mark.parametrize(("free", "expected"), [(-1, []), (0, []), (2, [0, 1]), (9, [0, 1, 2])])
def test_oldest_first(free, expected):
    queued = [created(number) for number in (2, 0, 1)]
    assert [each.created_at.second for each in next_to_start(queued, {}, free, turns())] == expected


def test_equal_times():
    """Containers of the same time are ordered by their task's id."""
    queued = [created(0, task_id) for task_id in ("b", "a")]
    assert [each.task_id for each in next_to_start(queued, {}, 2, turns())] == ["a", "b"]


def test_accounts_take_turns():
    """An account with many older tasks does not delay another's, nor exceed its own limit."""
    queued = [created(number, str(number)) for number in range(5)]
    queued += [created(number, str(number), "other") for number in (7, 8)]
    limited = turns(account_max_running=3)
    chosen = next_to_start(queued, {"acme": 1}, 9, limited)
    assert [each.task_id for each in chosen] == ["7", "0", "8", "1"]
