"""The kubernetes runner: a Job per task, and no memory but the cluster's.

So any number of replicas may run. The cluster is the queue. A task is cancelled by a deadline of
one second on its Job: the Job's controller then deletes the pod with its grace period and keeps the
Job, by which the cancelled task is still found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from worker.api.runners import container_worker
from worker.api.runners.availability import Availability
from worker.api.runners.kubernetes import job as job_spec
from worker.api.runners.kubernetes import job_record
from worker.api.runners.kubernetes.cluster import Cluster
from worker.api.runners.kubernetes.job import Template
from worker.api.runners.kubernetes.namespace import Namespace, labels_of
from worker.api.runners.protocol import (
    CALLBACK_LEASE_S,
    Artifact,
    Cursor,
    RunnerUnavailable,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)
from worker.errors import SettingError
from worker.events import Events
from worker.net import netloc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker.api.runners.protocol import StreamKey
    from worker.settings.kubernetes import KubernetesSettings

_REPAIR_S: Final = 10.0
_CANCEL_TRIES: Final = 5
_WITHOUT_KEY: Final = "CreateContainerConfigError"


def make(settings: KubernetesSettings, stream_key: StreamKey) -> KubernetesRunner:
    """Make the runner; `open` connects to the cluster.

    Raises:
        SettingError: the Job's template cannot be used.
    """
    file = settings.job_template or container_worker.SOURCE_TREE / "docker/k8s/task/job.yaml"
    try:
        manifest = job_spec.template_of(file.read_bytes(), file)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"WORKER_JOB_TEMPLATE: {error}; name a Job like docker/k8s/task/job.yaml"
        ) from error
    mounted = settings.endpoints_dir is not None
    if mounted and not job_spec.mounts_endpoints(manifest):
        raise SettingError(
            f"WORKER_JOB_TEMPLATE: the Job in {file} has no volume mounted at "
            f"{container_worker.ENDPOINTS_PATH}, where its worker looks for the endpoints"
        )
    template = Template(
        manifest=manifest,
        image=settings.image,
        environ=container_worker.common(os.environ),
        mounted=mounted,
    )
    availability = Availability(Events(None).emit)
    return KubernetesRunner(template, stream_key, settings.kubernetes_namespace, availability)


class KubernetesRunner:
    """Tasks as Jobs of one namespace."""

    def __init__(
        self,
        template: Template,
        stream_key: StreamKey,
        namespace: str | None,
        availability: Availability,
    ) -> None:
        self._template = template
        self._stream_key = stream_key
        self._name = namespace
        self._availability = availability
        self._cluster: Cluster  # from `open` on, and so the next
        self._namespace: Namespace
        self._repairing: asyncio.Task[None]

    # -- life

    async def open(self) -> None:
        """Meet the cluster.

        Raises:
            SettingError: there is none, or it does not let us.
        """
        self._cluster = await asyncio.to_thread(Cluster, self._name)
        self._namespace = Namespace(self._cluster)
        try:
            await self._namespace.look()
        except RunnerUnavailable as error:
            self._cluster.close()
            raise SettingError(f"WORKER_RUNNER=kubernetes: {error}") from error
        self._repairing = asyncio.create_task(self._keep_repairing())

    async def close(self) -> None:
        """Leave the Jobs alone."""
        self._repairing.cancel()
        await asyncio.wait([self._repairing])
        self._cluster.close()

    async def ready(self) -> bool:
        """Whether the cluster answers, and lets us look."""
        with contextlib.suppress(RunnerUnavailable):
            await self._namespace.look()
            return True
        return False

    # -- tasks

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Create the Job, then its Secret, without which its pod waits."""
        job = await self._namespace.create(self._template.job(request))
        with contextlib.suppress(RunnerUnavailable):  # the Job is there: `repair` makes it good
            await self._namespace.give_key(job, self._stream_key(request.task_id))
        return await self._namespace.record(job)

    async def cancel(self, task_id: str) -> None:
        """Give the Job a deadline that is over, and note in it why."""
        for _ in range(_CANCEL_TRIES):
            job = await self._namespace.job(task_id)
            if job is None or job_spec.CANCELLED_AT in job["metadata"]["annotations"]:
                return
            if (await self._namespace.record(job)).status.ended:
                return
            notes = {job_spec.CANCELLED_AT: datetime.now(UTC).isoformat()}
            spec = {"activeDeadlineSeconds": 1}
            if await self._namespace.change(job, annotations=notes, spec=spec):
                return
        raise RunnerUnavailable("the Job changed again and again while it was cancelled")

    async def find(self, account: str, task_id: str) -> TaskRecord | None:
        """One question for none and for another's task alike."""
        job = await self._namespace.job(task_id)
        if job is None or labels_of(job)[job_spec.ACCOUNT_LABEL] != account:
            return None
        return await self._namespace.record(job)

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """All of the account's: the cluster cannot sort."""
        there = await self._namespace.all(f"{job_spec.ACCOUNT_LABEL}={account}")
        found = [
            known
            for known in (job_record.record(job, pods) for job, pods in there)
            if known.account == account
            and status in (None, known.status)
            and (before is None or _place(known) < before)
        ]
        return sorted(found, key=_place, reverse=True)[:limit]

    async def counts(self) -> dict[TaskStatus, int]:
        """Count them all."""
        there = await self._namespace.all(job_spec.ACCOUNT_LABEL)
        return dict(Counter(job_record.record(job, pods).status for job, pods in there))

    # -- streams and artifacts

    async def stream_address(self, task_id: str) -> str | None:
        """The pod's own address, once its probe of /readyz succeeds."""
        pod = job_record.newest(await self._namespace.pods(task_id))
        if not job_record.is_ready(pod):
            return None
        return f"ws://{netloc(pod['status']['podIP'], container_worker.STREAM_PORT)}"

    async def artifacts(self, task_id: str) -> Sequence[Artifact]:
        """What the cluster keeps of it, which is little: see `Namespace.files`."""
        files = await self._namespace.files(task_id)
        return [Artifact(name=name, size_bytes=len(files[name])) for name in sorted(files)]

    async def open_artifact(self, task_id: str, name: str) -> AsyncIterator[bytes] | None:
        """One of them."""
        content = (await self._namespace.files(task_id)).get(name)
        return None if content is None else _whole(content)

    # -- callbacks

    async def callbacks_due(self) -> Sequence[TaskRecord]:
        """Leased in the Job itself: of two replicas that want it, one loses."""
        now = datetime.now(UTC)
        notes = {job_spec.LEASED_UNTIL: (now + timedelta(seconds=CALLBACK_LEASE_S)).isoformat()}
        lent = []
        for job, pods in await self._namespace.all(f"{job_spec.CALLBACK_LABEL}={job_spec.OWED}"):
            known = job_record.record(job, pods)
            if not known.status.ended or not job_record.callback_owed(job, now):
                continue
            if await self._namespace.change(job, annotations=notes):
                lent.append(known)
        return lent

    async def callback_settled(self, task_id: str) -> None:
        """Say so in its label."""
        for _ in range(_CANCEL_TRIES):
            job = await self._namespace.job(task_id)
            if job is None:
                return
            if await self._namespace.change(job, labels={job_spec.CALLBACK_LABEL: job_spec.TOLD}):
                return

    # -- repairs

    async def _keep_repairing(self) -> None:
        while True:
            with self._availability.tried():
                await self.repair()
            await asyncio.sleep(_REPAIR_S)

    async def repair(self) -> None:
        """Make Secrets that an API did not live to make, and note why pods wait, while they do."""
        for job, pods in await self._namespace.all(job_spec.ACCOUNT_LABEL):
            why = job_record.waiting(job_record.newest(pods))
            if why is None:
                continue
            if why["type"] == _WITHOUT_KEY:
                await self._namespace.give_key(job, self._stream_key(job["metadata"]["name"]))
            note = json.dumps(why)
            if job["metadata"]["annotations"].get(job_spec.WAITING) != note:
                await self._namespace.change(job, annotations={job_spec.WAITING: note})


def _place(known: TaskRecord) -> Cursor:
    return Cursor(created_at=known.created_at, task_id=known.task_id)


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
