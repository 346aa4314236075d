"""The docker runner against an HTTP engine: requests, races, earlier names, and failures.

tests/contract has what every runner does, tests/image the real engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import AsyncIterator

import pytest
from contract.backend import TIMEOUT_S
from contract.docker import READY, DockerBackend
from fake_engine import FakeContainer, FakeEngine
from hostile_results import result

from worker.api.runners.docker import queue as docker_queue
from worker.api.runners.docker import runner as docker_runner
from worker.api.runners.docker.container import Container
from worker.api.runners.docker.runner import DockerRunner
from worker.api.runners.docker.watchdog import Limits
from worker.api.runners.protocol import NULL, RunnerUnavailable, TaskStatus
from worker.errors import SettingError
from worker.settings import load
from worker.settings.docker import DockerSettings

CALLBACK = "https://acme.example/hook"
LIST = "GET /containers/json"
INSPECT = "GET /containers/{id}/json"
ARCHIVE = "GET /containers/{id}/archive"
LOGS = "GET /containers/{id}/logs"
QUEUED_ONLY = {"max_running": 0}


@pytest.fixture
async def backend(monkeypatch) -> AsyncIterator[DockerBackend]:
    made = DockerBackend(monkeypatch)
    yield made
    await made.close()


@pytest.fixture
def engine(backend) -> FakeEngine:
    return backend.engine


async def eventually(condition):
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


# -- requests per operation


async def test_requests(backend, engine, monkeypatch):
    """Methods that take a record use what was read with it."""
    monkeypatch.setattr(docker_queue, "_POLL_S", TIMEOUT_S)  # its lists are not counted here
    runner = await backend.open(**QUEUED_ONLY)
    await eventually(lambda: engine.requests.count(LIST) == 2)  # the queue's, the watchdog's
    engine.requests.clear()
    task = await backend.start()
    await eventually(lambda: engine.requests.count(LIST) == 2)  # the queue was woken
    assert engine.requests.count(INSPECT) == 1
    assert engine.requests.count("POST /containers/create") == 1

    container = backend.container(task)
    container.state, container.started_at, container.stdout = "running", container.created, READY
    engine.requests.clear()
    running = await backend.read(task)
    assert engine.requests == [LIST, INSPECT]
    engine.requests.clear()
    assert await runner.stream_address(running)
    assert engine.requests == [LOGS, INSPECT]  # docker-py inspects a container to read its logs
    engine.requests.clear()
    assert await runner.stream_address(running)
    assert engine.requests == []
    await runner.artifacts(running)
    assert engine.requests == ["GET /containers/{id}/archive"]
    engine.requests.clear()
    await runner.cancel(running)
    assert engine.requests[0] == "POST /containers/{id}/kill"


# -- races


async def test_cancel_a_task_that_started_since(backend, engine):
    """A record of a queued task cancels the running one."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start()
    container = backend.container(task)
    container.state, container.started_at = "running", container.created
    await runner.cancel(task)
    assert container.name == task.task_id
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


async def test_cancel_a_task_that_ended_since(backend, engine):
    """A container that was killed by the kernel before the cancellation has failed."""
    runner = await backend.open()
    task = await backend.start()
    await backend.run(task)
    running = await backend.read(task)
    backend.container(task).end(137)
    await runner.cancel(running)
    ended = await backend.read(task)
    assert (ended.status, ended.exit_code) == (TaskStatus.FAILED, 137)
    await asyncio.sleep(0)
    assert backend.container(task).name == task.task_id


async def test_killed_after_a_cancellation(backend, engine):
    """A container that had to be killed is renamed, so that the task is cancelled."""
    runner = await backend.open()
    task = await backend.start()
    await backend.run(task)
    container = backend.container(task)
    container.ignores_sigterm = True
    await runner.cancel(await backend.read(task))
    await eventually(lambda: ".cancelled-" in container.name)
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


