"""While work on one account's tasks is slow, the same work is done for another account."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from contract.backend import ACCOUNT
from contract.local import LocalBackend

from worker.api import programs
from worker.api.runners import results
from worker.api.runners.background import Loops, Rounds
from worker.api.runners.local import watchdog
from worker.api.runners.local.isolation.assignments import Assignments
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.retention import Retention
from worker.api.runners.local.store import UNCLEANED_MAX
from worker.api.runners.local.stored_task import StoredTask, TaskEnd
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.local.worker_process import WorkerProcess
from worker.api.runners.protocol import TaskStatus

PATIENCE_S = 20
SLOW, OTHER = ACCOUNT, "another"
SLOW_CALLS = 40
"""More than any number of threads."""

Work = Callable[[str, int], Coroutine[Any, Any, Any]]
"""Does the work for an account's task of this number."""


class Gate:
    """Lets work on the tasks of SLOW wait."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = threading.Event()

    def pass_through(self, text: object) -> None:
        if SLOW in str(text):
            self.waiting.set()
            self.opened.wait(PATIENCE_S)


def stored_task(account: str, number: int = 0) -> StoredTask:
    return StoredTask(
        task_id=f"{account}-{number}",
        file=Path("t.py"),
        inputs={},
        timeout_s=5,
        phase="running",
        cancel=False,
        pid=None,
        pid_started=None,
        uid=70_000,
        account=account,
    )


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    made = LocalBackend()
    await made.open(max_running=0, queue_max=1000, account_max_queued=1000)
    yield made
    await made.close()


def ends(backend: LocalBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Work:
    """The result of an ended worker is read."""
    monkeypatch.setattr(
        TaskFolder, "result", lambda folder, **_: gate.pass_through(folder.path.name)
    )
    workers = backend.runner._workers

    async def work(account: str, number: int) -> None:
        await workers._end_of(stored_task(account, number), 0)

    return work


def large_results(backend: LocalBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Work:
    """They are parsed in processes of their own, of which there may be few."""
    names = {threading.get_ident(): ""}

    def run(*_: Any, **__: Any) -> tuple[int, bytes]:
        gate.pass_through(names[threading.get_ident()])
        return 1, b""

    monkeypatch.setattr(programs, "run", run)
    monkeypatch.setattr(results, "_SMALL_MAX_BYTES", 1)

    def parse(account: str) -> None:
        names[threading.get_ident()] = account
        results.parse(b"{}", account=account)

    async def work(account: str, _: int) -> None:
        await backend.runner._workers._reading.call(account, parse, account)

    return work


def kills(backend: LocalBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A worker's processes do not end."""
    monkeypatch.setattr(
        watchdog, "_kill", lambda process: gate.pass_through(SLOW if process.pid == 1 else "")
    )
    workers = backend.runner._workers

    async def work(account: str, number: int) -> None:
        task = stored_task(account, number)
        process = WorkerProcess(pid=1 if account == SLOW else 2, started=0)
        workers._processes[task.task_id] = task, process
        before = set(workers._background._tasks)
        workers.kill(task.task_id)
        del workers._processes[task.task_id]
        await asyncio.wait(workers._background._tasks - before)

    return work


def removals(backend: LocalBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A task has many files when it is deleted."""
    accounts: dict[str, str] = {}
    monkeypatch.setattr(
        TaskFolder, "remove", lambda folder: gate.pass_through(accounts[folder.path.name])
    )

    async def work(account: str, _: int) -> None:
        task = await backend.start(account=account)
        accounts[task.task_id] = account
        await backend.runner.cancel(task)
        await backend.runner.remove(task)

    return work


def clean_ups(backend: LocalBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A task's user has left many files; what it takes to start a worker goes on, too."""
    del monkeypatch

    class Slow(Isolation):
        def clean_up(self, folder: TaskFolder, uid: int) -> bool:
            del uid
            gate.pass_through(folder.path.name)
            return True

    names: Any = SimpleNamespace(port=6080)
    reservations: Any = SimpleNamespace(take=lambda: names, give_back=lambda _: None)
    assignments = Assignments(
        backend.runner._store,
        Slow(),
        reservations,
        environ={},
        stream_key=lambda _: b"\1",
        report=lambda *_, **__: None,
    )

    async def work(account: str, number: int) -> None:
        task = stored_task(account, number)
        if account != SLOW:
            await assignments.take_back(task, await assignments.assign(task))
        assert await assignments.clean_up(task, TaskFolder(path=Path(task.task_id)))

    return work


@pytest.mark.parametrize("kind", [ends, large_results, kills, removals, clean_ups])
async def test_slow_work_of_one_account(kind, backend, monkeypatch):
    gate = Gate()
    work = kind(backend, gate, monkeypatch)
    hanging = [asyncio.ensure_future(work(SLOW, number)) for number in range(SLOW_CALLS)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not gate.waiting.is_set():
                await asyncio.sleep(0.01)
            await work(OTHER, 0)
        assert not any(each.done() for each in hanging)
    finally:
        gate.opened.set()
        await asyncio.wait(hanging)


async def test_slow_retention_of_one_account(backend):
    """The expired tasks of another one are removed, also those that expire later."""
    gate, runner = Gate(), backend.runner
    accounts, store, loops = {}, runner._store, Loops(lambda *_, **__: None)
    rounds, retention = Rounds(runner._background), Retention(kept_s=1e-6)

    async def expired(account):
        task = await backend.start(account=account)
        accounts[task.task_id] = account
        await runner.cancel(task)
        return task.task_id

    def folder_of(task_id):
        return lambda: gate.pass_through(accounts[task_id])

    slow = await expired(SLOW)
    sweeps = []
    try:
        for _ in range(2):
            other = await expired(OTHER)
            more = {"rounds": rounds, "run": runner._removing.call}
            async with asyncio.timeout(PATIENCE_S):
                while store.summary(other) is not None:  # each sweep removes what has ended before
                    sweep = retention.sweep(store, folder_of, loops, **more)
                    sweeps.append(asyncio.ensure_future(sweep))
                    await asyncio.sleep(0.01)
        assert store.summary(slow) is not None
    finally:
        gate.opened.set()
        await asyncio.wait(sweeps)


async def test_recovery_of_one_account(backend):
    """While its tasks are searched for after a restart, those of others are started."""
    for account in (SLOW, OTHER):
        await backend.start(account=account)
    taken = await backend.runner._store.take_next(but={SLOW})
    assert taken.account == OTHER
    assert await backend.runner._store.take_next(but={SLOW}) is None
    assert (await backend.runner._store.take_next()).account == SLOW


async def test_users_in_use_by_one_account(backend):
    """Its ended tasks wait for their clean-up: it gets no further users until then."""
    store = backend.runner._store
    for number in range(UNCLEANED_MAX):
        task = await backend.start(account=SLOW)
        await store.take_next()
        await store.save_start(task.task_id, port=1, uid=number)
        end = TaskEnd(status=TaskStatus.SUCCESS, finished_at="2026-01-01T00:00:00Z")
        await store.mark_ended(task.task_id, end)
    await backend.start(account=SLOW)
    await backend.start(account=OTHER)
    assert (await store.take_next()).account == OTHER
    assert await store.take_next() is None
    await store.mark_cleaned_up(task.task_id)
    assert (await store.take_next()).account == SLOW
