"""The kubernetes runner with the fake API server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import kmock
import pytest
from contract.backend import ERROR, OUTPUT, STREAM_KEY, Backend, Left
from fake_cluster import NAMESPACE, FakeCluster, kubeconfig

from worker.api.runners.kubernetes import runner as kubernetes_runner
from worker.api.runners.kubernetes.runner import KubernetesRunner
from worker.api.runners.protocol import Runner, TaskRecord, TaskStatus
from worker.settings import load
from worker.settings.kubernetes import KubernetesSettings

LOG = b'{"event": "worker.started"}\n'
RUNNING = {"running": {"startedAt": "2026-01-02T03:04:06Z"}}
READY = [{"type": "Ready", "status": "True"}]


class KubernetesBackend(Backend):
    """An API server; the test does what a Job's controller and the kubelet do."""

    runner: KubernetesRunner
    result_max_bytes = 4096  # of a termination message
    repairs = ("Latin-1", "encoded surrogate")  # the kubelet replaces what is not UTF-8

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.cluster = FakeCluster()
        self.monkeypatch = monkeypatch
        self.folder = folder
        self.serving = AsyncExitStack()
        self.is_serving = False

    async def open(self, *, account_max_queued: int = 10, **_: int) -> Runner:
        """The other limits are the cluster's: see `fill_queue`."""
        if not self.is_serving:
            await self.serving.enter_async_context(self.cluster)
            server = await self.serving.enter_async_context(kmock.Server(self.cluster))
            file = kubeconfig(self.folder, str(server.url).rstrip("/"))
            self.monkeypatch.setenv("KUBECONFIG", str(file))
            self.is_serving = True
        self.runner = await self.replica(account_max_queued=account_max_queued)
        return self.runner

    async def replica(self, **options: Any) -> KubernetesRunner:
        """Another runner on the cluster, as another API process has it; open."""
        chosen = load(KubernetesSettings, options, environ={})
        made = kubernetes_runner.make(chosen, lambda _: STREAM_KEY)
        await made.open()
        return made

    async def reopen(self) -> Runner:
        await self.runner.close()
        return await self.open()

    async def close(self) -> None:
        await self.runner.close()
        await self.serving.aclose()

    async def run_unready(self, task: TaskRecord) -> None:
        self.cluster.set_pod(task.task_id, RUNNING, podIP="10.1.2.3")

    async def run(self, task: TaskRecord) -> None:
        self.cluster.set_pod(task.task_id, RUNNING, podIP="10.1.2.3", conditions=READY)

    async def end(self, task: TaskRecord, status: TaskStatus) -> None:
        success = status is TaskStatus.SUCCESS
        code = 0 if success else 1
        result = {
            "status": str(status),
            "exit_code": code,
            "output": OUTPUT if success else None,
            "error": None if success else ERROR,
        }
        terminated = {
            "exitCode": code,
            "reason": "Completed" if success else "Error",
            "startedAt": "2026-01-02T03:04:06Z",
            "finishedAt": "2026-01-02T03:05:06Z",
            "message": json.dumps(result),
        }
        self.cluster.set_pod(task.task_id, {"terminated": terminated})
        self.cluster.end_job(task.task_id, "Complete" if success else "Failed")

    async def end_with(self, ends: Mapping[str, tuple[TaskRecord, Left]]) -> None:
        for task, left in ends.values():
            # The kubelet reads a regular file, and replaces what is not UTF-8.
            content = left[: self.result_max_bytes] if isinstance(left, bytes) else b""
            terminated = {
                "exitCode": 1,
                "reason": "Error",
                "startedAt": "2026-01-02T03:04:06Z",
                "finishedAt": "2026-01-02T03:05:06Z",
                "message": content.decode(errors="replace"),
            }
            self.cluster.set_pod(task.task_id, {"terminated": terminated})
            self.cluster.end_job(task.task_id, "Failed", "PodFailurePolicy")

    def finish_cancel(self, task: TaskRecord) -> None:
        self.cluster.remove_pod(task.task_id)
        self.cluster.end_job(task.task_id, "Failed", "DeadlineExceeded")

    def finish_remove(self, task: TaskRecord) -> None:
        self.cluster.remove_expired_job(task.task_id)

    async def write_files(self, task: TaskRecord) -> dict[str, bytes]:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{task.task_id}-abcde/log"
        self.cluster[path] << LOG  # the way of kmock
        return {"pod.log": LOG}

    def fill_queue(self) -> None:
        self.cluster.refuse("create", "jobs", 403, 'jobs.batch "x" is forbidden: exceeded quota')

    def lose(self) -> None:
        self.cluster.refuse("*", "*", 503)

    async def start_spoiled(self) -> TaskRecord:
        """Another program has changed its Job's annotations; it waits for its Secret."""
        task = await self.start()
        self.cluster.annotate(task.task_id, created_at="odd", callback_leased_until="odd")
        reason = {"waiting": {"reason": "CreateContainerConfigError", "message": "no Secret"}}
        self.cluster.set_pod(task.task_id, reason)
        return task
