"""The Jobs of a namespace and their pods: made, found, and changed without treading on others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.kubernetes import job as job_spec
from worker.api.runners.kubernetes import job_record
from worker.api.runners.kubernetes.cluster import Cluster, ClusterError
from worker.api.runners.protocol import QueueFull, RunnerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.api.runners.protocol import TaskRecord

    Pods = list[dict[str, Any]]

_RETRY_AFTER_S: Final = 10
_LOG_MAX_BYTES: Final = 16 << 20
_RESULT: Final = "result.json"
_LOG: Final = "pod.log"


class Namespace:
    """What the runner does with its cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def look(self) -> None:
        """Ask for as good as nothing.

        Raises:
            RunnerUnavailable: the cluster does not answer, or does not let us look.
        """
        try:
            await self._cluster.do("list", "jobs", group="batch", query={"limit": "1"})
        except ClusterError as error:
            raise RunnerUnavailable(f"the cluster said: {error}") from error

    # -- Jobs

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a Job, or find the one of that name.

        Raises:
            QueueFull: the namespace's quota allows no more.
        """
        name = body["metadata"]["name"]
        try:
            made: dict[str, Any] = await self._cluster.do(
                "create", "jobs", group="batch", body=body
            )
        except ClusterError as error:
            if error.status == HTTPStatus.CONFLICT:  # an earlier request, or a try of this one
                there = await self.job(name)
                if there is not None:
                    return there
            if "exceeded quota" in str(error):
                raise QueueFull(_RETRY_AFTER_S) from error
            raise RunnerUnavailable(f"the cluster refused the task: {error}") from error
        return made

    async def job(self, name: str) -> dict[str, Any] | None:
        """A Job."""
        try:
            found: dict[str, Any] = await self._cluster.do("get", "jobs", name, group="batch")
        except ClusterError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise RunnerUnavailable(f"the cluster said: {error}") from error
        return found if job_spec.TASK_LABEL in labels_of(found) else None

    async def change(
        self,
        job: Mapping[str, Any],
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change what was just read; False when somebody else changed or removed it meanwhile."""
        metadata: dict[str, Any] = {"resourceVersion": job["metadata"]["resourceVersion"]}
        metadata |= {"annotations": annotations} if annotations else {}
        metadata |= {"labels": labels} if labels else {}
        body = {"metadata": metadata} | ({"spec": spec} if spec else {})
        name = job["metadata"]["name"]
        try:
            await self._cluster.do("patch", "jobs", name, group="batch", body=body)
        except ClusterError as error:
            if error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                return False
            raise RunnerUnavailable(f"the cluster said: {error}") from error
        return True

    async def give_key(self, job: Mapping[str, Any], stream_key: bytes) -> None:
        """Make a Job's Secret, unless it is there."""
        try:
            await self._cluster.do("create", "secrets", body=job_spec.secret(job, stream_key))
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise RunnerUnavailable(f"the cluster refused the Secret: {error}") from error

    # -- with their pods

    async def record(self, job: Mapping[str, Any]) -> TaskRecord:
        """What is known of a Job's task."""
        return job_record.record(job, await self.pods(job["metadata"]["name"]))

    async def all(self, selector: str) -> list[tuple[dict[str, Any], Pods]]:
        """The Jobs with these labels, each with its pods."""
        try:
            there, pods = await asyncio.gather(
                self._cluster.list("jobs", selector, group="batch"),
                self._cluster.list("pods", job_spec.ACCOUNT_LABEL),
            )
        except ClusterError as error:
            raise RunnerUnavailable(f"the cluster said: {error}") from error
        pods_of: defaultdict[str | None, Pods] = defaultdict(list)
        for pod in pods:
            pods_of[labels_of(pod).get(job_spec.TASK_LABEL)].append(pod)
        ours = [job for job in there if job_spec.TASK_LABEL in labels_of(job)]
        return [(job, pods_of[job["metadata"]["name"]]) for job in ours]

    async def pods(self, task_id: str) -> Pods:
        """The pods of a task: one for each try."""
        try:
            pods = await self._cluster.list("pods", f"{job_spec.TASK_LABEL}={task_id}")
        except ClusterError as error:
            raise RunnerUnavailable(f"the cluster said: {error}") from error
        return [pod for pod in pods if labels_of(pod).get(job_spec.TASK_LABEL) == task_id]

    async def files(self, task_id: str) -> dict[str, bytes]:
        """What the cluster keeps: what the worker wrote at its end, and its log."""
        pods = await self.pods(task_id)
        files = {}
        message = job_record.termination_message(pods)
        if message:
            files[_RESULT] = message.encode()
        if pods:
            query = {"container": job_spec.CONTAINER, "limitBytes": str(_LOG_MAX_BYTES)}
            name = job_record.newest(pods)["metadata"]["name"]
            with contextlib.suppress(ClusterError):  # it has not begun, or is gone
                files[_LOG] = await self._cluster.do("get", "pods/log", name, query=query)
        return files


def labels_of(thing: Mapping[str, Any]) -> Mapping[str, str]:
    """An object's labels."""
    labels: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return labels
