"""The kubernetes runner against an API server: Jobs in, statuses out, whatever the server does."""

from __future__ import annotations

import copy
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml
from fake_cluster import JOBS, NAMESPACE, SECRETS, FakeCluster, kubeconfig

from worker.api.runners import container_worker
from worker.api.runners.kubernetes import runner as kubernetes_runner
from worker.api.runners.kubernetes.cluster import RULES
from worker.api.runners.kubernetes.runner import KubernetesRunner
from worker.api.runners.protocol import QueueFull, RunnerUnavailable, TaskRequest, TaskStatus
from worker.errors import SettingError
from worker.settings import load
from worker.settings.kubernetes import KubernetesSettings
from worker.stream import tokens

MASTER = b"m" * 32
RUNNING = {"running": {"startedAt": "2026-01-02T03:04:06Z"}}
TEMPLATE = yaml.safe_load((container_worker.SOURCE_TREE / "docker/k8s/task/job.yaml").read_bytes())


def terminated(code: int, reason: str = "Error", result: Any = None) -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": "2026-01-02T03:04:06Z",
            "finishedAt": "2026-01-02T03:05:06Z",
            **({} if result is None else {"message": json.dumps(result)}),
        }
    }


def result(status: str, code: int, **more: Any) -> dict[str, Any]:
    return {"status": status, "exit_code": code, "output": None, "error": None, **more}


def request(**more: Any) -> TaskRequest:
    known: dict[str, Any] = {
        "task_id": str(uuid.uuid4()),
        "account": "acme",
        "endpoint_name": "tour",
        "file": Path("/endpoints/tour.py"),
        "inputs": {"n": 1},
        "timeout_s": 60.0,
        "callback_url": None,
        "digest": "d" * 64,
        "created_at": datetime.now(UTC),
    }
    return TaskRequest(**known | more)


Replica = Callable[[], Any]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as server:
        yield server


@pytest.fixture
async def replica(cluster, tmp_path, monkeypatch) -> AsyncIterator[Replica]:
    """Make runners on the cluster; each is a replica of the API."""
    async with kmock.Server(cluster) as server, AsyncExitStack() as opened:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, str(server.url).rstrip("/"))))

        async def new(**options: Any) -> KubernetesRunner:
            chosen = load(KubernetesSettings, options, environ={})
            made = kubernetes_runner.make(chosen, lambda task: tokens.derive_key(MASTER, task))
            await made.open()
            opened.push_async_callback(made.close)
            return made

        yield new


@pytest.fixture
async def runner(replica) -> KubernetesRunner:
    one: KubernetesRunner = await replica()
    return one


async def status_of(runner, wanted) -> str:
    known = await runner.find(wanted.account, wanted.task_id)
    return str(known.status)


# -- start


async def test_start(runner, cluster):
    """A task becomes a Job, and a Secret with its own stream key that goes with the Job."""
    wanted = request()
    known = await runner.start(wanted)
    assert known.status is TaskStatus.QUEUED
    job = cluster.job(wanted.task_id)
    secret = cluster.secret(wanted.task_id)
    key = tokens.derive_key(MASTER, wanted.task_id).hex()
    assert secret["stringData"] == {"stream_key": key}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert key not in json.dumps(job)
    found = await runner.find("acme", wanted.task_id)
    assert (found.inputs, found.timeout_s, found.created_at, found.digest) == (
        wanted.inputs,
        wanted.timeout_s,
        wanted.created_at,
        wanted.digest,
    )


async def test_job_is_the_template(runner, cluster):
    """What runs is the template of docker/k8s/task, but for what is the task's own."""
    wanted = request(timeout_s=3600.0)
    await runner.start(wanted)
    job = copy.deepcopy(cluster.job(wanted.task_id))
    assert job["metadata"].pop("name") == wanted.task_id
    for name in ("uid", "resourceVersion", "namespace", "annotations"):
        del job["metadata"][name]
    pod = job["spec"]["template"]
    for labels in (job["metadata"]["labels"], pod["metadata"]["labels"]):
        for name in [name for name in labels if name.startswith("worker/")]:
            del labels[name]
    assert pod["spec"].pop("hostname") == wanted.task_id
    container = pod["spec"]["containers"][0]
    environ = {each["name"]: each for each in container["env"]}
    assert environ["WORKER_TASK_ID"]["value"] == wanted.task_id
    assert environ["WORKER_STREAM_KEY"]["valueFrom"]["secretKeyRef"]["name"] == wanted.task_id
    assert json.loads(environ.pop("WORKER_INPUTS")["value"]) == wanted.inputs
    environ["WORKER_TASK_ID"]["value"] = "task"
    environ["WORKER_STREAM_KEY"]["valueFrom"]["secretKeyRef"]["name"] = "task"
    container["env"] = list(environ.values())
    wished = copy.deepcopy(TEMPLATE)
    del wished["metadata"]["name"], wished["spec"]["template"]["spec"]["hostname"]
    assert job == wished


