"""`worker serve` as users start it: a process over a state folder, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from worker_run import MARK, PROGRAMS, eventually, marked_processes

from worker.api import accounts

ENDPOINTS = PROGRAMS / "endpoints"
PATIENCE_S = 60.0
_TIMEOUT_S = 20.0
_POLL_S = 0.05  # requests in shorter intervals take the CPU time that a task needs to start


class WorkerServe:
    """One state folder and the API processes on it, one after the other."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.tmpdir = folder / "tmp"
        self.tmpdir.mkdir(parents=True)
        self.mark = uuid.uuid4().hex
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        self.environ |= {"TMPDIR": str(self.tmpdir), MARK: self.mark}
        self.environ |= {"WORKER_LOCAL_ENVIRONMENT": MARK}
        self.environ |= {"WORKER_STATE_DIR": str(self.state), "WORKER_API_PORT": "0"}
        self.environ |= {"WORKER_ENDPOINTS_DIR": str(ENDPOINTS)} | (env or {})
        self.client = httpx.Client(timeout=_TIMEOUT_S)
        self.url = ""
        self.python = sys.executable
        self.user: dict[str, Any] = {}  # arguments of Popen: user, group, extra_groups
        self.surroundings: dict[str, Any] = {}  # the same: preexec_fn, pass_fds

    # -- life cycle

    def start(self) -> WorkerServe:
        """Start it, and wait until it listens."""
        with (self.folder / "stderr").open("ab") as stderr:
            process = subprocess.Popen(
                [self.python, "-m", "worker.cli", "serve"],
                env=self.environ,
                **self.user,
                **self.surroundings,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        seen = len(self.events)
        self._processes.append(process)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._readers.append(reader)
        reader.start()
        begun = self.event("api.started", since=seen)
        self.url = f"http://127.0.0.1:{begun['port']}"
        return self

    def start_refused(self) -> subprocess.CompletedProcess[str]:
        """Start another one on the same state folder, and wait until it ends."""
        return subprocess.run(
            [self.python, "-m", "worker.cli", "serve"],
            env=self.environ,
            **self.user,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            start_new_session=True,  # as in `start`
        )

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._changed:
                    self.events.append(json.loads(line))
                    self._changed.notify_all()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The latest one."""
        return self._processes[-1]

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def end(self) -> None:
        """Stop it and every worker."""
        self.client.close()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join(5)
        for pid in marked_processes(self.mark, "worker.cli"):
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not marked_processes(self.mark), timeout_s=20, what="the workers' end")

    def cancel_all(self, account: str = "alice") -> None:
        """Cancel the tasks of an account, and wait for the end of every worker."""
        self.sign_in(account)
        for task in self.get("/tasks").json()["tasks"]:
            if task["status"] in ("queued", "running"):
                assert self.post(f"/tasks/{task['task_id']}/cancel").status_code == 202
        eventually(
            lambda: not marked_processes(self.mark, "worker.cli run"),
            timeout_s=20,
            what="the workers' end",
        )

    def leftovers(self) -> list[str]:
        """Temporary files of workers that ended."""
        return [str(path) for path in self.tmpdir.iterdir()]

    def runs(self) -> Counter[str]:
        """How often each task of the endpoint `gated` ran, by its artifact `ran`."""
        texts = [path.read_text() for path in self.state.glob("tasks/*/artifacts/ran")]
        return Counter(" ".join(texts).split())

    # -- events

    def event(
        self,
        name: str,
        since: int = 0,
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """Wait for an event."""

        def found() -> dict[str, Any] | None:
            for event in self.events[since:]:
                if event["event"] == name and wanted(event):
                    return event
            if self.process.poll() is not None and not self._readers[-1].is_alive():
                raise AssertionError(f"it ended; {self.events}; {self.stderr}")
            return None

        event: dict[str, Any] = eventually(found, timeout_s=PATIENCE_S, what=f"event {name}")
        return event

    @property
    def stderr(self) -> str:
        """Its stderr so far."""
        return (self.folder / "stderr").read_text(errors="replace")

    # -- requests

    def key(self, account: str = "alice", *options: str) -> str:
        """A new key: `worker api-key`, but without a process where none is needed for it."""
        if not self.user and options in ((), ("--control",)):
            file = Path(self.environ["WORKER_STATE_DIR"], "api-keys.json")
            return accounts.create(file, account, control=bool(options))
        made = subprocess.run(
            [self.python, "-m", "worker.cli", "api-key", account, *options],
            env=self.environ,
            **self.user,
            capture_output=True,
            text=True,
            check=True,
        )
        return str(made.stdout).strip()

    def sign_in(self, account: str = "alice", *options: str) -> str:
        """Make a key, and use it for the following requests."""
        key = self.key(account, *options)
        self.client.headers["x-api-key"] = key
        return key

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET below /api/v1."""
        return self.client.get(f"{self.url}/api/v1{path}", **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """POST below /api/v1."""
        return self.client.post(f"{self.url}/api/v1{path}", json=body, **more)

    def start_task(self, endpoint_name: str, **more: Any) -> str:
        """Start a task; return its id."""
        answer = self.post("/inference", {"endpoint_name": endpoint_name, **more})
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    def task(self, task_id: str) -> dict[str, Any]:
        """A task's representation."""
        answer = self.get(f"/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_for_status(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a task has one of these statuses; its representation."""

        def there() -> dict[str, Any] | None:
            found = self.task(task_id)
            if found["status"] in statuses:
                return found
            assert found["status"] in ("queued", "running"), f"wanted {statuses}, ended as {found}"
            return None

        found: dict[str, Any] = eventually(
            there, timeout_s=PATIENCE_S, what=f"{statuses}", poll_s=_POLL_S
        )
        return found
