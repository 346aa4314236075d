"""The local runner with real workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.backend import STREAM_KEY, TIMEOUT_S, Backend, Left
from worker_run import MARK, PROGRAMS, eventually, marked_processes

from worker.api.runners.fairness import Capacity
from worker.api.runners.local import task_end
from worker.api.runners.local.disk.usage import UsageLimit
from worker.api.runners.local.isolation import mechanism
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.retention import Retention
from worker.api.runners.local.runner import LocalRunner
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.protocol import Runner, TaskRecord, TaskRequest, TaskStatus


class LocalBackend(Backend):
    """A state folder, and workers whose task waits for a file."""

    runner: LocalRunner

    def __init__(self, usage_limit: UsageLimit | None = None, isolation: str = "off") -> None:
        self.usage_limit, self.isolation = usage_limit, isolation
        self.folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: has Unix sockets
        self.mark = uuid.uuid4().hex
        self.max_running = 0

    async def open(
        self, *, max_running: int = 2, queue_max: int = 10, account_max_queued: int = 10
    ) -> Runner:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        self.max_running = max_running
        self.runner = LocalRunner(
            state_dir=self.folder / "state",
            environ=environ | {MARK: self.mark},
            stream_key=lambda _: STREAM_KEY,
            capacity=Capacity(
                max_running=max_running,
                queue_max=queue_max,
                account_max_queued=account_max_queued,
            ),
            retention=Retention(kept_s=0),
            usage_limit=self.usage_limit,
            detect=self._detect,
        )
        await self.runner.open()
        return self.runner

    def _detect(self) -> Isolation:
        state = self.folder / "state"
        return mechanism.detect(
            self.isolation,
            range(70_000, 71_000),
            folder=TaskFolder(path=state / "trial"),
            environ=os.environ,
            readable=(),
            hidden=(state,),
            endpoints=PROGRAMS / "endpoints",
        )

    async def reopen(self) -> Runner:
        await self.runner.close()
        return await self.open(max_running=self.max_running)

    async def close(self) -> None:
        await self.runner.close()
        for pid in marked_processes(self.mark, "worker.cli"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        eventually(lambda: not marked_processes(self.mark), timeout_s=20, what="the workers' end")
        shutil.rmtree(self.folder)

    def request(self, **fields: Any) -> TaskRequest:
        task_id = str(uuid.uuid4())
        inputs = {"gate": str(self._gate(task_id)), "city": "Zürich"}
        return super().request(**{"task_id": task_id, "inputs": inputs} | fields)

    def _gate(self, task_id: str) -> Path:
        return self.folder / f"gate-{task_id}"

    async def run(self, task: TaskRecord) -> None:
        await self.wait_for_status(task, TaskStatus.RUNNING)

    async def end(self, task: TaskRecord, status: TaskStatus) -> None:
        word = "go" if status is TaskStatus.SUCCESS else "fail"
        self._gate(task.task_id).write_text(word)

    async def removable(self, task: TaskRecord) -> TaskRecord:
        """Wait until an ended task has ended with all its processes."""
        async with asyncio.timeout(TIMEOUT_S):
            while not await self.runner._store.is_removable(task.task_id):
                await asyncio.sleep(0.01)
        return await self.read(task)

    async def end_with(self, ends: Mapping[str, tuple[TaskRecord, Left]]) -> None:
        """As after the end of a worker, of which no process is started."""
        for task, left in ends.values():
            folder = self.runner._workers.folder(task.task_id)
            folder.artifacts.mkdir(parents=True)
            if isinstance(left, bytes):
                (folder.artifacts / "result.json").write_bytes(left)
            else:
                left(folder.artifacts / "result.json")
            end = task_end.of_ended_worker(folder, 1, was_cancelled=False)
            await self.runner._store.mark_ended(task.task_id, end)

    async def write_files(self, task: TaskRecord) -> dict[str, bytes]:
        files = {"note.txt": b"a note", "deep/er.bin": b"\0" * 1_000_000, "two\nlines": b"x"}
        folder = self.folder / "state/tasks" / task.task_id / "artifacts"
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / "link").symlink_to("/etc/passwd")
        (folder / "up").symlink_to("/etc")
        (folder / ".hidden").write_bytes(b"x")
        os.mkfifo(folder / "fifo")
        return files

    async def start_spoiled(self) -> TaskRecord:
        """Its folder cannot be made."""
        request = self.request()
        folder = self.folder / "state/tasks" / request.task_id
        folder.parent.mkdir(exist_ok=True)
        folder.write_bytes(b"")
        return await self.runner.start(request)
