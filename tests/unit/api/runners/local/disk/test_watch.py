"""Tasks are counted, and ended if their account exceeds its limit; other accounts' are not."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from worker.api.runners.background import Loops
from worker.api.runners.local import schema
from worker.api.runners.local.disk import accounts as disk_accounts
from worker.api.runners.local.disk import rows, tree, watch
from worker.api.runners.local.disk.accounts import DiskAccounts, UncountedTask
from worker.api.runners.local.disk.usage import Usage, UsageLimit
from worker.api.runners.local.disk.watch import DiskWatch
from worker.api.runners.local.task_folder import TaskFolder

PATIENCE_S = 20
MIB = 1 << 20
LIMIT = UsageLimit(max_bytes=4 * MIB, max_files=100)


class Machine:
    """The stored tasks and the workers, in memory; the folders are real."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.tasks: dict[str, UncountedTask] = {}
        self.stored: dict[str, Usage] = {}
        self.saved: dict[str, Usage] = {}
        self.ended: dict[str, str] = {}
        self.killed: list[str] = []
        self.woken = 0

    def add(self, account: str, task_id: str, size_bytes: int = 0, *, ended: bool = False) -> None:
        self.tasks[task_id] = UncountedTask(
            account=account, task_id=task_id, pid=None, uid=None, has_ended=ended
        )
        self.write(task_id, size_bytes)

    def write(self, task_id: str, size_bytes: int) -> None:
        folder = self.folder(task_id).artifacts
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "file").open("wb") as file:
            file.write(os.urandom(size_bytes))
            file.flush()
            os.fsync(file.fileno())

    # -- as the store

    def occupied(self) -> dict[str, Usage]:
        return self.stored

    def uncounted(self, _ended_max: int) -> list[UncountedTask]:
        return [task for each, task in self.tasks.items() if each not in self.saved]

    async def save_usage(self, task_id: str, usage: Usage) -> None:
        account = self.tasks[task_id].account
        self.saved[task_id] = usage
        self.stored[account] = self.stored.get(account, Usage()) + usage

    # -- as the workers

    def folder(self, task_id: str) -> TaskFolder:
        return TaskFolder(path=self.path / task_id)

    def end_full(self, task_id: str, why: str) -> bool:
        self.ended[task_id] = why
        return True

    def kill(self, task_id: str) -> None:
        self.killed.append(task_id)

    def wake(self) -> None:
        self.woken += 1


class Watched:
    def __init__(self, machine: Machine) -> None:
        self.accounts = DiskAccounts(LIMIT)
        self.events: list[tuple[str, dict[str, str]]] = []
        loops = Loops(lambda name, **fields: self.events.append((name, fields)))
        self.watch = DiskWatch(machine, self.accounts, machine, loops)

    async def sweep(self) -> None:
        """One sweep, to its end."""
        await self.watch.sweep()
        if self.watch._running:
            await asyncio.wait(self.watch._running, timeout=PATIENCE_S)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def watched(machine) -> AsyncIterator[Watched]:
    made = Watched(machine)
    yield made
    await made.watch.close()


async def test_largest_task_of_the_account_ends(machine, watched):
    machine.add("alice", "small", MIB)
    machine.add("alice", "large", 4 * MIB)
    machine.add("bob", "other", 3 * MIB)
    await watched.sweep()
    assert list(machine.ended) == ["large"]
    assert "WORKER_ACCOUNT_MAX_BYTES" in machine.ended["large"]
    assert "4.0 MiB" in machine.ended["large"]


async def test_ended_tasks_count(machine, watched):
    """They are counted once; what they left is part of the account's."""
    machine.add("alice", "old", 3 * MIB, ended=True)
    machine.add("alice", "new", 2 * MIB)
    await watched.sweep()
    assert list(machine.ended) == ["new"]
    assert 3 * MIB <= machine.saved["old"].size_bytes < 4 * MIB
    assert watched.accounts.used("alice", machine.stored["alice"]).size_bytes < 6 * MIB


async def test_one_task_ends_at_a_time(machine, watched):
    """Its end may be enough: the next one is not ended meanwhile."""
    machine.add("alice", "first", 4 * MIB)
    machine.add("alice", "second", 3 * MIB)
    for _ in range(2):
        await watched.sweep()
    assert (list(machine.ended), machine.killed) == (["first"], [])
    del machine.tasks["first"]  # with its files
    await watched.sweep()
    assert (list(machine.ended), machine.killed) == (["first"], [])


async def test_task_that_grows_while_it_is_to_end_is_killed(machine, watched, monkeypatch):
    monkeypatch.setattr(watch, "GROWTH_MIN_BYTES", MIB)
    machine.add("alice", "first", 5 * MIB)
    machine.add("alice", "second", MIB)
    await watched.sweep()
    machine.write("first", 8 * MIB)
    await watched.sweep()
    assert (list(machine.ended), machine.killed) == (["first", "second"], ["first"])


async def test_number_of_files(machine, watched):
    machine.add("alice", "bytes", MIB)
    machine.add("alice", "files")
    for number in range(120):
        (machine.folder("files").artifacts / str(number)).touch()
    await watched.sweep()
    assert list(machine.ended) == ["files"]
    assert "WORKER_ACCOUNT_MAX_FILES" in machine.ended["files"]


async def test_task_whose_files_cannot_be_counted(machine, watched, monkeypatch):
    """After some attempts it ends, and then leaves its account no room."""
    monkeypatch.setattr(tree, "PENDING_MAX_BYTES", 100)
    machine.add("alice", "odd")
    await watched.sweep()
    assert machine.ended == {}
    for _ in range(2):
        await watched.sweep()
    assert "cannot be counted" in machine.ended["odd"]
    machine.add("alice", "odd", ended=True)
    await watched.sweep()
    assert watched.accounts.is_full("alice", machine.stored["alice"])


