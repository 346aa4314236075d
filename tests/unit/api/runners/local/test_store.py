"""The local runner's store: oldest task first, each once, lists newest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from worker.api.runners.fairness import Capacity
from worker.api.runners.local.disk.accounts import DiskAccounts
from worker.api.runners.local.disk.usage import Usage, UsageLimit
from worker.api.runners.local.store import Store
from worker.api.runners.local.stored_task import TaskEnd
from worker.api.runners.protocol import AccountFull, Cursor, QueueFull, TaskRequest, TaskStatus

NOW = datetime(2026, 5, 4, tzinfo=UTC)
LATER = "2026-05-04T00:01:00.000Z"


@pytest.fixture
async def store(tmp_path):
    opened = Store(tmp_path / "tasks.sqlite3", Capacity(max_running=2, queue_max=3))
    yield opened
    await opened.close()


def request(number, account="alice", **more):
    fields = {"callback_url": None, "digest": "d", "inputs": {"n": number}} | more
    return TaskRequest(
        task_id=f"task-{number}",
        account=account,
        endpoint_name="echo",
        file=Path("echo.py"),
        timeout_s=5,
        created_at=NOW + timedelta(microseconds=number),
        **fields,
    )


async def test_second_request_of_a_task_returns_the_first_record(store):
    await store.add(request(1))
    again = await store.add(request(1, digest="other", inputs={}))
    assert (again.digest, again.inputs) == ("d", {"n": 1})


async def test_full_queue_accepts_only_existing_tasks(store):
    for number in range(3):
        await store.add(request(number))
    with pytest.raises(QueueFull):
        await store.add(request(3))
    assert (await store.add(request(2))).task_id == "task-2"
    await store.take_next()
    assert await store.add(request(3))


async def test_oldest_first_and_requeued_in_its_old_place(store):
    for number in range(2):
        await store.add(request(number))
    first = await store.take_next()
    assert (first.task_id, first.inputs, first.phase) == ("task-0", {"n": 0}, "starting")
    await store.requeue("task-0")
    assert (await store.take_next()).task_id == "task-0"
    assert (await store.take_next()).task_id == "task-1"
    assert await store.take_next() is None


async def test_requeued_after_its_stream_was_ready(store):
    await store.add(request(0))
    await store.take_next()
    await store.save_start("task-0", port=7, uid=None)
    await store.mark_running("task-0", LATER)
    await store.requeue("task-0")
    found = store.find("alice", "task-0")
    assert (found.status, found.started_at) == (TaskStatus.QUEUED, None)
    assert (await store.take_next()).port is None


async def test_starting_task_is_queued_for_clients(store):
    await store.add(request(1))
    await store.take_next()
    assert store.find("alice", "task-1").status is TaskStatus.QUEUED
    assert len(store.list("alice", TaskStatus.QUEUED, None, 10)) == 1
    await store.mark_running("task-1", LATER)
    assert store.find("alice", "task-1").status is TaskStatus.RUNNING


async def test_end_is_final(store):
    await store.add(request(1, callback_url="https://example.com"))
    assert store.pending_callbacks(9) == []
    end = TaskEnd(status=TaskStatus.SUCCESS, finished_at=LATER, exit_code=0, output=b"[1]")
    assert await store.mark_ended("task-1", end)
    late = TaskEnd(status=TaskStatus.FAILED, finished_at=LATER)
    assert not await store.mark_ended("task-1", late)
    await store.mark_running("task-1", LATER)
    assert not await store.cancel_queued("task-1", late)
    found = store.find("alice", "task-1")
    assert (found.status, found.output) == (TaskStatus.SUCCESS, b"[1]")
    assert store.pending_callbacks(9) == [("alice", "task-1")]
    await store.finish_callback("task-1")
    assert store.pending_callbacks(9) == []


async def test_ended_task_is_unfinished_until_its_worker_is_gone(store):
    await store.add(request(1))
    await store.take_next()
    await store.save_process("task-1", 7, 8)
    await store.mark_ended("task-1", TaskEnd(status=TaskStatus.SUCCESS, finished_at=LATER))
    [task] = store.unfinished()
    assert (task.task_id, task.ended) == ("task-1", True)
    await store.mark_worker_gone("task-1")
    assert store.unfinished() == []


async def test_expired_tasks_can_be_removed(store):
    """Not those that are queued, running, with a worker left, or with a pending callback."""
    end = TaskEnd(status=TaskStatus.SUCCESS, finished_at=LATER)
    await store.add(request(1, callback_url="https://example.com"))
    await store.add(request(2))
    await store.add(request(3))
    for _ in range(3):
        await store.take_next()
    await store.save_process("task-2", 7, 8)
    await store.mark_ended("task-1", end)
    await store.mark_ended("task-2", end)
    await store.add(request(4))
    long_after = NOW + timedelta(days=1)
    assert store.expired(long_after, 10) == []
    await store.finish_callback("task-1")
    await store.mark_worker_gone("task-2")
    assert store.expired(NOW, 10) == []
    assert store.expired(long_after, 1) == ["task-1"]
    assert store.expired(long_after, 10) == ["task-1", "task-2"]
    await store.remove(["task-1", "task-2"])
    assert store.expired(long_after, 10) == []
    left = store.list("alice", None, None, 10)
    assert [each.task_id for each in left] == ["task-4", "task-3"]
    assert (await store.add(request(1, digest="another"))).digest == "another"


async def test_pages_of_one_account(store):
    for number in range(3):
        await store.add(request(number))
    newest = store.list("alice", None, None, 2)
    assert [each.task_id for each in newest] == ["task-2", "task-1"]
    behind = Cursor(created_at=newest[-1].created_at, task_id=newest[-1].task_id)
    assert [each.task_id for each in store.list("alice", None, behind, 2)] == ["task-0"]
    assert store.list("bob", None, None, 2) == []
    assert store.find("bob", "task-0") is None


async def test_reopened_store_has_everything(store, tmp_path):
    await store.add(request(1))
    await store.take_next()
    await store.save_process("task-1", 7, 8)
    again = Store(tmp_path / "tasks.sqlite3", Capacity(max_running=2, queue_max=3))
    [task] = again.unfinished()
    assert (task.task_id, task.pid, task.pid_started, task.cancel) == ("task-1", 7, 8, False)
    await again.close()


@pytest.mark.parametrize(
    "change",
    [
        "inputs = '['",
        "inputs = '[]'",
        "phase = 'odd'",
        "timeout_s = 'odd'",
        "pid = 'odd'",
        "task_id = '../x'",
    ],
)
async def test_invalid_row(store, change):
    """It is ended with an error that names the reason; other tasks are not affected."""
    for number in range(2):
        await store.add(request(number))
    await store.take_next()
    statement = f"UPDATE tasks SET {change} WHERE number = 1"  # noqa: S608 - constant texts
    await store._database.write(lambda connection: connection.execute(statement))
    assert store.unfinished() == []
    [row] = store.unreadable()
    await store.end_unreadable(row)
    assert store.unreadable() == []
    assert store.counts()[TaskStatus.FAILED] == 1
    failed = next(each for each in store.list("alice", None, None, 10) if each.task_id != "task-1")
    assert failed.status is TaskStatus.FAILED
    assert (await store.take_next()).task_id == "task-1"


async def test_queued_task_of_an_invalid_row_is_not_started(store):
    for number in range(2):
        await store.add(request(number))
    await store._database.write(
        lambda connection: connection.execute("UPDATE tasks SET inputs = '[' WHERE number = 1")
    )
    assert (await store.take_next()).task_id == "task-1"
    assert store.find("alice", "task-0").error["type"] == "TaskUnreadable"


# -- the disk

LIMIT = UsageLimit(max_bytes=1 << 20, max_files=100)
END = TaskEnd(status=TaskStatus.SUCCESS, finished_at=LATER, exit_code=0)


@pytest.fixture
async def limited(tmp_path):
    opened = limited_store(tmp_path)
    yield opened
    await opened.close()


def limited_store(folder):
    capacity = Capacity(max_running=9, queue_max=99)
    return Store(folder / "limited.sqlite3", capacity, disk=DiskAccounts(LIMIT))


async def add_ended(store, number, usage, account="alice", **more):
    await store.add(request(number, account, **more))
    while (task := await store.take_next()) is not None:
        await store.mark_ended(task.task_id, END)
    await store.save_usage(f"task-{number}", usage)


@pytest.mark.parametrize("usage", [Usage(size_bytes=1 << 20), Usage(files=100)])
async def test_account_at_its_limit(limited, tmp_path, usage):
    """It gets existing tasks only, also after a restart; others are not affected.

    A removed task gives its room back.
    """
    await add_ended(limited, 0, usage)
    await limited.save_usage("task-0", usage)  # counted once
    again = limited_store(tmp_path)
    for store in (limited, again):
        with pytest.raises(AccountFull):
            await store.add(request(1))
        assert (await store.add(request(0))).task_id == "task-0"
    assert await limited.add(request(2, "bob"))
    assert limited.occupied()["alice"].files == usage.files
    await again.close()
    await limited.remove(["task-0"])
    assert limited.occupied()["alice"] == Usage()
    assert await limited.add(request(1))


async def test_queued_tasks_of_a_full_account_stay_queued(limited):
    for number, account in enumerate(("alice", "alice", "bob")):
        await limited.add(request(number, account))
    first = await limited.take_next()
    await limited.mark_ended(first.task_id, END)
    await limited.save_usage(first.task_id, Usage(files=100))
    assert (await limited.take_next()).task_id == "task-2"
    assert await limited.take_next() is None
    await limited.remove([first.task_id])
    assert (await limited.take_next()).task_id == "task-1"


async def test_outputs_and_inputs_count(limited):
    """They are in the tables, not in the task's folder."""
    await add_ended(limited, 0, Usage(), inputs={"text": "x" * 100_000})
    assert 100_000 <= limited.occupied()["alice"].size_bytes < 110_000


