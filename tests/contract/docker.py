"""The docker runner with the fake engine."""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from contract.backend import ERROR, OUTPUT, STREAM_KEY, Backend, Left
from fake_engine import FakeContainer, FakeEngine

from worker import trees
from worker.api.runners.docker.container_spec import ContainerSpec
from worker.api.runners.docker.runner import DockerRunner
from worker.api.runners.docker.watchdog import Limits
from worker.api.runners.fairness import Capacity
from worker.api.runners.protocol import Runner, TaskRecord, TaskStatus

READY = b'{"event": "stream.ready"}\n'


class DockerBackend(Backend):
    """An engine whose containers start no process."""

    runner: DockerRunner

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = FakeEngine()
        self.is_lost = False
        self.max_running = 0
        self.limits = Limits()
        self.events: list[str] = []
        monkeypatch.setenv("DOCKER_HOST", self.engine.url)

    async def open(
        self, *, max_running: int = 2, queue_max: int = 10, account_max_queued: int = 10
    ) -> Runner:
        self.max_running = max_running
        self.runner = DockerRunner(
            spec=ContainerSpec(
                image="worker",
                network="workers",
                endpoints=None,
                seccomp="{}",
                memory_bytes=1 << 30,
                environ={},
            ),
            stream_key=lambda _: STREAM_KEY,
            capacity=Capacity(
                max_running=max_running,
                queue_max=queue_max,
                account_max_queued=account_max_queued,
            ),
            retention_s=0,
            limits=self.limits,
            report=lambda event, **_: self.events.append(event),
        )
        await self.runner.open()
        return self.runner

    async def reopen(self) -> Runner:
        await self.runner.close()
        return await self.open(max_running=self.max_running)

    async def close(self) -> None:
        await self.runner.close()
        if not self.is_lost:
            self.engine.stop()

    def container(self, task: TaskRecord) -> FakeContainer:
        """A task's container."""
        return self.engine.of_task(task.task_id)

    async def run_unready(self, task: TaskRecord) -> None:
        await self.wait_for_status(task, TaskStatus.RUNNING)

    async def run(self, task: TaskRecord) -> None:
        await self.run_unready(task)
        self.container(task).stdout = READY

    async def end(self, task: TaskRecord, status: TaskStatus) -> None:
        success = status is TaskStatus.SUCCESS
        result = {
            "status": str(status),
            "exit_code": 0 if success else 1,
            "output": OUTPUT if success else None,
            "error": None if success else ERROR,
        }
        container = self.container(task)
        container.files["result.json"] = json.dumps(result).encode()
        container.end(result["exit_code"])

    async def write_files(self, task: TaskRecord) -> dict[str, bytes]:
        files = {"note.txt": b"a note", "deep/er.bin": b"\0" * 1_000_000, "two\nlines": b"x"}
        hostile = {"link": "/etc/passwd", ".hidden": b"x", "../up": b"x", "a/../../b": b"x"}
        self.container(task).files |= files | hostile
        return files

    async def end_with(self, ends: Mapping[str, tuple[TaskRecord, Left]]) -> None:
        for task, left in ends.values():
            container = self.container(task)
            if isinstance(left, bytes):
                container.files["result.json"] = left
            else:
                made = Path(tempfile.mkdtemp()) / "result.json"
                left(made)
                container.files |= _archived(made)
                assert not trees.remove(made.parent, limit_s=60)
            container.end(1)

    def lose(self) -> None:
        self.is_lost = True
        self.engine.stop()

    async def start_spoiled(self) -> TaskRecord:
        """Another program has changed its labels and environment."""
        task = await self.start()
        config = self.container(task).config
        config["Env"] = ["odd"]
        config["Labels"] = config["Labels"] | {"worker.created-at": "odd"}
        return task


def _archived(file: Path) -> dict[str, bytes | str | None]:
    """What the engine's archive has of something in the result's place."""
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        return {"result.json": str(file.readlink())}
    if stat.S_ISDIR(mode):
        return {"result.json/inner/file": b""}
    if stat.S_ISREG(mode):
        return {"result.json": bytes(min(file.stat().st_size, 20 << 20))}
    return {"result.json": None}
