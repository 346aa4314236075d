"""The Pod of the Job template, run by `podman kube play`."""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from container_run import END_FILE, SECCOMP
from end_to_end import TARGET, assert_watched_to_the_end
from event_process import EventProcess
from podman import Podman
from required import require
from rfb_client import Closed, Viewer
from viewers import ActiveViewer, mouse_mover
from worker_run import PROGRAMS

from worker.stream import tokens

pytestmark = pytest.mark.timeout(300)  # the image is copied into podman first
JOB = SECCOMP.parent / "k8s" / "task" / "job.yaml"
SEES = ("--input", f"file={END_FILE}")
# podman 4 reads the profile from the annotation that preceded the field in the template.
SECCOMP_ANNOTATION = {"seccomp.security.alpha.kubernetes.io/pod": "localhost/worker.json"}


@pytest.fixture(scope="session")
def podman(image: str) -> Iterator[Podman]:
    """A podman of our own."""
    require("podman", "runc", install="apt-get install podman runc catatonit netavark aardvark-dns")
    own = Podman()
    try:
        yield own
    finally:
        own.remove()


@pytest.fixture(scope="session")
def podman_image(podman: Podman, image: str) -> str:
    """The worker's image in its store."""
    return podman.take(image)


class KubeRun(EventProcess):
    """One Pod of the Job's template, with tests/programs in /work and artifacts on the host."""

    def __init__(
        self, podman: Podman, image: str, folder: Path, *arguments: str, port: int
    ) -> None:
        self.name = f"task-{uuid.uuid4().hex[:8]}"
        self.artifacts = folder / "artifacts"
        self._podman = podman
        self._port = port
        self._key = tokens.random_key()
        self.artifacts.mkdir()
        self.artifacts.chmod(0o777)
        (folder / "seccomp").mkdir()
        shutil.copy(SECCOMP, folder / "seccomp" / "worker.json")
        podman("secret", "create", self.name, "-", stdin=self._secret())
        played = json.dumps(self._pod(image, arguments))
        profiles = ("--seccomp-profile-root", str(folder / "seccomp"))
        podman("kube", "play", *profiles, "-", stdin=played)
        self.container = f"{self.name}-worker"
        super().__init__(
            ["podman", "logs", "--follow", self.container],
            stderr=folder / "stderr",
            env=podman.env,
        )

    def _pod(self, image: str, arguments: tuple[str, ...]) -> dict[str, Any]:
        """The template with an image, arguments, a host's port and folders put in."""
        template = yaml.safe_load(JOB.read_text())["spec"]["template"]
        spec = template["spec"]
        (worker,) = spec["containers"]
        worker |= {"image": image, "args": ["run", *arguments]}
        for variable in worker["env"]:
            if variable["name"] == "WORKER_TASK_ID":
                variable["value"] = self.name
            elif variable["name"] == "WORKER_STREAM_KEY":
                variable["valueFrom"]["secretKeyRef"]["name"] = self.name
        worker["ports"][0] |= {"hostIP": "127.0.0.1", "hostPort": self._port}
        worker["volumeMounts"].append({"name": "tasks", "mountPath": "/work", "readOnly": True})
        kept = [volume for volume in spec["volumes"] if volume["name"] != "artifacts"]
        folders = {"artifacts": self.artifacts, "tasks": PROGRAMS}
        spec["volumes"] = kept + [
            {"name": name, "hostPath": {"path": str(path)}} for name, path in folders.items()
        ]
        spec["hostname"] = self.name
        metadata = {**template["metadata"], "name": self.name, "annotations": SECCOMP_ANNOTATION}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _secret(self) -> str:
        data = {"stream_key": base64.b64encode(self._key.hex().encode()).decode()}
        if self._podman.version < (4, 5):
            return json.dumps(data)
        metadata = {"name": self.name}
        return json.dumps(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
        )

    def stream_url(self) -> str:
        """A fresh URL."""
        token = tokens.mint(self._key, self.name)
        return tokens.stream_url(f"ws://127.0.0.1:{self._port}", self.name, token)

    def end_task(self, word: str) -> None:
        """Write the word into END_FILE."""
        (self.artifacts / "end").write_text(word)

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`."""
        content: dict[str, Any] = json.loads((self.artifacts / "result.json").read_text())
        return content

    def wait(self, *, timeout_s: float = 30) -> int:
        """Wait for the container's end; its exit code."""
        super().wait(timeout_s=timeout_s)
        return int(self._podman("wait", self.container))

    def remove(self) -> None:
        """End and remove it."""
        self._podman("pod", "rm", "--force", self.name, check=False)
        self._podman("secret", "rm", self.name, check=False)
        self.end()


@pytest.fixture
def pod(
    podman: Podman, podman_image: str, tmp_path: Path, free_port: int
) -> Iterator[Callable[..., KubeRun]]:
    """Play the Job's Pod."""
    runs: list[KubeRun] = []

    def start(*arguments: str) -> KubeRun:
        runs.append(KubeRun(podman, podman_image, tmp_path, *arguments, port=free_port))
        return runs[0]

    yield start
    for each in runs:
        each.remove()


def test_end_to_end(pod):
    """A task is watched to its end in the Job's Pod, sandboxed, with room in /dev/shm."""
    run = pod(TARGET, *SEES)
    assert_watched_to_the_end(run)
    assert not [e for e in run.events if e["event"] in {"sandbox.disabled", "shm.avoided"}]


def test_stop(pod, podman):
    """A Pod that is deleted ends as cancelled within its grace period, and its viewers get 1000."""
    run = pod(TARGET, *SEES)
    run.event("task.started")
    watcher = ActiveViewer(mouse_mover, Viewer.connect(run.stream_url()))
    watcher.wait_ready(20)
    podman("stop", "--time", "10", run.container)  # as a kubelet does: the Pod's network stays
    assert watcher.result(5) == Closed(1000, "task cancelled")
    assert run.wait() == 143