async def test_slow_count_of_one_account_does_not_delay_another(machine, watched, monkeypatch):
    gate = threading.Event()
    counted = tree.count

    def count(roots, pids=(), **limits):
        if roots[0].name == "slow":
            gate.wait(PATIENCE_S)
        return counted(roots, pids, **limits)

    monkeypatch.setattr(tree, "count", count)
    machine.add("alice", "slow")
    await watched.watch.sweep()
    try:
        machine.add("bob", "large", 5 * MIB)
        async with asyncio.timeout(PATIENCE_S):
            while not machine.ended:
                await watched.watch.sweep()
                await asyncio.sleep(0.01)
        assert list(machine.ended) == ["large"]
    finally:
        gate.set()


async def test_failure_of_one_task(machine, watched, monkeypatch):
    """It is reported, and the others are counted."""
    counted = tree.count

    def count(roots, pids=(), **limits):
        if roots[0].name == "broken":
            raise OSError(5, "Input/output error")
        return counted(roots, pids, **limits)

    monkeypatch.setattr(tree, "count", count)
    machine.add("alice", "broken")
    machine.add("alice", "large", 5 * MIB)
    await watched.sweep()
    assert list(machine.ended) == ["large"]
    assert [name for name, _ in watched.events] == ["loop.skipped"]


async def test_queued_tasks_start_when_there_is_room_again(machine, watched):
    await watched.sweep()
    assert machine.woken == 0
    machine.stored["alice"] = Usage(size_bytes=5 * MIB)
    await watched.sweep()
    machine.stored.clear()
    woken = machine.woken
    await watched.sweep()
    assert machine.woken == woken + 1
    await watched.sweep()
    assert machine.woken == woken + 1


async def test_removed_tasks_do_not_count(machine, watched):
    machine.add("alice", "task", MIB)
    await watched.sweep()
    assert watched.accounts.used("alice", Usage()).size_bytes >= MIB
    machine.tasks.clear()
    await watched.sweep()
    assert watched.accounts.used("alice", Usage()) == Usage()


async def test_first_count(machine, watched):
    """What an earlier process has not counted is known when the watch is open."""
    machine.add("alice", "old", 5 * MIB, ended=True)
    await watched.watch.open()
    assert watched.accounts.is_full("alice", machine.stored["alice"])


async def test_slow_count_of_one_task_does_not_delay_another_task(machine, watched, monkeypatch):
    """The limit is enforced after each count; large trees, and ended tasks, are counted apart."""
    gate = threading.Event()
    counted = tree.count

    def count(roots, pids=(), **limits):
        if roots[0].name == "ended" or limits["entries_max"] > watch.QUICK_NAMES:
            gate.wait(PATIENCE_S)
        if roots[0].name == "slow":
            return Usage(files=limits["entries_max"], why_incomplete=tree.TOO_MANY)
        return counted(roots, pids, **limits)

    monkeypatch.setattr(tree, "count", count)
    watched.accounts.limit = UsageLimit(max_bytes=4 * MIB, max_files=1_000_000)
    machine.add("alice", "slow")
    machine.add("alice", "ended", ended=True)
    machine.add("alice", "grows", MIB)
    try:
        await watched.watch.sweep()
        machine.write("grows", 5 * MIB)
        async with asyncio.timeout(PATIENCE_S):
            while not machine.ended:
                await watched.watch.sweep()
                await asyncio.sleep(0.01)
        assert list(machine.ended) == ["grows"]
    finally:
        gate.set()


async def test_tree_is_counted_up_to_what_its_account_may_have(machine, watched, monkeypatch):
    """Names of one file count each: a tree that takes long to count exceeds the limit."""
    monkeypatch.setattr(disk_accounts, "NAMES_MIN", 10)
    machine.add("alice", "ended", ended=True)
    machine.add("alice", "links")
    folder = machine.folder("links").artifacts
    for number in range(200):
        os.link(folder / "file", folder / str(number))
    machine.stored["alice"] = Usage(files=60)
    await watched.sweep()
    assert list(machine.ended) == ["links"]
    assert "WORKER_ACCOUNT_MAX_FILES" in machine.ended["links"]
    assert watched.accounts.of(machine.tasks["links"]).files <= LIMIT.max_files - 60 + 1


def test_many_descriptors_are_not_many_files(machine):
    """Only the names of a tree count toward its limit."""
    read, write = os.pipe()
    copies = [os.dup(read) for _ in range(LIMIT.max_files * 2)]
    try:
        machine.add("alice", "task")
        used = tree.count([machine.folder("task").path], [os.getpid()], entries_max=10)
        assert used.why_incomplete == ""
    finally:
        for each in (read, write, *copies):
            os.close(each)


def test_account_with_many_ended_tasks(tmp_path):
    """Those of other accounts are among the ones that are counted next."""
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    schema.prepare(connection)
    for number, account in enumerate(["bob", *["alice"] * 10]):
        connection.execute(
            "INSERT INTO tasks (task_id, account, endpoint_name, file, inputs, timeout_s, digest, "
            "created_at, phase, finished_at) VALUES (?, ?, 'e', 'f', '{}', 1, 'd', 'c', ?, 'f')",
            (str(number), account, "failed"),
        )
    found = [rows.task_from(row) for row in connection.execute(rows.ENDED, (2,))]
    assert [task.account for task in found] == ["alice", "bob"]
    connection.close()
