"""The local runner's reads of artifacts."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import threading
from collections.abc import AsyncIterator

import pytest
from contract.backend import ACCOUNT
from contract.local import LocalBackend

from worker.api.runners import files
from worker.api.runners.protocol import RunnerUnavailable

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
