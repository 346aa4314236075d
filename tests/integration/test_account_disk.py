"""One account cannot fill the disk of the local runner: real workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from contract.local import LocalBackend
from worker_run import PROGRAMS

from worker.api.runners.local.disk.usage import UsageLimit
from worker.api.runners.protocol import AccountFull, TaskStatus

FILL = PROGRAMS / "endpoints/fill.py"
LIMIT = UsageLimit(max_bytes=16 << 20, max_files=10_000)
TOO_MUCH_BYTES = 24 << 20
PLACES = ["artifacts", "temporary", "deleted", "closed", "current"]


@pytest.fixture
async def backend(display_programs) -> AsyncIterator[LocalBackend]:
    made = LocalBackend(usage_limit=LIMIT)
    await made.open(max_running=1 + len(PLACES))
    yield made
    await made.close()


def fill(backend, account, place):
    inputs = backend.request().inputs | {"place": place, "size_bytes": TOO_MUCH_BYTES}
    return backend.start(file=FILL, account=account, inputs=inputs)


async def test_an_account_that_fills_the_disk_affects_no_other(backend):
    """Wherever its task writes, the task fails; another account's tasks run and can be started.

    What stays on the disk counts until it is deleted, also for another API process. In temporary
    places nothing stays.
    """
    other = await fill(backend, "other", "nothing")
    tasks = {place: await fill(backend, place, place) for place in PLACES}
    for place, task in tasks.items():
        ended = await backend.wait_for_status(task, TaskStatus.FAILED)
        result = json.loads((await backend.content(ended, "result.json")).decode())
        assert (result["status"], result["error"]["type"]) == ("failed", "AccountDiskFull")
        assert ended.error is not None, place
        assert ended.error["type"] == "AccountDiskFull", ended.error
        assert "WORKER_ACCOUNT_MAX_BYTES" in ended.error["message"]
        assert "16.0 MiB" in ended.error["message"]
        assert ended.exit_code == 1
    full = await backend.removable(tasks["artifacts"])
    await backend.wait_for_status(other, TaskStatus.RUNNING)
    runner = await backend.reopen()
    with pytest.raises(AccountFull):
        await backend.start(account="artifacts")
    assert (await backend.start(account="other")).status is TaskStatus.QUEUED
    await runner.remove(full)
    again = await backend.start(account="artifacts")
    await backend.end(again, TaskStatus.SUCCESS)
    await backend.wait_for_status(again, TaskStatus.SUCCESS)
