"""The promises of the Runner protocol, tested on every runner."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from contract.backend import ACCOUNT, ERROR, OUTPUT, TIMEOUT_S, Backend, Left
from hostile_results import ACCEPTED, HOSTILE, SPECIAL, result

from worker.api.models import Task, TaskSummary
from worker.api.runners.protocol import (
    NULL,
    NotRemovable,
    QueueFull,
    RunnerUnavailable,
    TaskStatus,
)

CALLBACK = "https://acme.example/hook"
QUEUED_ONLY = {"max_running": 0}
LOSABLE = pytest.mark.parametrize("backend", ["docker", "kubernetes", "memory"], indirect=True)
CAN_BE_UNREADY = pytest.mark.parametrize(
    "backend", ["docker", "kubernetes", "memory"], indirect=True
)
STORED = pytest.mark.parametrize("backend", ["local", "docker", "kubernetes"], indirect=True)


def ids(tasks):
    return [each.task_id for each in tasks]


# -- start and find


async def test_start(backend: Backend):
    """A new task is queued and has all of its request."""
    runner = await backend.open(**QUEUED_ONLY)
    request = backend.request(callback_url=CALLBACK)
    started = await runner.start(request)
    assert started.status is TaskStatus.QUEUED
    found = await runner.find(ACCOUNT, request.task_id)
    for task in (started, found):
        assert task is not None
        for name in (
            "task_id",
            "account",
            "endpoint_name",
            "inputs",
            "timeout_s",
            "callback_url",
            "digest",
            "created_at",
        ):
            assert getattr(task, name) == getattr(request, name), name
        assert (task.started_at, task.finished_at, task.exit_code) == (None, None, None)
        assert (task.output, task.error) == (NULL, None)


async def test_start_again(backend: Backend):
    """A second request of a task id starts nothing and returns the first request's record."""
    runner = await backend.open(**QUEUED_ONLY)
    request = backend.request()
    await runner.start(request)
    again = await runner.start(dataclasses.replace(request, digest="e" * 64))
    assert again.digest == request.digest
    tasks = await runner.list(ACCOUNT, status=None, before=None, limit=10)
    assert ids(tasks) == [request.task_id]


async def test_start_concurrently(backend: Backend):
    """Of concurrent requests of one task id, one starts it."""
    runner = await backend.open(**QUEUED_ONLY)
    request = backend.request()
    started = await asyncio.gather(*(runner.start(request) for _ in range(4)))
    assert set(ids(started)) == {request.task_id}
    assert (await runner.counts()).get(TaskStatus.QUEUED) == 1


async def test_find_by_account(backend: Backend):
    """Another account's task is not found, like one that does not exist."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start()
    assert await runner.find("other", task.task_id) is None
    assert await runner.find(ACCOUNT, str(uuid.uuid4())) is None


async def test_full_queue(backend: Backend):
    """A full queue refuses new tasks and returns existing ones."""
    runner = await backend.open(max_running=0, queue_max=1)
    request = backend.request()
    await runner.start(request)
    backend.fill_queue()
    with pytest.raises(QueueFull) as refused:
        await runner.start(backend.request())
    assert refused.value.retry_after_s > 0
    assert (await runner.start(request)).task_id == request.task_id


async def test_full_queue_of_an_account(backend: Backend):
    """An account at its limit is refused, and gets its existing tasks; another one is not."""
    runner = await backend.open(max_running=0, account_max_queued=2)
    requests = [backend.request() for _ in range(2)]
    for request in requests:
        await runner.start(request)
    with pytest.raises(QueueFull) as refused:
        await runner.start(backend.request())
    assert refused.value.account_max == 2
    assert (await runner.start(requests[0])).task_id == requests[0].task_id
    other = await runner.start(backend.request(account="other"))
    assert other.status is TaskStatus.QUEUED


@STORED
async def test_tasks_are_stored(backend: Backend):
    """A runner that is opened later has the tasks, and cancels them."""
    await backend.open(**QUEUED_ONLY)
    task = await backend.start()
    runner = await backend.reopen()
    found = await backend.read(task)
    assert found == task
    await runner.cancel(found)
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


# -- list and counts


async def test_list(backend: Backend):
    """An account's tasks are listed newest first, in pages."""
    runner = await backend.open(**QUEUED_ONLY)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    started = [
        await backend.start(created_at=begin + timedelta(seconds=number)) for number in (1, 3, 0, 2)
    ]
    await backend.start(account="other")
    expected = [started[index].task_id for index in (1, 3, 0, 2)]
    whole = await runner.list(ACCOUNT, status=None, before=None, limit=10)
    assert ids(whole) == expected
    first = await runner.list(ACCOUNT, status=None, before=None, limit=3)
    assert ids(first) == expected[:3]
    rest = await runner.list(ACCOUNT, status=None, before=first[-1].cursor, limit=3)
    assert ids(rest) == expected[3:]
    assert await runner.list(ACCOUNT, status=None, before=rest[-1].cursor, limit=3) == []


