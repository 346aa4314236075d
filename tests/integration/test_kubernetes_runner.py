"""The kubernetes runner against an API server: Jobs, Secrets, replicas, and a failing server.

tests/contract has what every runner does, tests/unit what a Job's state means.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import kmock
import pytest
from contract.backend import ACCOUNT
from contract.kubernetes import READY, RUNNING, KubernetesBackend
from fake_cluster import JOBS, NAMESPACE, SECRETS, FakeCluster, kubeconfig

from worker.api.runners.kubernetes import job_record
from worker.api.runners.kubernetes import runner as kubernetes_runner
from worker.api.runners.kubernetes.cluster import RULES, Cluster
from worker.api.runners.kubernetes.runner import KubernetesRunner
from worker.api.runners.protocol import QueueFull, RunnerUnavailable, TaskRecord, TaskStatus
from worker.errors import SettingError
from worker.settings import load
from worker.settings.kubernetes import KubernetesSettings

PATIENCE_S = 20
CALLBACK = "https://acme.example/hook"
PAST = "2026-01-01T00:00:00+00:00"


@pytest.fixture
async def backend(monkeypatch, tmp_path) -> AsyncIterator[KubernetesBackend]:
    made = KubernetesBackend(monkeypatch, tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def cluster(backend) -> FakeCluster:
    return backend.cluster


@pytest.fixture
def runner(backend) -> KubernetesRunner:
    return backend.runner


@pytest.fixture
async def replica(backend) -> AsyncIterator[Callable[..., Any]]:
    """Make further runners on the cluster, as another API process has one."""
    async with AsyncExitStack() as opened:

        async def new(**options: Any) -> KubernetesRunner:
            made = await backend.replica(**options)
            opened.push_async_callback(made.close)
            return made

        yield new


async def listed(runner: KubernetesRunner) -> Sequence[TaskRecord]:
    return await runner.list(ACCOUNT, status=None, before=None, limit=10)


def requests(cluster) -> int:
    """The number of requests so far, without those of the runner's regular repairs."""
    return sum(each.params.get("labelSelector") != "worker/account" for each in cluster)


