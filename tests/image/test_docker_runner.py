"""`worker serve` with the docker runner on the real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from container_run import END_FILE, Gateway, docker
from end_to_end import assert_watched_to_the_end
from event_process import EventProcess
from rfb_client import Closed, Viewer
from viewers import ActiveViewer, mouse_mover
from worker_run import PROGRAMS, eventually
from worker_serve import WorkerServe

NOT_RUNNING = {"detail": "Stream not available: task is not running"}
SEES = {"file": END_FILE}


@pytest.fixture
def network(gateway: Gateway) -> Iterator[str]:
    """The gateway's network; tasks' containers are removed after the test."""
    yield gateway.network
    label = f"label=worker.network={gateway.network}"
    left = docker("ps", "--all", "--quiet", "--filter", label).split()
    if left:
        docker("rm", "--force", "--volumes", *left)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the container's user can read."""
    made = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


Start = Callable[..., WorkerServe]


@pytest.fixture
def serve(image: str, gateway: Gateway, network: str, folder: Path) -> Iterator[Start]:
    """Start API processes on one engine, one after the other."""
    endpoints = folder / "endpoints"
    endpoints.mkdir()
    shutil.copy(PROGRAMS / "tasks.py", endpoints)
    (endpoints / "seen.py").write_text("from tasks import until_with_page as run\n")
    (endpoints / "exits.py").write_text("import os\n\n\ndef run():\n    os._exit(7)\n")
    apis: list[WorkerServe] = []

    def start(**env: str) -> WorkerServe:
        environ = {
            "WORKER_RUNNER": "docker",
            "WORKER_IMAGE": image,
            "WORKER_NETWORK": network,
            "WORKER_STREAM_BASE_URL": gateway.url,
            "WORKER_ENDPOINTS_DIR": str(endpoints),
        }
        api = WorkerServe(folder / f"api-{len(apis)}", environ | env)
        apis.append(api)
        api.start()
        api.sign_in()
        return api

    yield start
    for each in apis:
        each.end()