async def test_timeout(runner, cluster):
    """A Job's deadline leaves its task as much room behind its timeout as the template does."""
    wanted = request(timeout_s=100.5)
    await runner.start(wanted)
    margin_s = TEMPLATE["spec"]["activeDeadlineSeconds"] - 3600
    assert 100.5 + margin_s <= cluster.job(wanted.task_id)["spec"]["activeDeadlineSeconds"] <= 402


async def test_image(replica, cluster):
    """WORKER_IMAGE outranks the template's."""
    runner = await replica(image="registry.example/worker:7")
    wanted = request()
    await runner.start(wanted)
    container = cluster.job(wanted.task_id)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/worker:7"


async def test_start_again(runner, cluster):
    """The same task is started once; the second request gets the first one's record."""
    wanted = request()
    await runner.start(wanted)
    again = await runner.start(dataclasses.replace(wanted, digest="e" * 64))
    assert again.digest == wanted.digest
    assert len(cluster.objects) == 2  # one Job, one Secret


async def test_full(runner, cluster):
    """A namespace whose quota is used up takes no more tasks for now."""
    message = 'jobs.batch "x" is forbidden: exceeded quota: tasks'
    cluster.refuse("create", "jobs", 403, message)
    with pytest.raises(QueueFull):
        await runner.start(request())


# -- status


async def test_pending(runner, cluster):
    """A pod that waits is a queued task, and why it waits is told."""
    wanted = request()
    await runner.start(wanted)
    cluster.set_pod(wanted.task_id, {"waiting": {"reason": "ContainerCreating"}})
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.error) == ("queued", None)
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    cluster.set_pod(wanted.task_id, {"waiting": waiting})
    known = await runner.find("acme", wanted.task_id)
    assert known.status is TaskStatus.QUEUED
    assert known.error == {"type": "ImagePullBackOff", "message": "no such image"}


async def test_unschedulable(runner, cluster):
    """A pod that no node takes is a queued task with the scheduler's reason."""
    wanted = request()
    await runner.start(wanted)
    condition = {"type": "PodScheduled", "status": "False"}
    condition |= {"reason": "Unschedulable", "message": "0/3 nodes"}
    cluster.set_pod(wanted.task_id, None, phase="Pending", conditions=[condition])
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.error["message"]) == ("queued", "0/3 nodes")


async def test_running(runner, cluster):
    """A task whose container runs is running; its stream is there once its pod is ready."""
    wanted = request()
    await runner.start(wanted)
    assert await runner.stream_address(wanted.task_id) is None
    cluster.set_pod(wanted.task_id, RUNNING, podIP="10.1.2.3")
    known = await runner.find("acme", wanted.task_id)
    assert known.status is TaskStatus.RUNNING
    assert known.started_at == datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
    assert await runner.stream_address(wanted.task_id) is None
    ready = [{"type": "Ready", "status": "True"}]
    cluster.set_pod(wanted.task_id, RUNNING, podIP="10.1.2.3", conditions=ready)
    assert await runner.stream_address(wanted.task_id) == "ws://10.1.2.3:6080"


async def test_success(runner, cluster):
    """A task that succeeded has the output that its worker wrote at its end."""
    wanted = request()
    await runner.start(wanted)
    told = result("success", 0, output={"title": "Hello"})
    cluster.set_pod(wanted.task_id, terminated(0, "Completed", told))
    assert await status_of(runner, wanted) == "success"  # the pod knows before the Job does
    cluster.end_job(wanted.task_id, "Complete")
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.exit_code, known.output) == ("success", 0, {"title": "Hello"})
    assert known.finished_at == datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC)
    assert await runner.stream_address(wanted.task_id) is None


async def test_success_with_an_output_too_large_to_be_told(runner, cluster):
    """A worker that could not write its whole output says so, and so does the task."""
    wanted = request()
    await runner.start(wanted)
    told = result("success", 0, output_omitted=True)
    cluster.set_pod(wanted.task_id, terminated(0, "Completed", told))
    cluster.end_job(wanted.task_id, "Complete")
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.output, known.output_omitted) == ("success", None, True)