@pytest.mark.parametrize("kills", ["lost", "refused"])
async def test_answer_to_a_cancellation_is_lost_or_an_error(backend, engine, kills):
    """A container that ignores SIGTERM gets SIGKILL all the same."""
    runner = await backend.open()
    task = await backend.start()
    await backend.run(task)
    container = backend.container(task)
    container.ignores_sigterm = True
    engine.kills = kills
    with contextlib.suppress(RunnerUnavailable):
        await runner.cancel(await backend.read(task))
    await eventually(lambda: ".cancelled-" in container.name)
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


async def test_callback_of_a_container_that_was_renamed_since(backend, engine):
    """Finishing a callback keeps a cancellation that was added to the name since the lease."""
    runner = await backend.open()
    task = await backend.start(callback_url=CALLBACK)
    await backend.run(task)
    container = backend.container(task)
    container.end(137)
    [leased] = await runner.lease_callbacks()
    container.name += ".cancelled-1767323046000"
    await runner.finish_callback(leased)
    assert container.name == f"{task.task_id}.cancelled-1767323046000.notified"
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


# -- names


@pytest.mark.parametrize("suffix", [".notified", ".told"])
async def test_notified(backend, engine, suffix):
    """Names with `.told`, which version 0.1 wrote, mean that no callback is pending, too."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    await runner.cancel(task)
    container = backend.container(task)
    name = container.name
    container.name = name + suffix
    assert list(await runner.lease_callbacks()) == []
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


async def test_lease_after_a_failure(backend, engine):
    """Callbacks that could not be read are not leased."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    await runner.cancel(task)
    await eventually(lambda: engine.requests.count(LIST) > 2)
    engine.fail_inspections = 1
    with pytest.raises(RunnerUnavailable, match="busy"):
        await runner.lease_callbacks()
    assert [each.task_id for each in await runner.lease_callbacks()] == [task.task_id]


async def test_foreign_containers(backend, engine):
    """Containers that another client made with some of the labels are no tasks, and in no way."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start(callback_url=CALLBACK)
    labels = dict(backend.container(task).config["Labels"])
    for name, changed in (
        ("bare", {"worker.network": "workers", "worker.task-id": "x"}),
        ("no account", {k: v for k, v in labels.items() if k != "worker.account"}),
        ("no time", labels | {"worker.created-at": "yesterday"}),
        ("naive", labels | {"worker.created-at": "2026-01-01T00:00:00"}),
        ("east", labels | {"worker.created-at": "0001-01-01T00:00:00+14:00"}),
    ):
        config = backend.container(task).config | {"Labels": changed, "Env": ["ODD"]}
        made = FakeContainer(id=name, name=name, config=config, created="never", state="exited")
        engine.containers[name] = made
    await runner.cancel(task)
    assert await runner.counts() == {TaskStatus.CANCELLED: 1}
    listed = await runner.list("acme", status=None, before=None, limit=10)
    assert [each.task_id for each in listed] == [task.task_id]
    assert [each.task_id for each in await runner.lease_callbacks()] == [task.task_id]


async def test_odd_details(backend, engine):
    """What the engine does not state, or states in another form, is left out."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start()
    container = backend.container(task)
    container.config["Env"] = ["ODD", "WORKER_INPUTS=[", "WORKER_TIMEOUT_S=nan"]
    container.state, container.exit_code = "exited", -1
    container.started_at, container.finished_at = "", "0001-01-01T00:00:00+14:00"
    container.name += ".cancelled-" + "9" * 30
    [listed] = await runner.list("acme", status=None, before=None, limit=10)
    assert (listed.inputs, listed.timeout_s, listed.exit_code) == ({}, None, None)
    assert (listed.status, listed.started_at) == (TaskStatus.FAILED, None)
    assert listed.finished_at is not None


async def test_large_results_are_not_cached(backend, engine):
    """A list leaves out large outputs, so that the API's memory does not grow with them."""
    runner = await backend.open(**QUEUED_ONLY)
    task = await backend.start()
    text = "x" * 1_000_000
    await backend.end_with({"": (task, result(output=text))})
    assert json.loads((await backend.read(task)).output) == text
    [listed] = await runner.list("acme", status=None, before=None, limit=10)
    assert (listed.status, listed.output, listed.exit_code) == (TaskStatus.FAILED, NULL, 1)
    assert json.loads((await backend.read(task)).output) == text