class ApiTask(EventProcess):
    """A task of the API, and its container's log."""

    def __init__(self, api: WorkerServe, **inputs: Any) -> None:
        self.api = api
        self.task_id = api.start_task("seen", input_parameters=inputs)
        api.wait_for_status(self.task_id, "running")
        argv = ["docker", "logs", "--follow", self.task_id]
        super().__init__(argv, stderr=api.folder / f"{self.task_id}.stderr")

    def stream_url(self) -> str:
        """A new stream URL, as a dashboard gets it."""
        url: str = self.api.get(f"/tasks/{self.task_id}/stream").json()["stream_url"]
        return url

    def end_task(self, word: str) -> None:
        """Write the word into the file that the task reads."""
        docker("exec", self.task_id, "sh", "-c", f"echo -n {word} > {END_FILE}")

    def wait(self, *, timeout_s: float = 30) -> int:
        """The exit code that the API reports."""
        super().wait(timeout_s=timeout_s)
        ended = self.api.wait_for_status(self.task_id, "success", "failed", "cancelled")
        return int(ended["exit_code"])

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`, downloaded from the API."""
        result: dict[str, Any] = self.api.get(f"/tasks/{self.task_id}/artifacts/result.json").json()
        return result


def test_end_to_end(serve, gateway):
    """POST, running, URL, pixels, 1000, result; a second task is cancelled under its viewer."""
    api = serve()
    task = ApiTask(api, **SEES)
    assert task.event("stream.ready")
    assert task.stream_url().startswith(f"{gateway.url}/tasks/{task.task_id}/websockify?token=")
    docker("exec", task.task_id, "sh", "-c", "echo -n odd > '/artifacts/two\nlines'")
    assert_watched_to_the_end(task)
    assert api.get(f"/tasks/{task.task_id}/stream").json() == NOT_RUNNING
    told = api.task(task.task_id)
    assert (told["status"], told["output"]) == ("success", [1920, 1080, 1920, 1080])
    files = api.get(f"/tasks/{task.task_id}/artifacts").json()["artifacts"]
    assert {"result.json", "task.log", "end", "two\nlines"} <= {file["name"] for file in files}
    assert api.get(f"/tasks/{task.task_id}/artifacts/end").content == b"end"
    assert api.get(f"/tasks/{task.task_id}/artifacts/two%0Alines").content == b"odd"

    second = ApiTask(api, **SEES)
    second.event("task.started")
    viewer = ActiveViewer(mouse_mover, Viewer.connect(second.stream_url()))
    viewer.wait_ready(20)
    assert api.post(f"/tasks/{second.task_id}/cancel").status_code == 202
    assert viewer.result(20) == Closed(1000, "task cancelled")
    assert second.wait() == 143
    assert api.task(second.task_id)["status"] == "cancelled"


def test_queue_outlives_the_api(serve):
    """Tasks that are queued when the API is killed are started by the next one, oldest first."""
    first = serve(WORKER_MAX_RUNNING="1")
    running = first.start_task("seen", input_parameters=SEES)
    first.wait_for_status(running, "running")
    waiting = [first.start_task("seen", input_parameters=SEES) for _ in range(2)]
    first.kill()
    second = serve(WORKER_MAX_RUNNING="1", WORKER_STATE_DIR=str(first.state))
    assert second.task(running)["status"] == "running"
    assert [second.task(each)["status"] for each in waiting] == ["queued", "queued"]
    assert second.post(f"/tasks/{waiting[0]}/cancel").status_code == 202
    assert second.task(waiting[0])["status"] == "cancelled"
    second.post(f"/tasks/{running}/cancel")
    second.wait_for_status(running, "cancelled")
    second.wait_for_status(waiting[1], "running")
    second.post(f"/tasks/{waiting[1]}/cancel")
    second.wait_for_status(waiting[1], "cancelled")
    assert second.task(waiting[0])["started_at"] is None


def test_failures(serve):
    """A task's process that exits without a result has failed with its exit code."""
    api = serve()
    task = api.start_task("exits")
    told = api.wait_for_status(task, "failed")
    assert (told["exit_code"], told["error"]["type"]) == (7, "Exited")


def test_retention(serve):
    """An expired task's container and volume are removed, and the task is not found."""
    first = serve()
    task = first.start_task("exits")
    first.wait_for_status(task, "failed")
    inspected = "{{range .Mounts}}{{.Name}} {{end}}"
    volume = docker("inspect", "--format", inspected, task).split()[0]
    first.kill()
    second = serve(WORKER_RETENTION_S="0.1", WORKER_STATE_DIR=str(first.state))
    eventually(lambda: second.get(f"/tasks/{task}").status_code == 404, timeout_s=30)
    assert not docker("volume", "ls", "--quiet", "--filter", f"name={volume}")


def test_unstartable(serve):
    """A container that the engine cannot start has failed with the engine's reason."""
    api = serve(WORKER_DOCKER_ENDPOINTS=f"/nowhere/{uuid.uuid4()}")
    answer = api.post("/inference", {"endpoint_name": "exits"})
    if answer.status_code == 202:
        told = api.wait_for_status(answer.json()["task_id"], "failed")
        assert "/nowhere/" in told["error"]["message"]
    else:  # the engine checks mounts at the creation
        assert answer.status_code == 503
        assert "/nowhere/" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"DOCKER_HOST": "unix:///nowhere.sock"}, "no Docker engine answers at"),
        ({"WORKER_IMAGE": "no-such-image"}, "has no image 'no-such-image'"),
        ({"WORKER_NETWORK": "no-such-network"}, "has no network 'no-such-network'"),
        ({"WORKER_SECCOMP_FILE": "/nowhere"}, "WORKER_SECCOMP_FILE"),
    ],
)
def test_refuses_to_start(image, network, folder, env, why):
    """A missing requirement is a one-line error at the start."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    environ |= {"WORKER_RUNNER": "docker", "WORKER_IMAGE": image, "WORKER_NETWORK": network}
    environ |= {"WORKER_STATE_DIR": str(folder), "WORKER_API_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "serve"],
        env=environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 64
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