async def test_success_without_a_pod(runner, cluster):
    """A Job outlives its pod, and its success with it."""
    wanted = request()
    await runner.start(wanted)
    cluster.end_job(wanted.task_id, "Complete")
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.exit_code, known.output) == ("success", 0, None)


async def test_failed_by_its_own_fault(runner, cluster):
    """A task that raised has failed with its own error."""
    wanted = request()
    await runner.start(wanted)
    error = {"type": "LookupError", "message": "nothing there"}
    cluster.set_pod(wanted.task_id, terminated(1, result=result("failed", 1, error=error)))
    cluster.end_job(wanted.task_id, "Failed", "PodFailurePolicy", "exit code 1")
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.exit_code, known.error) == ("failed", 1, error)


@pytest.mark.parametrize(
    ("state", "status", "condition", "kind"),
    [
        (terminated(137, "OOMKilled"), {}, "PodFailurePolicy", "OOMKilled"),
        (terminated(137), {"reason": "Evicted"}, "BackoffLimitExceeded", "Evicted"),
        (terminated(64), {}, "PodFailurePolicy", "WorkerLost"),
        (None, {}, "DeadlineExceeded", "DeadlineExceeded"),
        (None, {}, "BackoffLimitExceeded", "BackoffLimitExceeded"),
    ],
)
async def test_reasons(runner, cluster, state, status, condition, kind):
    """The most telling reason of a failure is kept."""
    wanted = request()
    await runner.start(wanted)
    cluster.set_pod(wanted.task_id, state, **status)
    cluster.end_job(wanted.task_id, "Failed", condition, "said the controller")
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.error["type"]) == ("failed", kind)


async def test_reason_of_a_pod_that_is_gone(runner, cluster):
    """Why a pod never ran is told also when the deadline has removed it."""
    wanted = request()
    await runner.start(wanted)
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    cluster.set_pod(wanted.task_id, {"waiting": waiting})
    await runner.repair()
    cluster.remove_pod(wanted.task_id)
    cluster.end_job(wanted.task_id, "Failed", "DeadlineExceeded", "too long")
    known = await runner.find("acme", wanted.task_id)
    assert known.error == {"type": "ErrImagePull", "message": "no such image"}


async def test_next_try(runner, cluster):
    """Between two tries a task runs on: its Job has not ended."""
    wanted = request()
    await runner.start(wanted)
    cluster.set_pod(wanted.task_id, terminated(70))
    assert await status_of(runner, wanted) == "running"


# -- cancel


async def test_cancel_queued(runner, cluster):
    """A task without a running container is cancelled at once, and found as such."""
    wanted = request()
    await runner.start(wanted)
    await runner.cancel(wanted.task_id)
    assert await status_of(runner, wanted) == "cancelled"
    assert cluster.job(wanted.task_id)["spec"]["activeDeadlineSeconds"] == 1


async def test_cancel_running(runner, cluster):
    """A running task is cancelled when its pod has ended; the Job remembers."""
    wanted = request()
    await runner.start(wanted)
    cluster.set_pod(wanted.task_id, RUNNING)
    await runner.cancel(wanted.task_id)
    assert await status_of(runner, wanted) == "running"
    cluster.remove_pod(wanted.task_id)
    cluster.end_job(wanted.task_id, "Failed", "DeadlineExceeded")
    known = await runner.find("acme", wanted.task_id)
    assert (known.status, known.error) == ("cancelled", None)


async def test_cancel_again(runner, cluster):
    """The second time changes nothing."""
    wanted = request()
    await runner.start(wanted)
    await runner.cancel(wanted.task_id)
    before = copy.deepcopy(cluster.job(wanted.task_id))
    await runner.cancel(wanted.task_id)
    assert cluster.job(wanted.task_id) == before


async def test_cancel_too_late(runner, cluster):
    """A task that has ended stays as it ended."""
    wanted = request()
    await runner.start(wanted)
    cluster.end_job(wanted.task_id, "Complete")
    await runner.cancel(wanted.task_id)
    assert await status_of(runner, wanted) == "success"


async def test_cancel_what_changes_meanwhile(runner, cluster):
    """A Job that somebody else changed in the same moment is looked at again."""
    wanted = request()
    await runner.start(wanted)
    cluster.refuse("patch", "jobs", 409, "it has been modified", times=1)
    await runner.cancel(wanted.task_id)
    assert await status_of(runner, wanted) == "cancelled"


