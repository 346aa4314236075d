"""What a runner needs to be tested: its engine, and control over its tasks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.api.runners.protocol import Runner, TaskRecord, TaskRequest, TaskStatus

TIMEOUT_S = 60
ACCOUNT = "acme"
OUTPUT = {"word": "go"}
ERROR = {"type": "RuntimeError", "message": "failed on purpose"}
STREAM_KEY = b"k" * 32

Left = bytes | Callable[[Path], None]
"""What a task leaves in the place of its result: a content, or what makes something else there."""


class Backend:
    """A runner and the tasks that it runs."""

    runner: Runner
    result_max_bytes = 20 << 20
    repairs: Collection[str] = ()
    """The hostile results that the platform itself makes valid."""

    async def open(
        self, *, max_running: int = 2, queue_max: int = 10, account_max_queued: int = 10
    ) -> Runner:
        """Make and open the runner; with `max_running=0` every task stays queued."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the runner and end all of its tasks."""
        raise NotImplementedError

    async def run(self, task: TaskRecord) -> None:
        """Let a task run until viewers can connect."""
        raise NotImplementedError

    async def end(self, task: TaskRecord, status: TaskStatus) -> None:
        """Let a running task end with success (OUTPUT) or failed (ERROR)."""
        raise NotImplementedError

    async def write_files(self, task: TaskRecord) -> dict[str, bytes]:
        """Write artifacts of a running task, and links out of its folder; the valid artifacts."""
        raise NotImplementedError

    async def end_with(self, ends: Mapping[str, tuple[TaskRecord, Left]]) -> None:
        """Let workers end with exit code 1, each with this in the place of its result.

        Args:
            ends: by any name.
        """
        raise NotImplementedError

    async def run_unready(self, task: TaskRecord) -> None:
        """Let a task run, without viewers being able to connect."""
        raise NotImplementedError

    async def reopen(self) -> Runner:
        """Close the runner and open another one on the same tasks."""
        raise NotImplementedError

    async def start_spoiled(self) -> TaskRecord:
        """Start a task that the runner cannot handle, for a reason that concerns it alone."""
        return await self.start()

    def finish_cancel(self, task: TaskRecord) -> None:
        """What follows the cancellation of a running task, where the test must do it."""

    def finish_remove(self, task: TaskRecord) -> None:
        """What follows the removal of a task, where the test must do it."""

    def fill_queue(self) -> None:
        """Make the queue full, where the number of tasks does not."""

    def lose(self) -> None:
        """Stop answering."""
        raise NotImplementedError

    # -- requests and waiting

    def request(self, **fields: Any) -> TaskRequest:
        """A request with a new id."""
        values: dict[str, Any] = {
            "task_id": str(uuid.uuid4()),
            "account": ACCOUNT,
            "endpoint_name": "held",
            "file": Path(__file__).parent / "programs/held.py",
            "inputs": {"n": 1, "city": "Zürich"},
            "timeout_s": 60.0,
            "callback_url": None,
            "digest": "d" * 64,
            "created_at": datetime.now(UTC),
        }
        return TaskRequest(**values | fields)

    async def start(self, **fields: Any) -> TaskRecord:
        """Start a new task."""
        return await self.runner.start(self.request(**fields))

    async def read(self, task: TaskRecord) -> TaskRecord:
        """The task as it is now."""
        found = await self.runner.find(task.account, task.task_id)
        assert found is not None
        return found

    async def content(self, task: TaskRecord, name: str) -> bytes:
        """The content of an artifact that exists."""
        pieces = await self.runner.open_artifact(task, name)
        assert pieces is not None
        return b"".join([piece async for piece in pieces])

    async def wait_for_status(self, task: TaskRecord, status: TaskStatus) -> TaskRecord:
        """Wait for a status."""
        async with asyncio.timeout(TIMEOUT_S):
            while (found := await self.read(task)).status is not status:
                assert not found.status.ended, f"expected {status}: {found}"
                await asyncio.sleep(0.01)
        return found
