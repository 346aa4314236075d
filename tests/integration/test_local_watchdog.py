"""The local runner's watchdog ends workers that hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from worker_run import MARK, PROGRAMS, marked_processes

from worker import linux
from worker.api.runners.fairness import Capacity
from worker.api.runners.local.retention import Retention
from worker.api.runners.local.runner import LocalRunner
from worker.api.runners.local.watchdog import Watchdog
from worker.api.runners.protocol import TaskRequest, TaskStatus

TIMEOUT_S = 60
WORKER = "worker.cli run"


class Machine:
    """A state folder, the runners that use it one after the other, and their processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        self.environ = environ | {MARK: self.mark}

    @contextlib.asynccontextmanager
    async def runner(self, margin_s: float):
        made = LocalRunner(
            state_dir=self.folder / "state",
            environ=self.environ,
            stream_key=lambda _: bytes(32),
            capacity=Capacity(max_running=1, queue_max=10),
            retention=Retention(kept_s=0),
            watchdog=Watchdog(margin_s=margin_s, grace_s=0.2),
        )
        await made.open()
        try:
            yield made
        finally:
            await made.close()

    def request(self, timeout_s):
        gate = str(self.folder / "gate")
        return TaskRequest(
            task_id=str(uuid.uuid4()),
            account="alice",
            endpoint_name="gated",
            file=PROGRAMS / "endpoints/gated.py",
            inputs={"gate": gate},
            timeout_s=timeout_s,
            callback_url=None,
            digest="",
            created_at=datetime.now(UTC),
        )


@pytest.fixture
def machine(display_programs, ipc_namespace):
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: sockets live below it
    made = Machine(folder)
    try:
        yield made
    finally:
        left = marked_processes(made.mark)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)
    assert not left


async def until(condition):
    async with asyncio.timeout(TIMEOUT_S):
        while not (value := await condition()):
            await asyncio.sleep(0.01)
    return value


def status_is(runner, task, status):
    async def check():
        found = await runner.find("alice", task)
        return found if found.status is status else None

    return check


def count_is(machine, name, *, count):
    async def check():
        found = marked_processes(machine.mark, name)
        return len(found) == count and (found or True)

    return check


async def test_worker_that_exceeds_its_timeout_is_ended(machine):
    """Its task fails with the reason, and the next task is started."""
    async with machine.runner(margin_s=0.5) as runner:
        stuck = await runner.start(machine.request(timeout_s=0.5))
        [pid] = await until(count_is(machine, WORKER, count=1))
        with contextlib.suppress(ProcessLookupError):  # it may be overdue already
            os.kill(pid, signal.SIGSTOP)
        found = await until(status_is(runner, stuck.task_id, TaskStatus.FAILED))
        assert (found.exit_code, found.error["type"]) == (124, "WorkerOverdue")
        assert "still ran long after the task's timeout of 0.5 s" in found.error["message"]
        await until(count_is(machine, "", count=0))
        second = await runner.start(machine.request(timeout_s=0.5))
        await until(count_is(machine, WORKER, count=1))
        await until(status_is(runner, second.task_id, TaskStatus.FAILED))
        await until(count_is(machine, "", count=0))


async def test_worker_of_an_earlier_api_process_is_ended(machine):
    """With all its descendants; its temporary folder and its shared memory are removed."""
    async with machine.runner(margin_s=0) as runner:
        stuck = await runner.start(machine.request(timeout_s=300))
        await until(status_is(runner, stuck.task_id, TaskStatus.RUNNING))
        [pid] = marked_processes(machine.mark, WORKER)
        os.kill(pid, signal.SIGSTOP)
    processes = set(marked_processes(machine.mark))
    assert len(processes) > 5
    assert processes & {each["cpid"] for each in linux.shared_memory_segments()}
    async with machine.runner(margin_s=-300) as runner:
        found = await until(status_is(runner, stuck.task_id, TaskStatus.FAILED))
        assert found.error["type"] == "WorkerOverdue"
        await until(count_is(machine, "", count=0))

        events = machine.folder / "state/tasks" / stuck.task_id / "events.jsonl"
        session = Path(json.loads(events.read_text().partition("\n")[0])["folder"])

        async def cleared():
            return not session.exists()

        await until(cleared)
        assert not processes & {each["cpid"] for each in linux.shared_memory_segments()}


async def test_worker_that_hangs_after_its_task_has_ended(machine):
    """The outcome is kept; the worker is ended, by the next API process if necessary."""
    (machine.folder / "gate").write_text("go")
    async with machine.runner(margin_s=0) as runner:
        task = await runner.start(machine.request(timeout_s=300))
        await until(status_is(runner, task.task_id, TaskStatus.SUCCESS))
        left = marked_processes(machine.mark, WORKER)
        for pid in left:  # none, if it was fast
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    async with machine.runner(margin_s=-300) as runner:
        await until(count_is(machine, "", count=0))
        assert (await runner.find("alice", task.task_id)).status is TaskStatus.SUCCESS