async def test_cancel_nothing(runner):
    """An unknown task cannot be cancelled, and nobody minds."""
    await runner.cancel(str(uuid.uuid4()))


# -- find and list


async def test_not_found(runner):
    assert await runner.find("acme", str(uuid.uuid4())) is None


async def test_of_another_account(runner, cluster):
    """Another's task is none, and as many questions are asked for it."""
    wanted = request()
    await runner.start(wanted)
    before = len(cluster[kmock.method.GET])
    assert await runner.find("other", wanted.task_id) is None
    of_another = len(cluster[kmock.method.GET]) - before
    assert await runner.find("other", str(uuid.uuid4())) is None
    assert len(cluster[kmock.method.GET]) - before == 2 * of_another


async def test_foreign_job(runner, cluster):
    """A Job that is no task of the API's is not seen."""
    cluster.objects[JOBS, NAMESPACE, "backup"] = {"metadata": {"name": "backup"}}
    assert await runner.find("acme", "backup") is None
    assert await runner.list("acme", status=None, before=None, limit=10) == []


async def test_list(runner, cluster):
    """Tasks of one account are listed, newest first, by status and in pages."""
    requests = [request(created_at=datetime(2026, 1, 1, 0, 0, n, tzinfo=UTC)) for n in range(4)]
    for each in requests:
        await runner.start(each)
    await runner.start(request(account="other"))
    cluster.set_pod(requests[1].task_id, RUNNING)
    ids = [each.task_id for each in reversed(requests)]
    whole = await runner.list("acme", status=None, before=None, limit=10)
    assert [each.task_id for each in whole] == ids
    page = await runner.list("acme", status=None, before=None, limit=3)
    assert [each.task_id for each in page] == ids[:3]
    before = kubernetes_runner._place(page[-1])
    rest = await runner.list("acme", status=None, before=before, limit=3)
    assert [each.task_id for each in rest] == ids[3:]
    running = await runner.list("acme", status=TaskStatus.RUNNING, before=None, limit=10)
    assert [each.task_id for each in running] == [requests[1].task_id]
    assert await runner.counts() == {TaskStatus.QUEUED: 4, TaskStatus.RUNNING: 1}


async def test_long_list(runner, cluster):
    """A list that comes in pages is read to its end."""
    wanted = request()
    await runner.start(wanted)
    job = cluster.job(wanted.task_id)
    second = copy.deepcopy(job)
    second["metadata"]["name"] = str(uuid.uuid4())
    listing = cluster[kmock.action.LIST, JOBS]
    listing[kmock.params({"continue": "more"})] << {"metadata": {}, "items": [second]}
    listing << {"metadata": {"continue": "more"}, "items": [job]}
    whole = await runner.list("acme", status=None, before=None, limit=10)
    assert {each.task_id for each in whole} == {wanted.task_id, second["metadata"]["name"]}


async def test_replicas_agree(replica, cluster):
    """What one replica started, another one finds, cancels, and both tell the same of."""
    one, two = await replica(), await replica()
    wanted = request()
    await one.start(wanted)
    assert (await two.start(wanted)).task_id == wanted.task_id
    cluster.set_pod(wanted.task_id, RUNNING)
    assert await one.find("acme", wanted.task_id) == await two.find("acme", wanted.task_id)
    await two.cancel(wanted.task_id)
    cluster.remove_pod(wanted.task_id)
    assert await status_of(one, wanted) == await status_of(two, wanted) == "cancelled"


# -- artifacts and callbacks


async def test_artifacts(runner, cluster):
    """What the cluster keeps can be had: the worker's last words and its log."""
    wanted = request()
    await runner.start(wanted)
    assert await runner.artifacts(wanted.task_id) == []
    told = result("success", 0)
    cluster.set_pod(wanted.task_id, terminated(0, "Completed", told))
    cluster[f"/api/v1/namespaces/{NAMESPACE}/pods/{wanted.task_id}-abcde/log"] << b"events\n"
    files = await runner.artifacts(wanted.task_id)
    assert [(each.name, each.size_bytes) for each in files] == [
        ("pod.log", 7),
        ("result.json", len(json.dumps(told))),
    ]
    content = await runner.open_artifact(wanted.task_id, "pod.log")
    assert [piece async for piece in content] == [b"events\n"]
    assert await runner.open_artifact(wanted.task_id, "../pod.log") is None


