"""The Jobs of a namespace and their pods: created, read, and updated with preconditions."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.kubernetes import job_record, job_spec
from worker.api.runners.kubernetes.cluster import Cluster, ClusterError
from worker.api.runners.kubernetes.job_record import labels_of
from worker.api.runners.protocol import QueueFull, RunnerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.api.runners.protocol import TaskRecord

    Pods = list[dict[str, Any]]

_RETRY_AFTER_S: Final = 10
_LOG_MAX_BYTES: Final = 16 << 20
_QUOTA_EXCEEDED: Final = "exceeded quota"
_RESULT: Final = "result.json"
_LOG: Final = "pod.log"


class Namespace:
    """The runner's operations on its namespace; each may raise RunnerUnavailable."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def check_access(self) -> None:
        """Raise RunnerUnavailable unless the cluster answers and allows to list Jobs."""
        try:
            await self._cluster.request("list", "jobs", group="batch", query={"limit": "1"})
        except ClusterError as error:
            raise _unavailable(error) from error

    # -- Jobs

    async def create_job(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Create a Job; the Job, and whether it is new: one of that name may exist.

        Raises:
            QueueFull: the namespace's quota allows no further Job.
        """
        try:
            created: dict[str, Any] = await self._cluster.request(
                "create", "jobs", group="batch", body=body
            )
        except ClusterError as error:
            full = _QUOTA_EXCEEDED in str(error)
            # A conflict: an earlier request, or an attempt of this one whose answer was lost. The
            # quota is checked before the name.
            if full or error.status == HTTPStatus.CONFLICT:
                existing = await self.get_job(body["metadata"]["name"])
                if existing is not None:
                    return existing, False
            if full:
                raise QueueFull(_RETRY_AFTER_S) from error
            raise RunnerUnavailable(f"the cluster refused the task: {error}") from error
        return created, True

    async def get_job(self, name: str) -> dict[str, Any] | None:
        """A task's Job; None if there is none."""
        try:
            found: dict[str, Any] = await self._cluster.request("get", "jobs", name, group="batch")
        except ClusterError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise _unavailable(error) from error
        return found if job_spec.TASK_LABEL in labels_of(found) else None

    async def patch_job(
        self,
        job: Mapping[str, Any],
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Update a Job with a resourceVersion precondition.

        Returns the Job as it is now; None if it was changed or deleted since `job` was read.
        """
        metadata: dict[str, Any] = {"resourceVersion": job["metadata"]["resourceVersion"]}
        metadata |= {"annotations": annotations} if annotations else {}
        metadata |= {"labels": labels} if labels else {}
        body = {"metadata": metadata} | ({"spec": spec} if spec else {})
        name = job["metadata"]["name"]
        try:
            updated: dict[str, Any] = await self._cluster.request(
                "patch", "jobs", name, group="batch", body=body
            )
        except ClusterError as error:
            if error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                return None
            raise _unavailable(error) from error
        return updated

    async def create_key_secret(self, job: Mapping[str, Any], stream_key: bytes) -> None:
        """Create a Job's Secret, unless it exists."""
        body = job_spec.stream_key_secret(job, stream_key)
        try:
            await self._cluster.request("create", "secrets", body=body)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise RunnerUnavailable(f"the cluster refused the Secret: {error}") from error

    # -- Jobs with their pods

    async def record(self, job: Mapping[str, Any]) -> TaskRecord | None:
        """The record of a Job's task; lists the pods. None if the runner did not create the Job."""
        return job_record.record(job, await self._pods(job["metadata"]["name"]))

    async def list_jobs(self, selector: str) -> list[tuple[dict[str, Any], Pods]]:
        """The tasks' Jobs that a label selector matches, each with its pods."""
        # Of one account's Jobs, the pods of others are not read: there may be many.
        of_pods = selector if selector.startswith(job_spec.ACCOUNT_LABEL) else None
        try:
            jobs, pods = await asyncio.gather(
                self._cluster.list("jobs", selector, group="batch"),
                self._cluster.list("pods", of_pods or job_spec.ACCOUNT_LABEL),
            )
        except ClusterError as error:
            raise _unavailable(error) from error
        pods_of: defaultdict[str | None, Pods] = defaultdict(list)
        for pod in pods:
            pods_of[labels_of(pod).get(job_spec.TASK_LABEL)].append(pod)
        tasks = [job for job in jobs if job_spec.TASK_LABEL in labels_of(job)]
        return [(job, pods_of[job["metadata"]["name"]]) for job in tasks]

    async def _pods(self, task_id: str) -> Pods:
        """A task's pods: one for each attempt."""
        try:
            pods = await self._cluster.list("pods", f"{job_spec.TASK_LABEL}={task_id}")
        except ClusterError as error:
            raise _unavailable(error) from error
        return [pod for pod in pods if labels_of(pod).get(job_spec.TASK_LABEL) == task_id]

    async def files(self, account: str, pods: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
        """The artifacts that the cluster stores: the worker's result and the pod's log."""
        files = {}
        message = job_record.termination_message(pods)
        if message:
            files[_RESULT] = message.encode(errors="replace")
        if pods:
            query = {"container": job_spec.CONTAINER, "limitBytes": str(_LOG_MAX_BYTES)}
            name = job_record.newest(pods)["metadata"]["name"]
            with contextlib.suppress(ClusterError):  # the container has not started, or is deleted
                files[_LOG] = await self._cluster.log(account, name, query)
        return files


def _unavailable(error: ClusterError) -> RunnerUnavailable:
    return RunnerUnavailable(f"the cluster answered with an error: {error}")
