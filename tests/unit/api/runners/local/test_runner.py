"""The local runner's reads of artifacts."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator

import pytest
from contract.backend import ACCOUNT
from contract.local import LocalBackend

from worker.api.runners import files
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.protocol import RunnerUnavailable, TaskStatus

PATIENCE_S = 20


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    made = LocalBackend()
    await made.open(max_running=0)
    yield made
    await made.close()


async def test_slow_reads_of_one_account_do_not_block_another(backend, monkeypatch):
    """Its files are on a slow disk, for example; other work in threads goes on, too."""
    slow = await backend.start()
    other = dataclasses.replace(slow, account="another", task_id="other")
    gate = threading.Event()
    folder = backend.folder / "state/tasks" / slow.task_id / "artifacts"
    list_files = files.list_files
    monkeypatch.setattr(
        files, "list_files", lambda path: gate.wait() if path == folder else list_files(path)
    )
    hanging = [asyncio.ensure_future(backend.runner.artifacts(slow)) for _ in range(100)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await backend.runner.artifacts(other) == []
            assert await backend.runner.open_artifact(other, "a.txt") is None
            assert await asyncio.to_thread(int, "7") == 7
            assert (await backend.start()).account == ACCOUNT
    finally:
        gate.set()
        await asyncio.wait(hanging)


async def test_artifacts_without_descriptors(backend, monkeypatch):
    """The answer is that the runner is not available: the files are not missing."""
    task = await backend.start()
    opened = os.open

    def fail(path, *arguments, **options):
        if str(path).endswith("artifacts"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(RunnerUnavailable, match="Too many open files"):
        await backend.runner.artifacts(task)
    with pytest.raises(RunnerUnavailable, match="Too many open files"):
        await backend.runner.open_artifact(task, "a.txt")


async def test_id_that_is_used_again_while_it_is_removed(backend, monkeypatch):
    """Several requests remove a task; what is started under its id afterwards stays."""
    request = backend.request()
    task = await backend.runner.start(request)
    await backend.runner.cancel(task)
    gates, begun = (threading.Event(), threading.Event()), itertools.count()
    remove = TaskFolder.remove

    def slow_remove(folder):
        gates[min(next(begun), 1)].wait(PATIENCE_S)
        return remove(folder)

    monkeypatch.setattr(TaskFolder, "remove", slow_remove)
    removals = [asyncio.ensure_future(backend.runner.remove(task)) for _ in range(3)]
    await asyncio.sleep(0.2)  # without the fix, all of them begin
    gates[0].set()
    await asyncio.wait(removals, return_when=asyncio.FIRST_COMPLETED)
    await backend.runner.start(request)
    gates[1].set()
    await asyncio.gather(*removals, return_exceptions=True)
    assert (await backend.read(task)).status is TaskStatus.QUEUED
