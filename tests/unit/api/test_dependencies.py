"""The dependency that resolves a path's task id."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fakes import FakeRunner

from worker.api import dependencies
from worker.api.accounts import Account
from worker.api.refusals import Refusal

TASK_ID = "11111111-2222-4333-8444-55555555555a"


class CountingRunner(FakeRunner):
    """Records the ids that are looked up."""

    def __init__(self):
        super().__init__()
        self.asked = []

    async def find(self, account, task_id, *, summary=False):
        self.asked.append((account, task_id))
        return await super().find(account, task_id)


@pytest.fixture
def runner():
    return CountingRunner()


def request_to(runner):
    services = SimpleNamespace(runner=runner)
    return SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(services=services)),
        scope={"worker.account": Account(name="alice", control=False)},
    )


@pytest.mark.parametrize(
    "task_id", ["", "x", TASK_ID + "0", TASK_ID[:-1], TASK_ID + "\n", "../" + TASK_ID]
)
async def test_not_a_uuid(runner, task_id):
    """Refused with the text as it was given, without asking the runner."""
    with pytest.raises(Refusal) as refused:
        await dependencies._own_task(task_id, request_to(runner))
    assert (refused.value.status_code, refused.value.detail) == (404, f"Task {task_id} not found")
    assert runner.asked == []


async def test_lower_case_is_looked_up(runner):
    """With the caller's account."""
    with pytest.raises(Refusal) as refused:
        await dependencies._own_task(TASK_ID.upper(), request_to(runner))
    assert refused.value.detail == f"Task {TASK_ID.upper()} not found"
    assert runner.asked == [("alice", TASK_ID)]