async def test_results_that_the_engine_does_not_give(backend, engine):
    """Lists and counts have the task without its result; others' callbacks are delivered."""
    runner = await backend.open(**QUEUED_ONLY)
    cancelled = await backend.start(callback_url=CALLBACK)
    task = await backend.start(callback_url=CALLBACK)
    await runner.cancel(cancelled)
    await backend.end_with({"": (task, result(output=1))})
    engine.fail_archives = True
    listed = await runner.list("acme", status=None, before=None, limit=10)
    assert [each.output_omitted for each in listed] == [True, False]
    assert await runner.counts() == {TaskStatus.CANCELLED: 1, TaskStatus.FAILED: 1}
    assert [each.task_id for each in await runner.lease_callbacks()] == [cancelled.task_id]
    engine.fail_archives = False
    [leased] = await runner.lease_callbacks()
    assert (leased.task_id, leased.output) == (task.task_id, b"1")


async def test_unstartable(backend, engine):
    """A container that the engine cannot start has failed with the engine's reason."""
    engine.start_error = "no such mount"
    await backend.open()
    task = await backend.start()
    failed = await backend.wait_for_status(task, TaskStatus.FAILED)
    assert failed.error == {"type": "StartFailed", "message": "no such mount"}


async def test_engine_cannot_start_containers_for_some_time(backend, engine):
    """The task stays queued, the runner is not ready, and the change is reported once."""
    engine.start_error, engine.start_status = "write /x: no space left on device", 500
    runner = await backend.open()
    task = await backend.start()
    await eventually(lambda: engine.requests.count("POST /containers/{id}/start") > 1)
    assert (await backend.read(task)).status is TaskStatus.QUEUED
    assert not await runner.ready()
    engine.start_error = ""
    await backend.wait_for_status(task, TaskStatus.RUNNING)
    await eventually(lambda: len(backend.events) > 1)
    assert backend.events == ["runner.lost", "runner.found"]
    assert await runner.ready()


async def test_slow_files_of_one_account(backend, engine):
    """Reading them does not delay other requests."""
    runner = await backend.open()
    task = await backend.start()
    await backend.run(task)
    running = await backend.read(task)
    engine.archives.clear()
    listings = [asyncio.ensure_future(runner.artifacts(running)) for _ in range(20)]
    try:
        await eventually(lambda: engine.requests.count(ARCHIVE) > 0)
        other = await backend.start(account="other")
        await backend.wait_for_status(other, TaskStatus.RUNNING)
        assert await runner.ready()
        assert not any(each.done() for each in listings)
    finally:
        engine.archives.set()
        await asyncio.gather(*listings)


@pytest.mark.parametrize("call", ["remove_container", "inspect_container", "stop"])
async def test_slow_calls_about_one_accounts_containers(backend, monkeypatch, call):
    """The engine removes many files, for example: the same is done for another account."""
    gate, waiting = threading.Event(), threading.Event()
    runner = await backend.open(max_running=20, queue_max=100, account_max_queued=100)
    slow = [await backend.start() for _ in range(10)]
    other = await backend.start(account="other")
    for each in (*slow, other):
        await backend.run(each)
        if call == "remove_container":
            await backend.end(each, TaskStatus.SUCCESS)
    ids = {backend.container(each).id for each in slow}
    whole = getattr(runner._engine.client, call)

    def wait(container, *arguments, **named):
        if container in ids:
            waiting.set()
            gate.wait(TIMEOUT_S)
        return whole(container, *arguments, **named)

    monkeypatch.setattr(runner._engine.client, call, wait)

    async def work(task):
        if call == "remove_container":
            await runner.remove(task)
        elif call == "stop":
            await runner._end(backend_container(task))
        else:
            await runner.find(task.account, task.task_id)

    def backend_container(task):
        return Container.from_list(backend.container(task).summary())

    hanging = [asyncio.ensure_future(work(each)) for each in slow * 2]
    try:
        await eventually(waiting.is_set)
        async with asyncio.timeout(TIMEOUT_S):
            await work(other)
        assert not any(each.done() for each in hanging)
    finally:
        gate.set()
        await asyncio.wait(hanging)


