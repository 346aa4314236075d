"""The FakeRunner of the unit tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from contract.backend import ERROR, OUTPUT, Backend
from fakes import FakeRunner

from worker.api.runners.protocol import NULL, Runner, RunnerUnavailable, TaskRecord, TaskStatus


class MemoryBackend(Backend):
    """Changes the FakeRunner's records."""

    runner: FakeRunner

    async def open(self, *, queue_max: int = 10, account_max_queued: int = 10, **_: int) -> Runner:
        self.runner = FakeRunner(queue_max, account_max_queued)
        await self.runner.open()
        return self.runner

    async def close(self) -> None:
        await self.runner.close()

    async def run(self, task: TaskRecord) -> None:
        self.runner.set(task.task_id, TaskStatus.RUNNING, started_at=datetime.now(UTC))

    async def run_unready(self, task: TaskRecord) -> None:
        await self.run(task)
        del self.runner.addresses[task.task_id]

    async def end(self, task: TaskRecord, status: TaskStatus) -> None:
        success = status is TaskStatus.SUCCESS
        self.runner.set(
            task.task_id,
            status,
            finished_at=datetime.now(UTC),
            exit_code=0 if success else 1,
            output=json.dumps(OUTPUT).encode() if success else NULL,
            error=None if success else ERROR,
        )

    async def write_files(self, task: TaskRecord) -> dict[str, bytes]:
        files = {"note.txt": b"a note", "deep/er.bin": b"\0" * 1000}
        self.runner.files[task.task_id] = files
        return files

    def lose(self) -> None:
        self.runner.unavailable = RunnerUnavailable("the fake does not answer")
