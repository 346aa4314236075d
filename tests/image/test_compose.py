"""The gateway and tasks of docker/compose.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container_run import END_FILE, SECCOMP, compose_command, docker
from end_to_end import TARGET, assert_watched_to_the_end
from event_process import EventProcess
from rfb_client import Closed, Viewer
from viewers import ActiveViewer, mouse_mover
from worker_run import PROGRAMS

from worker.stream import tokens

SECRET = "a master secret of the fleet that is long enough"
FOLDER = SECCOMP.parent  # where Compose runs: version 1 looks for the profile there
SEES = ("--input", f"file={END_FILE}")


class ComposeRun(EventProcess):
    """`docker compose run` of one task, in a project of its own."""

    def __init__(self, image: str, folder: Path, *arguments: str, port: int) -> None:
        self.task_id = str(uuid.uuid4())
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir()
        self.artifacts.chmod(0o777)
        self._port = port
        project = f"worker-test-{uuid.uuid4().hex[:8]}"
        self._compose = [*compose_command(), "--project-name", project]
        self._env = os.environ | {
            "WORKER_STREAM_SECRET": SECRET,
            "IMAGE": image,
            "GATEWAY_PORT": str(port),
            "NETWORK": project,
            "TASKS": str(PROGRAMS),
            "ARTIFACTS": str(self.artifacts),
        }
        self._do("up", "--detach", "--no-build", "gateway")
        command = ["run", "-T", "--rm", "--name", self.task_id, "task"]
        command += ["run", "--task-id", self.task_id, *arguments]
        super().__init__(
            [*self._compose, *command], stderr=folder / "stderr", env=self._env, cwd=FOLDER
        )

    def _do(self, *command: str) -> None:
        argv = [*self._compose, *command]
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, env=self._env, cwd=FOLDER
        )
        assert done.returncode == 0, done.stderr

    def stream_url(self) -> str:
        """A fresh URL, at the gateway."""
        token = tokens.mint(tokens.derive_key(SECRET.encode(), self.task_id), self.task_id)
        return tokens.stream_url(f"ws://localhost:{self._port}", self.task_id, token)

    def end_task(self, word: str) -> None:
        """Write the word into END_FILE."""
        (self.artifacts / "end").write_text(word)

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`."""
        content: dict[str, Any] = json.loads((self.artifacts / "result.json").read_text())
        return content

    def remove(self) -> None:
        """End the task and take everything down."""
        docker("rm", "--force", self.task_id, check=False)
        self.end()
        self._do("down", "--volumes", "--timeout", "5")


@pytest.fixture
def composed(image: str, gateway_image: str, tmp_path: Path, free_port: int) -> Iterator[Any]:
    """Run one task beside its gateway."""
    runs: list[ComposeRun] = []

    def start(*arguments: str) -> ComposeRun:
        runs.append(ComposeRun(image, tmp_path, *arguments, port=free_port))
        return runs[0]

    yield start
    for each in runs:
        each.remove()


def test_end_to_end(composed):
    """A task is watched to its end through the gateway; sandboxed, and with room in /dev/shm."""
    run = composed(TARGET, *SEES)
    assert_watched_to_the_end(run)
    assert not [e for e in run.events if e["event"] in {"sandbox.disabled", "shm.avoided"}]


def test_stop(composed):
    """`docker stop` of the task: 1000 through the gateway, and exit code 143."""
    run = composed(TARGET, *SEES)
    run.event("task.started")
    watcher = ActiveViewer(mouse_mover, Viewer.connect(run.stream_url()))
    watcher.wait_ready(20)
    docker("stop", "--time", "5", run.task_id)
    assert watcher.result(5) == Closed(1000, "task cancelled")
    assert run.wait() == 143