# -- start


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_cluster_on_this_machine_is_called_without_a_proxy(replica, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    other = await replica()
    assert await other.counts() == {}


async def test_start(backend, runner, cluster):
    """A task becomes a Job, and a Secret with its stream key that the Job owns."""
    task = await backend.start()
    job, secret = cluster.job(task.task_id), cluster.secret(task.task_id)
    key = (b"k" * 32).hex()
    assert secret["stringData"] == {"stream_key": key}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert key not in json.dumps(job)
    assert len(cluster.objects) == 2


async def test_image(replica, backend, cluster):
    """WORKER_IMAGE replaces the template's image."""
    runner = await replica(image="registry.example/worker:7")
    task = await runner.start(backend.request())
    container = cluster.job(task.task_id)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/worker:7"


async def test_quota(backend, runner, cluster):
    """A namespace whose quota is used up accepts no further tasks."""
    cluster.refuse("create", "jobs", 403, 'jobs.batch "x" is forbidden: exceeded quota: tasks')
    with pytest.raises(QueueFull):
        await backend.start()


async def test_create_with_a_lost_answer(backend, runner, cluster):
    """A Job whose creation was not answered is found by the next attempt."""
    cluster.refuse("create", "jobs", 504, times=1, done=True)
    request = backend.request()
    assert (await runner.start(request)).task_id == request.task_id
    assert cluster.secret(request.task_id)


async def test_job_that_cannot_be_read(backend, runner, replica, monkeypatch):
    """It blocks no new task of its account, and no list."""
    odd = await backend.start()
    read = job_record.record

    def record(job, pods):
        if job["metadata"]["name"] == odd.task_id:
            raise TypeError
        return read(job, pods)

    monkeypatch.setattr(job_record, "record", record)
    task = await (await replica()).start(backend.request())
    assert [each.task_id for each in await listed(runner)] == [task.task_id]


async def test_slow_logs_of_one_account_do_not_block_another(backend, runner, monkeypatch):
    """Their downloads occupy the account's share of threads only."""
    slow = await backend.start()
    await backend.run(slow)
    slow = await runner.find(ACCOUNT, slow.task_id)
    other = dataclasses.replace(slow, account="another")
    gate, taken, send = threading.Event(), [0], Cluster._send_once

    def send_once(self, method, path, query, body):
        if path.endswith("/log"):
            taken[0] += 1
            if taken[0] <= 2:
                gate.wait()
        return send(self, method, path, query, body)

    monkeypatch.setattr(Cluster, "_send_once", send_once)
    hanging = [asyncio.ensure_future(runner.artifacts(slow)) for _ in range(100)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            while taken[0] < 2:
                await asyncio.sleep(0.01)
            await runner.artifacts(other)
            await backend.start()
        assert not any(each.done() for each in hanging)
    finally:
        gate.set()
        await asyncio.wait(hanging)


async def test_missing_secret(backend, runner, cluster):
    """A Job whose Secret was not created gets it while its pod waits for it."""
    cluster.refuse("create", "secrets", 422, "not now", times=1)
    task = await backend.start()
    assert (SECRETS, NAMESPACE, task.task_id) not in cluster.objects
    waiting = {"reason": "CreateContainerConfigError", "message": "secret not found"}
    cluster.set_pod(task.task_id, {"waiting": waiting})
    await runner.repair()
    assert cluster.secret(task.task_id)["stringData"]


@pytest.mark.parametrize("times", [1, 1000], ids=["one-refused", "all-refused"])
async def test_repair_that_the_cluster_refuses(backend, runner, cluster, times):
    """A refusal for one Job does not stop the repair of others; the next repair tries again."""
    cluster.refuse("create", "secrets", 422, "not now", times=2)
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": "secret not found"}}
    tasks = [await backend.start() for _ in range(2)]
    for task in tasks:
        cluster.set_pod(task.task_id, waiting)

    def without_secret():
        keys = [(SECRETS, NAMESPACE, task.task_id) for task in tasks]
        return sum(key not in cluster.objects for key in keys)

    assert without_secret() == 2
    cluster.refuse("create", "secrets", 422, "not now", times=times)
    await runner.repair()
    assert without_secret() == (1 if times == 1 else 2)
    cluster.allow()
    await runner.repair()
    assert without_secret() == 0


# -- requests per operation


async def test_requests(backend, runner, cluster):
    """Methods that take a record use what was read with it."""
    await runner.start(backend.request())  # reads how many tasks the account has
    before = requests(cluster)
    task = await runner.start(backend.request())
    assert requests(cluster) - before == 2  # the Job and the Secret
    cluster.set_pod(task.task_id, RUNNING, podIP="10.1.2.3", conditions=READY)

    before = requests(cluster)
    found = await backend.read(task)
    assert requests(cluster) - before == 2  # the Job and its pods
    assert await runner.stream_address(found)
    assert requests(cluster) - before == 2
    await runner.artifacts(found)
    assert requests(cluster) - before == 3  # the pod's log
    await runner.cancel(found)
    assert requests(cluster) - before == 4  # the patch


async def test_another_account_costs_as_much_as_none(backend, runner, cluster):
    task = await backend.start()
    before = requests(cluster)
    assert await runner.find("other", task.task_id) is None
    another = requests(cluster) - before
    assert await runner.find("other", str(uuid.uuid4())) is None
    assert requests(cluster) - before == 2 * another


# -- status, list


async def test_stored_reason_of_a_deleted_pod(backend, runner, cluster):
    """`repair` stores why a pod waits; the reason is known after the pod was deleted."""
    task = await backend.start()
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    cluster.set_pod(task.task_id, {"waiting": waiting})
    await runner.repair()
    cluster.remove_pod(task.task_id)
    cluster.end_job(task.task_id, "Failed", "DeadlineExceeded", "too long")
    ended = await backend.read(task)
    assert ended.error == {"type": "ErrImagePull", "message": "no such image"}


async def test_foreign_job(runner, cluster):
    """A Job that the API did not create is not a task."""
    cluster.objects[JOBS, NAMESPACE, "backup"] = {"metadata": {"name": "backup"}}
    assert await runner.find("acme", "backup") is None
    assert await runner.list("acme", status=None, before=None, limit=10) == []


async def test_list_in_pages(backend, runner, cluster):
    """A list that the server sends in pages is read completely."""
    task = await backend.start()
    job = cluster.job(task.task_id)
    second = copy.deepcopy(job)
    second["metadata"]["name"] = str(uuid.uuid4())
    listing = cluster[kmock.action.LIST, JOBS]
    listing[kmock.params({"continue": "more"})] << {"metadata": {}, "items": [second]}
    listing << {"metadata": {"continue": "more"}, "items": [job]}
    whole = await runner.list("acme", status=None, before=None, limit=10)
    assert {each.task_id for each in whole} == {task.task_id, second["metadata"]["name"]}


# -- cancel


async def test_cancel(backend, runner, cluster):
    """A cancelled Job has a deadline of one second; cancelling again changes nothing."""
    task = await backend.start()
    await runner.cancel(task)
    job = copy.deepcopy(cluster.job(task.task_id))
    assert job["spec"]["activeDeadlineSeconds"] == 1
    await runner.cancel(task)
    assert cluster.job(task.task_id) == job


@pytest.mark.parametrize("times", [1, 4])
async def test_cancel_a_changed_job(backend, runner, cluster, times):
    """A Job that was changed since it was read is read again."""
    task = await backend.start()
    cluster.refuse("patch", "jobs", 409, "it has been modified", times=times)
    await runner.cancel(task)
    assert (await backend.read(task)).status is TaskStatus.CANCELLED


async def test_cancel_a_job_that_ended_since(backend, runner, cluster):
    """A Job that ended since it was read keeps its end."""
    task = await backend.start()
    cluster.annotate(task.task_id, other="changed")
    cluster.end_job(task.task_id, "Complete")
    cluster.refuse("patch", "jobs", 409, "it has been modified", times=1)
    await runner.cancel(task)
    assert (await backend.read(task)).status is TaskStatus.SUCCESS


async def test_cancel_a_job_that_changes_always(backend, runner, cluster):
    task = await backend.start()
    cluster.refuse("patch", "jobs", 409, "it has been modified")
    with pytest.raises(RunnerUnavailable, match="try again"):
        await runner.cancel(task)


async def test_cancel_a_deleted_job(backend, runner, cluster):
    task = await backend.start()
    cluster.refuse("patch", "jobs", 404)
    cluster.refuse("get", "jobs", 404)
    await runner.cancel(task)


# -- replicas and callbacks


async def test_replicas(replica, backend, cluster):
    """What one replica started, another one finds and cancels."""
    one, two = await replica(), await replica()
    request = backend.request()
    task = await one.start(request)
    assert (await two.start(request)).task_id == request.task_id
    cluster.set_pod(task.task_id, RUNNING)
    found = await two.find("acme", task.task_id)
    assert await one.find("acme", task.task_id) == found
    await two.cancel(found)
    backend.finish_cancel(task)
    for each in (one, two):
        assert (await each.find("acme", task.task_id)).status is TaskStatus.CANCELLED


async def test_callbacks_of_replicas(replica, backend, cluster):
    """A callback is leased to one replica; to another one once the lease has expired."""
    one, two = await replica(), await replica()
    task = await one.start(backend.request(callback_url=CALLBACK))
    cluster.end_job(task.task_id, "Complete")
    assert [each.task_id for each in await one.lease_callbacks()] == [task.task_id]
    assert await two.lease_callbacks() == []
    cluster.annotate(task.task_id, callback_leased_until=PAST)
    [leased] = await two.lease_callbacks()
    before = requests(cluster)
    await two.finish_callback(leased)
    assert requests(cluster) - before == 1  # the lease's answer has the resourceVersion
    cluster.annotate(task.task_id, callback_leased_until=PAST)
    assert await one.lease_callbacks() == []
    assert cluster.job(task.task_id)["metadata"]["labels"]["worker/callback"] == "notified"


async def test_callbacks_of_version_0_1(backend, runner, cluster):
    """A Job whose label is `owed` has a pending callback."""
    task = await backend.start(callback_url=CALLBACK)
    cluster.objects[JOBS, NAMESPACE, task.task_id].patch(
        {"metadata": {"labels": {"worker/callback": "owed"}}}
    )
    cluster.end_job(task.task_id, "Complete")
    [leased] = await runner.lease_callbacks()
    await runner.finish_callback(leased)
    assert cluster.job(task.task_id)["metadata"]["labels"]["worker/callback"] == "notified"


async def test_finish_the_callback_of_a_changed_job(backend, runner, cluster):
    """A Job that was changed since the lease is read again."""
    task = await backend.start(callback_url=CALLBACK)
    cluster.end_job(task.task_id, "Complete")
    [leased] = await runner.lease_callbacks()
    cluster.refuse("patch", "jobs", 409, "it has been modified", times=1)
    await runner.finish_callback(leased)
    assert cluster.job(task.task_id)["metadata"]["labels"]["worker/callback"] == "notified"


# -- a failing server


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_busy_server(backend, cluster, status):
    """A request is repeated after a temporary error."""
    cluster.refuse("*", "*", status, times=2)
    task = await backend.start()
    assert (await backend.read(task)).status is TaskStatus.QUEUED


async def test_server_that_stays_busy(runner, cluster):
    cluster.refuse("*", "*", 503)
    with pytest.raises(RunnerUnavailable, match="does not answer: HTTP 503"):
        await runner.find("acme", str(uuid.uuid4()))


async def test_forbidden(runner, cluster):
    """The error names the verb and resource that the Role lacks."""
    cluster.refuse("list", "pods", 403, "no")
    with pytest.raises(RunnerUnavailable, match="does not allow to list pods in worker"):
        await runner.list("acme", status=None, before=None, limit=1)


async def test_refused_task(backend, cluster):
    """The error of an invalid Job has the server's message."""
    cluster.refuse("create", "jobs", 422, "spec.x: bad")
    with pytest.raises(RunnerUnavailable, match=r"spec\.x: bad"):
        await backend.start()


# -- settings


def make(**options: Any) -> KubernetesRunner:
    chosen = load(KubernetesSettings, options, environ={})
    return kubernetes_runner.make(chosen, lambda _: b"")


async def test_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SettingError, match="KUBECONFIG"):
        await make().open()


async def test_cluster_does_not_answer_at_start(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:9")))
    with pytest.raises(SettingError, match=r"http://127\.0\.0\.1:9 does not answer"):
        await make().open()


def test_bad_template(tmp_path):
    """An invalid template is refused before anything starts."""
    file = tmp_path / "job.yaml"
    file.write_text("kind: Pod")
    with pytest.raises(SettingError, match=r"WORKER_JOB_TEMPLATE: .* is not a Job"):
        make(job_template=file)


# -- permissions


async def test_role(backend, runner, cluster):
    """The requests of a task's whole life are exactly those that the Role allows."""
    task = await backend.start(callback_url=CALLBACK)
    cluster.set_pod(task.task_id, RUNNING)
    running = await backend.read(task)
    await runner.artifacts(running)
    await runner.cancel(running)
    await runner.lease_callbacks()
    allowed = {(group, kind, verb) for (group, kind), verbs in RULES.items() for verb in verbs}
    assert cluster.seen == allowed