async def test_list_of_equal_times(backend: Backend):
    """Tasks of the same time are in one order, by their ids, so that pages are complete."""
    runner = await backend.open(**QUEUED_ONLY)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    started = [await backend.start(created_at=moment) for _ in range(3)]
    first = await runner.list(ACCOUNT, status=None, before=None, limit=2)
    rest = await runner.list(ACCOUNT, status=None, before=first[-1].cursor, limit=2)
    assert ids([*first, *rest]) == sorted(ids(started), reverse=True)


async def test_status_filter_and_counts(backend: Backend):
    """Tasks are listed by status, one account's; counts are over all accounts."""
    runner = await backend.open(**QUEUED_ONLY)
    cancelled = await backend.start()
    queued = await backend.start()
    await backend.start(account="other")
    await runner.cancel(cancelled)
    for status, expected in (
        (TaskStatus.QUEUED, [queued.task_id]),
        (TaskStatus.CANCELLED, [cancelled.task_id]),
        (TaskStatus.RUNNING, []),
    ):
        assert ids(await runner.list(ACCOUNT, status=status, before=None, limit=10)) == expected
    counts = await runner.counts()
    assert {status: count for status, count in counts.items() if count} == {
        TaskStatus.QUEUED: 2,
        TaskStatus.CANCELLED: 1,
    }


# -- cancel


async def test_cancel_queued(backend: Backend):
    """A queued task is cancelled at once and never runs; cancelling again changes nothing."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start()
    await runner.cancel(task)
    cancelled = await backend.read(task)
    assert cancelled.status is TaskStatus.CANCELLED
    assert (cancelled.started_at, cancelled.exit_code, cancelled.error) == (None, None, None)
    assert cancelled.finished_at is not None
    for each in (task, cancelled):  # with the old record, too
        await runner.cancel(each)
        assert await backend.read(task) == cancelled


async def test_cancel_running(backend: Backend):
    """A running task is cancelled, also with the record of when it was queued."""
    runner = await backend.open()
    task = await backend.start()
    await backend.run(task)
    await runner.cancel(task)
    backend.finish_cancel(task)
    cancelled = await backend.wait_for_status(task, TaskStatus.CANCELLED)
    assert cancelled.error is None
    await runner.cancel(cancelled)
    assert await backend.read(task) == cancelled


# -- removal


async def test_remove(backend: Backend):
    """An ended task is removed, and removing it again changes nothing; one that runs is not."""
    runner = await backend.open(max_running=1)
    running, queued = await backend.start(), await backend.start()
    await backend.run(running)
    for task in (running, queued):
        with pytest.raises(NotRemovable):
            await runner.remove(await backend.read(task))
    await runner.cancel(queued)
    cancelled = await backend.wait_for_status(queued, TaskStatus.CANCELLED)
    for _ in range(2):
        await runner.remove(cancelled)
        backend.finish_remove(cancelled)
        assert await runner.find(cancelled.account, cancelled.task_id) is None
    assert ids(await runner.list(ACCOUNT, status=None, before=None, limit=9)) == ids([running])
    await backend.end(running, TaskStatus.SUCCESS)
    await backend.wait_for_status(running, TaskStatus.SUCCESS)


# -- ends, streams and artifacts


async def test_success(backend: Backend):
    """A successful task has its output; its stream exists while it runs; its end is final."""
    runner = await backend.open()
    task = await backend.start()
    assert await runner.stream_address(task) is None
    await backend.run(task)
    running = await backend.read(task)
    assert running.status is TaskStatus.RUNNING
    address = urlsplit(await runner.stream_address(running) or "")
    assert (address.scheme, bool(address.hostname), bool(address.port)) == ("ws", True, True)

    await backend.end(task, TaskStatus.SUCCESS)
    ended = await backend.wait_for_status(task, TaskStatus.SUCCESS)
    assert (ended.exit_code, json.loads(ended.output), ended.error) == (0, OUTPUT, None)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.started_at <= ended.finished_at
    assert await runner.stream_address(ended) is None
    for each in (running, ended):
        await runner.cancel(each)
        assert await backend.read(task) == ended


async def test_failure_and_artifacts(backend: Backend):
    """A failed task has its error; its artifacts are those inside its folder, before and after."""
    runner = await backend.open()
    task = await backend.start()
    assert await runner.artifacts(task) == []
    await backend.run(task)
    written = await backend.write_files(task)
    await check_artifacts(backend, await backend.read(task), written)

    await backend.end(task, TaskStatus.FAILED)
    ended = await backend.wait_for_status(task, TaskStatus.FAILED)
    assert ended.exit_code == 1
    assert ended.error is not None
    assert ended.error.items() >= ERROR.items()
    assert ended.output == NULL
    await check_artifacts(backend, ended, written)


async def check_artifacts(backend, task, written):
    """Listed artifacts can be opened and are `written` or the worker's own; no others can be."""
    listed = await backend.runner.artifacts(task)
    names = [each.name for each in listed]
    assert names == sorted(names)
    assert set(written) <= set(names) <= {*written, "result.json", "task.log"}
    for each in listed:
        if each.name in written:
            content = await backend.runner.open_artifact(task, each.name)
            whole = b"".join([piece async for piece in content])
            assert whole == written[each.name]
            assert each.size_bytes == len(whole)
    for name in (
        *("", "/", ".", "..", "../events.jsonl", "../../../../etc/passwd", "/etc/passwd"),
        *("link", "up/passwd", "../up", "a/../../b", "fifo", ".hidden", "deep", "none"),
        *(f"{names[0]}/", f"./{names[0]}", f"{names[0]}\0", "a\0b", "\ud800", "x" * 5000),
    ):
        assert await backend.runner.open_artifact(task, name) is None, name


