"""The runner contract on the real Docker engine; tests/contract has the tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from container_run import docker
from contract.backend import STREAM_KEY, Backend

# The tests that need no control over readiness and no engine that fails.
from contract.test_runner import (  # noqa: F401
    test_callbacks,
    test_cancel_queued,
    test_cancel_running,
    test_concurrent_leases,
    test_failure_and_artifacts,
    test_find_by_account,
    test_full_queue,
    test_list,
    test_list_of_equal_times,
    test_start,
    test_start_again,
    test_start_concurrently,
    test_status_filter_and_counts,
    test_success,
)

from worker.api.runners.docker.container_spec import ContainerSpec, seccomp_profile
from worker.api.runners.docker.runner import DockerRunner
from worker.api.runners.docker.watchdog import Limits
from worker.api.runners.fairness import Capacity
from worker.api.runners.protocol import Runner, TaskRecord, TaskRequest, TaskStatus

PROGRAMS = Path(__file__).parents[1] / "contract/programs"
GATE = "/tmp/gate"  # in the container
HOSTILE = "ln -s /etc/passwd link; ln -s /etc up; mkfifo fifo; echo x > .hidden"


class EngineBackend(Backend):
    """Containers of the built image in the gateway's network."""

    def __init__(self, image: str, network: str, folder: Path) -> None:
        self.image, self.network = image, network
        self.endpoints = folder / "endpoints"
        shutil.copytree(PROGRAMS, self.endpoints)

    async def open(
        self, *, max_running: int = 2, queue_max: int = 10, account_max_queued: int = 10
    ) -> Runner:
        self.runner = DockerRunner(
            spec=ContainerSpec(
                image=self.image,
                network=self.network,
                endpoints=str(self.endpoints),
                seccomp=seccomp_profile(None),
                memory_bytes=3 << 30,
                environ={},
            ),
            stream_key=lambda _: STREAM_KEY,
            capacity=Capacity(
                max_running=max_running,
                queue_max=queue_max,
                account_max_queued=account_max_queued,
            ),
            retention_s=0,
            limits=Limits(),
            report=lambda *_, **__: None,
        )
        await self.runner.open()
        return self.runner

    async def close(self) -> None:
        await self.runner.close()
        label = f"label=worker.network={self.network}"
        if left := docker("ps", "--all", "--quiet", "--filter", label).split():
            docker("rm", "--force", "--volumes", *left)

    def request(self, **fields: Any) -> TaskRequest:
        return super().request(**{"inputs": {"gate": GATE, "city": "Zürich"}} | fields)

    async def run(self, task: TaskRecord) -> None:
        running = await self.wait_for_status(task, TaskStatus.RUNNING)
        while await self.runner.stream_address(running) is None:
            running = await self.wait_for_status(task, TaskStatus.RUNNING)

    async def end(self, task: TaskRecord, status: TaskStatus) -> None:
        word = "go" if status is TaskStatus.SUCCESS else "fail"
        docker("exec", task.task_id, "sh", "-c", f"echo -n {word} > {GATE}")

    async def write_files(self, task: TaskRecord) -> dict[str, bytes]:
        script = f"cd /artifacts; echo -n 'a note' > note.txt; mkdir deep; {HOSTILE}"
        docker("exec", task.task_id, "sh", "-c", f"{script}; echo -n y > deep/er.bin")
        return {"note.txt": b"a note", "deep/er.bin": b"y"}


@pytest.fixture
async def backend(image, gateway) -> AsyncIterator[Backend]:
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    folder.chmod(0o755)  # for the container's user
    made = EngineBackend(image, gateway.network, folder)
    yield made
    await made.close()
    shutil.rmtree(folder)