async def test_foreign_container_of_the_same_name(backend, engine):
    """A container that the runner did not create is never taken for a task."""
    runner = await backend.open(**QUEUED_ONLY)
    request = backend.request()
    task = await runner.start(request)
    backend.container(task).config["Labels"] = {}
    with pytest.raises(RunnerUnavailable):
        await runner.start(request)


async def test_order(backend, engine):
    """The oldest queued task is started first, whenever it arrived."""
    await backend.open(**QUEUED_ONLY)
    young = await backend.start()
    old = await backend.start(created_at=young.created_at.replace(year=2025))
    await backend.runner.close()
    await backend.open(max_running=1)
    await backend.wait_for_status(old, TaskStatus.RUNNING)
    assert (await backend.read(young)).status is TaskStatus.QUEUED
    await backend.end(old, TaskStatus.SUCCESS)
    await backend.wait_for_status(young, TaskStatus.RUNNING)


# -- results


async def test_no_result(backend, engine):
    """A worker without a result has failed with the last line of its stderr."""
    await backend.open()
    task = await backend.start()
    await backend.run(task)
    container = backend.container(task)
    container.stderr = b"worker: no such target\n"
    container.end(64)
    failed = await backend.wait_for_status(task, TaskStatus.FAILED)
    assert failed.error == {
        "type": "WorkerLost",
        "message": "the worker ended with code 64 and left no result: worker: no such target",
    }


async def test_result_that_is_a_link(backend, engine):
    """A link in place of the result is not followed."""
    await backend.open()
    task = await backend.start()
    await backend.run(task)
    container = backend.container(task)
    container.files["result.json"] = "/etc/passwd"
    container.end(0)
    ended = await backend.wait_for_status(task, TaskStatus.SUCCESS)
    assert ended.output == NULL


# -- an engine that fails


async def test_engine_stops_answering(backend, engine):
    """The loss is reported once."""
    runner = await backend.open()
    backend.lose()
    with pytest.raises(RunnerUnavailable, match="does not answer"):
        await runner.find("acme", str(uuid.uuid4()))
    await eventually(lambda: backend.events)
    assert backend.events == ["runner.lost"]


async def test_engine_answers_with_an_error(backend, engine):
    """The error has the engine's message."""
    runner = await backend.open()
    engine.failures = 1000
    with pytest.raises(RunnerUnavailable, match="busy"):
        await runner.counts()


async def test_missing_image(backend, engine):
    """A missing image is an error at the start."""
    engine.images = 404
    backend.runner = made = make()
    made.close = lambda: asyncio.sleep(0)
    with pytest.raises(SettingError, match="has no image 'worker'"):
        await made.open()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_engine_on_this_machine_is_called_without_a_proxy(backend, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    runner = await backend.open()
    assert await runner.counts() == {}


async def test_no_engine(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(SettingError, match=r"no Docker engine answers at tcp://127\.0\.0\.1:9"):
        await make().open()


def make() -> DockerRunner:
    return docker_runner.make(load(DockerSettings, {}, environ={}), lambda _: b"")


# -- the watchdog


async def test_overdue_container(backend):
    """A worker that exceeds its limit is ended, which frees its slot, and its task has failed."""
    backend.limits = Limits(margin_s=-backend.request().timeout_s, grace_s=0, period_s=0.01)
    runner = await backend.open(max_running=1)
    first, second = await backend.start(), await backend.start()
    ended = await backend.wait_for_status(first, TaskStatus.FAILED)
    assert (ended.exit_code, ended.error["type"]) == (124, "WorkerOverdue")
    await backend.wait_for_status(second, TaskStatus.FAILED)
    assert dict(await runner.counts()) == {TaskStatus.FAILED: 2}


async def test_result_of_an_overdue_container(backend):
    """A worker that hangs after its task's end is ended, and the task keeps its own result."""
    await backend.open()
    task = await backend.start()
    await backend.run(task)
    container = backend.container(task)
    container.name += ".overdue"
    await backend.end(task, TaskStatus.SUCCESS)
    assert (await backend.read(task)).status is TaskStatus.SUCCESS
