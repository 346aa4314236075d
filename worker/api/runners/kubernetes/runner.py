"""The kubernetes runner: a Job per task; all state is the cluster's, so replicas may run.

The cluster is the queue. A task is cancelled by a deadline of one second on its Job: the Job's
controller then deletes the pod with its grace period and keeps the Job, so the cancelled task can
still be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import worker_environment
from worker.api.runners.availability import Availability
from worker.api.runners.background import BackgroundTasks, Loops, Rounds
from worker.api.runners.kubernetes import job_record, job_spec
from worker.api.runners.kubernetes.account_queue import AccountQueue
from worker.api.runners.kubernetes.cluster import Cluster
from worker.api.runners.kubernetes.job_record import JobWithPods, annotations_of, labels_of
from worker.api.runners.kubernetes.job_spec import JobTemplate
from worker.api.runners.kubernetes.namespace import Namespace
from worker.api.runners.leases import CallbackLeases
from worker.api.runners.protocol import (
    CALLBACK_LEASE_S,
    NOT_ENDED,
    Artifact,
    Cursor,
    NotRemovable,
    QueueFull,
    RunnerUnavailable,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)
from worker.errors import SettingError
from worker.events import Events
from worker.net import netloc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from worker.api.runners.protocol import StreamKey
    from worker.settings.kubernetes import KubernetesSettings

REPAIR_S: Final = 10.0
_PATCH_ATTEMPTS: Final = 5
_READING: Final = "records"
_LEASING: Final = "callback leases"
_KEY_MISSING: Final = "CreateContainerConfigError"


def make(
    settings: KubernetesSettings, stream_key: StreamKey, loops: Loops | None = None
) -> KubernetesRunner:
    """Make the runner; `open` connects to the cluster.

    Raises:
        SettingError: the Job's template cannot be used.
    """
    file = settings.job_template or worker_environment.SOURCE_TREE / "docker/k8s/task/job.yaml"
    try:
        manifest = job_spec.parse_manifest(file.read_bytes(), file)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"WORKER_JOB_TEMPLATE: {error}; name a Job like docker/k8s/task/job.yaml"
        ) from error
    mounted = settings.endpoints_dir is not None
    if mounted and not job_spec.mounts_endpoints(manifest):
        raise SettingError(
            f"WORKER_JOB_TEMPLATE: the Job in {file} has no volume mounted at "
            f"{worker_environment.ENDPOINTS_PATH}, where its worker looks for the endpoints"
        )
    template = JobTemplate(
        manifest=manifest,
        image=settings.image,
        environ=worker_environment.container_environment(os.environ),
        mounted=mounted,
    )
    return KubernetesRunner(
        template=template,
        stream_key=stream_key,
        namespace=settings.kubernetes_namespace,
        account_max_queued=settings.account_max_queued,
        loops=loops or Loops(Events(None).emit),
    )


class KubernetesRunner:
    """Runs tasks as Jobs of one namespace."""

    def __init__(
        self,
        *,
        template: JobTemplate,
        stream_key: StreamKey,
        namespace: str | None,
        account_max_queued: int,
        loops: Loops,
    ) -> None:
        self._template = template
        self._stream_key = stream_key
        self._name = namespace
        self._account_max_queued = account_max_queued
        self._loops = loops
        self._availability = Availability(loops.report)
        self._background = BackgroundTasks(loops)
        self._rounds = Rounds(self._background)
        self._leases = CallbackLeases()
        self._cluster: Cluster  # set by `open`, like the next two
        self._namespace: Namespace
        self._account_queue: AccountQueue

    async def open(self) -> None:
        """Connect to the cluster.

        Raises:
            SettingError: there is no cluster, or it does not allow the access.
        """
        self._cluster = await asyncio.to_thread(Cluster, self._name)
        self._namespace = Namespace(self._cluster)
        self._account_queue = AccountQueue(self._namespace, self._account_max_queued, self._records)
        try:
            await self._namespace.check_access()
        except RunnerUnavailable as error:
            self._cluster.close()
            raise SettingError(f"WORKER_RUNNER=kubernetes: {error}") from error
        self._background.repeat("repair", self.repair, lambda: asyncio.sleep(REPAIR_S))

    async def close(self) -> None:
        """End; the Jobs continue to run."""
        await self._background.cancel()
        self._cluster.close()

    async def ready(self) -> bool:
        """Whether the cluster answers and allows the access."""
        with contextlib.suppress(RunnerUnavailable):
            await self._namespace.check_access()
            return True
        return False

    # -- tasks

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Create the Job, then its Secret, which the pod waits for."""
        try:
            await self._account_queue.check(request.account)
        except QueueFull:
            existing = await self.find(request.account, request.task_id)
            if existing is None:
                raise
            return existing
        job, is_new = await self._namespace.create_job(self._template.job_for(request))
        if is_new:
            self._account_queue.add(request.account)
        with contextlib.suppress(RunnerUnavailable):  # the Job exists: `repair` creates the Secret
            key = self._stream_key(request.task_id)
            await self._namespace.create_key_secret(job, key)
        task = job_record.record(job, []) if is_new else await self._namespace.record(job)
        if task is None:
            raise RunnerUnavailable("the cluster changed the labels of the task's Job; try again")
        return task

    async def cancel(self, task: TaskRecord) -> None:
        """Set a deadline that has passed, with an annotation that records the cancellation."""

        def change(current: TaskRecord) -> dict[str, Any] | None:
            cancelled = job_spec.CANCELLED_AT in annotations_of(JobWithPods.of(current).job)
            if current.status.ended or cancelled:
                return None
            annotations = {job_spec.CANCELLED_AT: datetime.now(UTC).isoformat()}
            return {"annotations": annotations, "spec": {"activeDeadlineSeconds": 1}}

        await self._change(task, change)

    async def remove(self, task: TaskRecord) -> None:
        """Have the cluster remove the ended Job now, by its TTL; the Role needs no `delete`."""

        def change(current: TaskRecord) -> dict[str, Any]:
            if not current.status.ended:
                raise NotRemovable(NOT_ENDED)
            return {"spec": {"ttlSecondsAfterFinished": 0}}

        await self._change(task, change)

    async def _change(
        self, task: TaskRecord, change: Callable[[TaskRecord], dict[str, Any] | None]
    ) -> None:
        """Update a task's Job as `change` says of its current state; None: not at all."""
        for _ in range(_PATCH_ATTEMPTS):
            fields = change(task)
            if fields is None:
                return
            if await self._namespace.patch_job(JobWithPods.of(task).job, **fields):
                return
            current = await self._namespace.get_job(task.task_id)
            changed = None if current is None else await self._namespace.record(current)
            if changed is None:
                return
            task = changed
        raise RunnerUnavailable("the Job changed during each attempt to change it; try again")

    async def find(
        self,
        account: str,
        task_id: str,
        *,
        summary: bool = False,  # noqa: ARG002 - of the protocol
    ) -> TaskRecord | None:
        """This account's task; one request for a missing task and for another account's."""
        job = await self._namespace.get_job(task_id)
        if job is None or labels_of(job).get(job_spec.ACCOUNT_LABEL) != account:
            return None
        return await self._namespace.record(job)

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Reads all of the account's Jobs: the cluster cannot sort."""
        jobs = await self._namespace.list_jobs(f"{job_spec.ACCOUNT_LABEL}={account}")
        found = [
            task
            for task in self._records(jobs)
            if task.account == account
            and status in (None, task.status)
            and (before is None or task.cursor < before)
        ]
        return sorted(found, key=lambda task: task.cursor, reverse=True)[:limit]

    async def counts(self) -> dict[TaskStatus, int]:
        """Reads all Jobs."""
        jobs = await self._namespace.list_jobs(job_spec.ACCOUNT_LABEL)
        return dict(Counter(task.status for task in self._records(jobs)))

    # -- streams and artifacts

    async def stream_address(self, task: TaskRecord) -> str | None:
        """The pod's own address, once its probe of /readyz succeeds."""
        pod = job_record.newest(JobWithPods.of(task).pods)
        if task.status is not TaskStatus.RUNNING or not job_record.is_ready(pod):
            return None
        address = pod["status"].get("podIP")
        return f"ws://{netloc(address, worker_environment.STREAM_PORT)}" if address else None

    async def artifacts(self, task: TaskRecord) -> Sequence[Artifact]:
        """What the cluster stores of a task: see `Namespace.files`."""
        files = await self._namespace.files(task.account, JobWithPods.of(task).pods)
        return [Artifact(name=name, size_bytes=len(files[name])) for name in sorted(files)]

    async def open_artifact(self, task: TaskRecord, name: str) -> AsyncIterator[bytes] | None:
        """One of `artifacts`, as one piece."""
        content = (await self._namespace.files(task.account, JobWithPods.of(task).pods)).get(name)
        return None if content is None else _whole(content)

    # -- callbacks

    async def lease_callbacks(self) -> Sequence[TaskRecord]:
        """The lease is an annotation of the Job: only one of several replicas can set it."""
        now = datetime.now(UTC)
        pending = {}
        for task in self._records(await self._namespace.list_jobs(job_spec.PENDING_SELECTOR)):
            with self._loops.handling(_LEASING, task.task_id):
                job = JobWithPods.of(task).job
                if task.status.ended and job_record.callback_pending(job, now):
                    pending[task.task_id] = task
        oldest_first = sorted(pending.values(), key=lambda task: task.cursor)
        taken = self._leases.take((task.account, task.task_id) for task in oldest_first)
        leased = [await self._lease(pending[task_id], now) for task_id in taken]
        return [task for task in leased if task is not None]

    async def _lease(self, task: TaskRecord, now: datetime) -> TaskRecord | None:
        """Store a lease; None if another replica has it, or the Job cannot be changed now."""
        read = JobWithPods.of(task)
        until = (now + timedelta(seconds=CALLBACK_LEASE_S)).isoformat()
        with self._loops.handling(_LEASING, task.task_id), contextlib.suppress(RunnerUnavailable):
            annotations = {job_spec.LEASED_UNTIL: until}
            updated = await self._namespace.patch_job(read.job, annotations=annotations)
            leased = None if updated is None else job_record.record(updated, read.pods)
            if leased is not None:
                return leased
        self._leases.release(task.task_id)
        return None

    def _records(
        self, jobs: Iterable[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]
    ) -> Sequence[TaskRecord]:
        """The tasks' records, without those of Jobs that are not as the runner creates them."""
        found = []
        for job, pods in jobs:
            with self._loops.handling(_READING, job["metadata"]["name"]):
                task = job_record.record(job, pods)
                if task is not None:
                    found.append(task)
        return found

    async def finish_callback(self, task: TaskRecord) -> None:
        """Change the Job's callback label."""
        job: Mapping[str, Any] | None = JobWithPods.of(task).job
        for _ in range(_PATCH_ATTEMPTS):
            if job is None:
                break
            labels = {job_spec.CALLBACK_LABEL: job_spec.NOTIFIED}
            if await self._namespace.patch_job(job, labels=labels):
                break
            job = await self._namespace.get_job(task.task_id)
        else:
            raise RunnerUnavailable("the Job changed during each attempt to finish its callback")
        self._leases.release(task.task_id)

    # -- repairs

    async def repair(self) -> None:
        """Create Secrets that a killed API process did not, and store why pods wait.

        It returns when that is done, or after a period: an account whose Jobs take longer is then
        left out until they are done.

        Raises:
            RunnerUnavailable: the cluster does not answer; this was reported.
        """
        try:
            jobs = await self._namespace.list_jobs(job_spec.ACCOUNT_LABEL)
        except RunnerUnavailable as error:
            self._availability.lost(str(error))
            raise
        self._availability.found()
        of_account: defaultdict[str, list[tuple[Any, Any]]] = defaultdict(list)
        for job, pods in jobs:
            of_account[labels_of(job).get(job_spec.ACCOUNT_LABEL, "")].append((job, pods))
        for account, own in of_account.items():
            self._rounds.begin(account, partial(self._repair_all, own))
        await self._rounds.wait(REPAIR_S)

    async def _repair_all(self, jobs: Sequence[tuple[Any, Any]]) -> None:
        for job, pods in jobs:
            # A Job that the cluster refuses to change concerns its task only.
            with self._loops.handling("repair", job["metadata"]["name"]):
                try:
                    await self._repair(job, pods)
                except RunnerUnavailable as error:
                    raise JobNotRepaired(str(error)) from error

    async def _repair(self, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> None:
        why = job_record.waiting(job_record.newest(pods))
        if why is None:
            return
        if why["type"] == _KEY_MISSING:
            key = self._stream_key(job["metadata"]["name"])
            await self._namespace.create_key_secret(job, key)
        note = json.dumps(why)
        if annotations_of(job).get(job_spec.WAITING) != note:
            await self._namespace.patch_job(job, annotations={job_spec.WAITING: note})


class JobNotRepaired(Exception):
    """The cluster refused a change of one Job."""


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
