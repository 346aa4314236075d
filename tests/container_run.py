"""`worker run` in a container, as users start it: `docker run` in the foreground."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from event_process import PATIENCE_S, EventProcess
from required import skip_or_fail
from worker_run import PROGRAMS

from worker.stream import tokens

PORT = 6080
SECCOMP = Path(__file__).parents[1] / "docker" / "seccomp.json"
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    f"--security-opt=seccomp={SECCOMP}",
    "--shm-size=1g",
)
END_FILE = "/artifacts/end"  # what tests/programs/tasks.py:until_with_page waits for


def docker(*arguments: str, check: bool = True, with_stderr: bool = False) -> str:
    """Run a docker command; return its stdout, with `with_stderr` its stderr too."""
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}")
    return (done.stdout + done.stderr * with_stderr).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway."""

    name: str  # of its container
    network: str  # where it finds workers by their names
    address: str  # 127.0.0.1:PORT

    @property
    def url(self) -> str:
        """What a stream's URL begins with."""
        return f"ws://{self.address}"


class ContainerRun(EventProcess):
    """One container with one task, tests/programs in /work and a folder of the host's as artifacts.

    Attributes:
        task_id: also the container's name.
        artifacts: the folder, on the host.
    """

    def __init__(
        self,
        image: str,
        folder: Path,
        *arguments: str,
        options: Sequence[str] = (),
        gateway_url: str | None = None,
    ) -> None:
        """Start the container.

        Args:
            image: the image.
            folder: for its artifacts and its stderr.
            arguments: of `worker run`.
            options: of `docker run`.
            gateway_url: where viewers connect; default: the container's own port, published.
        """
        self.task_id = str(uuid.uuid4())
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir(parents=True)
        self.artifacts.chmod(0o777)  # for any --user of the container
        self._key = tokens.random_key()
        self._gateway_url = gateway_url
        argv = ["docker", "run", "--name", self.task_id, "--env", "WORKER_STREAM_KEY"]
        argv += ["--volume", f"{PROGRAMS}:/work:ro", "--volume", f"{self.artifacts}:/artifacts"]
        if gateway_url is None:
            argv += ["--publish", f"127.0.0.1::{PORT}"]
        argv += [*options, image, "run", "--task-id", self.task_id, *arguments]
        environ = _environ() | {"WORKER_STREAM_KEY": self._key.hex()}
        super().__init__(argv, stderr=folder / "stderr", env=environ)

    def stream_url(self) -> str:
        """A fresh URL."""
        base = self._gateway_url
        if base is None:
            base = f"ws://{docker('port', self.task_id, str(PORT)).splitlines()[0]}"
        return tokens.stream_url(base, self.task_id, tokens.mint(self._key, self.task_id))

    def end_task(self, word: str) -> None:
        """Write the word into END_FILE."""
        (self.artifacts / "end").write_text(word)

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`."""
        content: dict[str, Any] = json.loads((self.artifacts / "result.json").read_text())
        return content

    def events_named(self, name: str) -> list[dict[str, Any]]:
        """The events of this name so far."""
        return [event for event in self.events if event["event"] == name]

    def execute(self, *argv: str) -> str:
        """Run a program in the container; return its stdout."""
        return docker("exec", self.task_id, *argv)

    def docker_wait(self) -> int:
        """The exit code from `docker wait`."""
        return int(docker("wait", self.task_id))

    def processes(self) -> list[int]:
        """The container's processes, as ids of the host, also after its PID 1 has ended."""
        container_id = docker("inspect", "--format", "{{.Id}}", self.task_id)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if container_id in (entry / "cgroup").read_text():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def remove(self) -> list[str]:
        """Stop and remove it; return the processes left of a container that ended by itself."""
        left = []
        if self.process.poll() is None:
            docker("stop", self.task_id, check=False)
        elif docker("ps", "--all", "--quiet", "--filter", f"name={self.task_id}"):
            left = [f"process {pid} of {self.task_id}" for pid in self.processes()]
        self.end(grace_s=PATIENCE_S)
        docker("rm", "--force", self.task_id, check=False)
        return left


def compose_command() -> list[str]:
    """The command of Compose: Docker's plugin or a program of its own; skips without either."""
    plugin = ["docker", "compose"]
    if subprocess.run([*plugin, "version"], check=False, capture_output=True).returncode == 0:
        return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return skip_or_fail("Docker Compose", "apt-get install docker-compose")


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