@CAN_BE_UNREADY
async def test_no_stream_before_ready(backend: Backend):
    """A running task has no stream until viewers can connect."""
    runner = await backend.open()
    task = await backend.start()
    await backend.run_unready(task)
    running = await backend.read(task)
    assert running.status is TaskStatus.RUNNING
    assert await runner.stream_address(running) is None


# -- hostile results

PARTS = 12
MANY = {"max_running": 0, "queue_max": 1000, "account_max_queued": 1000}
NO_CREDIBLE_RESULT = {"InvalidResult", "WorkerLost", "WorkerDied"}


@STORED
@pytest.mark.parametrize("part", range(PARTS))  # a fake takes time in proportion to the square
async def test_hostile_results(backend: Backend, part):
    """Each is reported on its own task: failed with the exit code, and its output omitted."""
    runner = await backend.open(**MANY)
    every: dict[str, Left] = {**HOSTILE, **SPECIAL}
    hostile = {name: every[name] for name in sorted({*every} - {*backend.repairs})[part::PARTS]}
    tasks = {name: await backend.start(callback_url=CALLBACK) for name in hostile}
    other = await backend.start(account="other", callback_url=CALLBACK)
    await backend.end_with({name: (task, hostile[name]) for name, task in tasks.items()})
    await backend.end_with({"other": (other, result(output=[1]))})

    ended = {name: await backend.read(task) for name, task in tasks.items()}
    for name, task in ended.items():
        assert (task.status, task.exit_code) == (TaskStatus.FAILED, 1), name
        assert (task.output, task.error["type"] in NO_CREDIBLE_RESULT) == (NULL, True), name
        assert task.started_at is None or task.started_at <= task.finished_at, name
        json.loads(Task.json_of(task))
        assert await runner.stream_address(task) is None, name
        await runner.artifacts(task)
        await read_some(await runner.open_artifact(task, "result.json"))
    await check_others(backend, list(ended.values()), other)


async def read_some(content):
    """The first piece of an artifact, if there is one."""
    if content is not None:
        async with contextlib.aclosing(content):
            async for _ in content:
                return