async def test_uncounted_tasks(limited):
    """Running ones, and ended ones once nothing of them runs, until their count is stored."""
    for number in range(3):
        await limited.add(request(number))
    await limited.take_next()
    await limited.take_next()
    assert [each.task_id for each in limited.uncounted(9)] == ["task-0", "task-1"]
    await limited.save_process("task-0", 7, 8)
    await limited.mark_ended("task-0", END)
    await limited.mark_ended("task-1", END)
    growing, ended = limited.uncounted(9)
    assert (growing.task_id, growing.pid, growing.has_ended, growing.is_final) == (
        *("task-0", 7, True, False),
    )
    assert (ended.task_id, ended.is_final) == ("task-1", True)
    assert [each.task_id for each in limited.uncounted(0)] == ["task-0"]
    await limited.mark_worker_gone("task-0")
    for task_id in ("task-0", "task-1"):
        await limited.save_usage(task_id, Usage())
    assert limited.uncounted(9) == []


async def test_removable(limited):
    """A task with a worker, or with processes or files of its user, is not."""
    await limited.add(request(0))
    assert not await limited.is_removable("task-0")
    await limited.take_next()
    await limited.save_process("task-0", 7, 8)
    await limited.save_start("task-0", port=1, uid=70000)
    await limited.mark_ended("task-0", END)
    assert not await limited.is_removable("task-0")
    await limited.mark_worker_gone("task-0")
    assert not await limited.is_removable("task-0")
    await limited.mark_cleaned_up("task-0")
    assert await limited.is_removable("task-0")
    assert await limited.is_removable("missing")