async def test_callbacks(replica, cluster):
    """An ended task's callback is lent to one replica, and owed until it is settled."""
    one, two = await replica(), await replica()
    wanted = request(callback_url="https://acme.example/hook")
    await one.start(wanted)
    await one.start(request())
    assert await one.callbacks_due() == []
    cluster.end_job(wanted.task_id, "Complete")
    assert [each.task_id for each in await one.callbacks_due()] == [wanted.task_id]
    assert await two.callbacks_due() == []
    past = "2026-01-01T00:00:00+00:00"
    cluster.annotate(wanted.task_id, callback_leased_until=past)
    assert [each.task_id for each in await two.callbacks_due()] == [wanted.task_id]
    await two.callback_settled(wanted.task_id)
    cluster.annotate(wanted.task_id, callback_leased_until=past)
    assert await one.callbacks_due() == []


# -- a server that misbehaves


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_busy_server(runner, cluster, status):
    """A server that is busy for a moment is asked again."""
    wanted = request()
    cluster.refuse("*", "*", status, times=2)
    await runner.start(wanted)
    assert await status_of(runner, wanted) == "queued"


async def test_create_that_was_done_after_all(runner, cluster):
    """An answer that got lost is no second task, and no error."""
    wanted = request()
    cluster.refuse("create", "jobs", 504, times=1, done=True)
    known = await runner.start(wanted)
    assert known.task_id == wanted.task_id
    assert cluster.secret(wanted.task_id)


async def test_server_away(runner, cluster):
    """A server that does not come back is named, in one line."""
    cluster.refuse("*", "*", 503)
    with pytest.raises(RunnerUnavailable, match="does not answer: HTTP 503"):
        await runner.find("acme", str(uuid.uuid4()))
    assert await runner.ready() is False


async def test_forbidden(runner, cluster):
    """A Role that lacks a verb is named with what is missing."""
    cluster.refuse("list", "pods", 403, "no")
    with pytest.raises(RunnerUnavailable, match="does not let us list pods in worker"):
        await runner.list("acme", status=None, before=None, limit=1)


async def test_refused_task(runner, cluster):
    """A Job that the server finds invalid is refused in its own words."""
    cluster.refuse("create", "jobs", 422, "spec.x: bad")
    with pytest.raises(RunnerUnavailable, match=r"spec\.x: bad"):
        await runner.start(request())


async def test_secret_that_was_not_made(runner, cluster):
    """A Job whose API was killed before it made the Secret gets one while its pod waits for it."""
    wanted = request()
    cluster.refuse("create", "secrets", 422, "not now", times=1)
    await runner.start(wanted)
    assert (SECRETS, NAMESPACE, wanted.task_id) not in cluster.objects
    waiting = {"reason": "CreateContainerConfigError", "message": "secret not found"}
    cluster.set_pod(wanted.task_id, {"waiting": waiting})
    await runner.repair()
    assert cluster.secret(wanted.task_id)["stringData"]


async def test_no_cluster(tmp_path, monkeypatch):
    """Without a cluster the API does not start, and says what to do."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    made = kubernetes_runner.make(load(KubernetesSettings, {}, environ={}), lambda _: b"")
    with pytest.raises(SettingError, match="KUBECONFIG"):
        await made.open()


async def test_cluster_away_at_start(tmp_path, monkeypatch):
    """A cluster that does not answer at start is named in one line."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:9")))
    made = kubernetes_runner.make(load(KubernetesSettings, {}, environ={}), lambda _: b"")
    with pytest.raises(SettingError, match=r"http://127\.0\.0\.1:9 does not answer"):
        await made.open()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is no YAML"),
        ("kind: Pod", "holds no Job"),
        ("kind: Job", "has no container `worker`"),
        ("kind: Job\nspec: {template: {spec: {containers: [{name: x}]}}}", "no container `worker`"),
    ],
)
def test_bad_template(tmp_path, text, why):
    """A template that is none is refused before anything starts."""
    file = tmp_path / "job.yaml"
    file.write_text(text)
    chosen = load(KubernetesSettings, {"job_template": file}, environ={})
    with pytest.raises(SettingError, match=why):
        kubernetes_runner.make(chosen, lambda _: b"")


# -- what it needs


async def test_role(replica, cluster):
    """All that is asked of the server over a task's life is just what the Role allows."""
    runner = await replica()
    wanted = request(callback_url="https://acme.example/hook")
    await runner.start(wanted)
    cluster.set_pod(wanted.task_id, RUNNING)
    await runner.artifacts(wanted.task_id)
    await runner.cancel(wanted.task_id)
    await runner.callbacks_due()
    allowed = {(group, kind, verb) for (group, kind), verbs in RULES.items() for verb in verbs}
    assert cluster.seen == allowed