async def check_others(backend, hostile, other):
    """What concerns more than one task works, and has all tasks of each account."""
    runner = backend.runner
    listed = await runner.list(ACCOUNT, status=None, before=None, limit=1000)
    assert {each.task_id for each in listed} == {each.task_id for each in hostile}
    for each in listed:
        TaskSummary.of(each).model_dump_json()
    assert (await runner.counts()).get(TaskStatus.FAILED) == len(hostile) + 1
    leased = []
    while batch := await runner.lease_callbacks():
        leased += batch
        for each in batch:
            await runner.finish_callback(each)
    assert {each.task_id for each in leased} == {each.task_id for each in [*hostile, other]}
    [found] = await runner.list("other", status=None, before=None, limit=10)
    assert found.task_id == other.task_id
    found = await backend.read(other)
    assert (found.output, found.output_omitted) == (b"[1]", False)
    assert found.error == {"type": "RuntimeError", "message": "failed on purpose"}


@STORED
async def test_results_that_a_worker_can_write(backend: Backend):
    """They are reported completely, where the runner stores results of their size."""
    await backend.open(**MANY)
    written = {
        name: content
        for name, (content, _) in ACCEPTED.items()
        if len(content) <= backend.result_max_bytes
    }
    assert len(written) >= 7
    tasks = {name: await backend.start() for name in written}
    await backend.end_with({name: (task, written[name]) for name, task in tasks.items()})
    for name, task in tasks.items():
        ended = await backend.read(task)
        assert (ended.exit_code, ended.output_omitted) == (1, False), name
        assert json.loads(ended.output) == ACCEPTED[name][1], name
        assert ended.error["type"] == "RuntimeError", name
        sent = json.loads(Task.json_of(ended))
        assert sent["output"] == ACCEPTED[name][1], name


# -- callbacks


async def test_callbacks(backend: Backend):
    """An ended task's callback is leased once, and not again after it was finished."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    without = await backend.start()
    assert list(await runner.lease_callbacks()) == []
    await runner.cancel(task)
    await runner.cancel(without)
    [leased] = await runner.lease_callbacks()
    assert leased == await backend.read(task)
    assert list(await runner.lease_callbacks()) == []
    await runner.finish_callback(leased)
    assert list(await runner.lease_callbacks()) == []
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


async def test_concurrent_leases(backend: Backend):
    """Of concurrent callers, one gets the lease."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    await runner.cancel(task)
    leases = await asyncio.gather(*(runner.lease_callbacks() for _ in range(4)))
    assert [ids(each) for each in leases if each] == [[task.task_id]]


@STORED
async def test_finished_callbacks_are_stored(backend: Backend):
    """After a restart a finished callback is not leased again."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    await runner.cancel(task)
    [leased] = await runner.lease_callbacks()
    await runner.finish_callback(leased)
    runner = await backend.reopen()
    assert list(await runner.lease_callbacks()) == []


# -- failures of one task


async def test_failure_of_one_task(backend: Backend):
    """A task that cannot be handled does not affect the start, end and callback of another."""
    runner = await backend.open(max_running=1)
    await backend.start_spoiled()
    task = await backend.start(callback_url=CALLBACK)
    await backend.run(task)
    assert task.task_id in ids(await runner.list(ACCOUNT, status=None, before=None, limit=10))
    await backend.end(task, TaskStatus.SUCCESS)
    await backend.wait_for_status(task, TaskStatus.SUCCESS)
    assert (await runner.counts()).get(TaskStatus.SUCCESS) == 1
    async with asyncio.timeout(TIMEOUT_S):
        while not (leased := await runner.lease_callbacks()):
            await asyncio.sleep(0.01)
    assert ids(leased) == [task.task_id]
    await runner.finish_callback(leased[0])
    assert await runner.ready()


# -- an engine that does not answer


@LOSABLE
async def test_unavailable(backend: Backend):
    """Every method that needs the engine raises RunnerUnavailable, and `ready` is False."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    assert await runner.ready()
    backend.lose()
    assert not await runner.ready()
    results = await asyncio.gather(
        runner.find(ACCOUNT, task.task_id),
        runner.list(ACCOUNT, status=None, before=None, limit=10),
        runner.counts(),
        runner.start(backend.request()),
        runner.cancel(task),
        runner.lease_callbacks(),
        runner.finish_callback(task),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [RunnerUnavailable] * len(results)
    assert all("\n" not in str(each) for each in results)
