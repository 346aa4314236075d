"""One account cannot fill the disk of the local runner: real workers, by each mechanism."""

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


@pytest.fixture(params=["auto", "landlock"])
async def backend(request, display_programs) -> AsyncIterator[LocalBackend]:
    """As root, `auto` gives each task a uid of its own."""
    made = LocalBackend(usage_limit=LIMIT, isolation=request.param)
    await made.open(max_running=2 + len(PLACES))
    yield made
    await made.close()


def fill(backend, account, place):
    inputs = {"place": place, "size_bytes": TOO_MUCH_BYTES}
    return backend.start(file=FILL, account=account, inputs=inputs)


async def test_an_account_that_fills_the_disk_affects_no_other(backend):
    """Wherever its task writes, the task fails; another account's tasks run and can be started.

    What stays on the disk counts until it is deleted, also for another API process.
    """
    other = await fill(backend, "other", "nothing")
    tasks = {place: await fill(backend, place, place) for place in PLACES}
    for place, task in tasks.items():
        ended = await backend.wait_for_status(task, TaskStatus.FAILED)
        assert ended.error is not None, place
        assert ended.error["type"] == "AccountDiskFull", (place, ended.error)
        assert "limit (WORKER_ACCOUNT_MAX_BYTES) is 16.0 MiB" in ended.error["message"]
        assert ended.exit_code == 1
        result = json.loads(await backend.content(ended, "result.json"))
        assert (result["status"], result["error"]["type"]) == ("failed", "AccountDiskFull")
    full = await backend.removable(tasks["artifacts"])
    await backend.wait_for_status(other, TaskStatus.RUNNING)
    runner = await backend.reopen()
    with pytest.raises(AccountFull):
        await fill(backend, "artifacts", "nothing")
    await backend.run(await fill(backend, "other", "nothing"))
    await runner.remove(full)
    await backend.run(await fill(backend, "artifacts", "nothing"))
