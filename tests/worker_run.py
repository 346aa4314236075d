"""`worker run` as users start it: a process, its events, its exit code, and what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
MARK = "TEST_RUN_MARK"
PATIENCE_S = 30.0
_POLL_S = 0.01


class WorkerRun:
    """One run. It gets a TMPDIR and an environment mark of its own, to see what is left of it."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.tmpdir = folder / "tmp"
        self.tmpdir.mkdir(parents=True)
        self.mark = uuid.uuid4().hex
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._stderr = (folder / "stderr").open("wb")
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        environ |= {"TMPDIR": str(self.tmpdir), MARK: self.mark, "WORKER_PORT": "0"}
        environ |= {"WORKER_ARTIFACTS_DIR": str(self.artifacts)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "run", *arguments],
            env=environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        self.process.stdout.close()
        with self._changed:
            self._changed.notify_all()

    # -- what it says

    def event(self, name: str, *, timeout_s: float = PATIENCE_S, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`th event of this name."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [event for event in self.events if event["event"] == name]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"no {name}; events: {self.events}; {self.stderr}")
                self._changed.wait(min(left, 1))

    def wait(self, *, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    @property
    def stderr(self) -> str:
        """What it has said on stderr."""
        return (self.folder / "stderr").read_text(errors="replace")

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`."""
        content: dict[str, Any] = json.loads((self.artifacts / "result.json").read_text())
        return content

    @property
    def page(self) -> str:
        """The debug page's address, once viewers can connect."""
        return str(self.event("stream.ready")["page"])

    @property
    def port(self) -> int:
        """The stream's port."""
        return int(self.event("stream.ready")["port"])

    def stream_url(self, role: str = "view") -> str:
        """A fresh URL."""
        with urllib.request.urlopen(f"{self.page}debug/stream-url?role={role}", timeout=5) as got:
            return str(json.load(got)["stream_url"])

    @property
    def session_folder(self) -> Path:
        """Its private folder."""
        return Path(self.event("worker.started")["folder"])

    @property
    def display(self) -> str:
        """The display's name."""
        return str(self.event("xvfb.started")["display"])

    @property
    def xauthority(self) -> Path:
        """The display's cookie."""
        return self.session_folder / "Xauthority"

    # -- what it is made of

    def processes(self, name: str = "") -> list[int]:
        """Its processes whose command line contains `name`, by the environment's mark."""
        return marked(self.mark, name)

    def pid(self, name: str) -> int:
        """The oldest process whose command line contains `name`."""
        return min(self.processes(name))

    def signal(self, number: int) -> None:
        """Signal the worker."""
        self.process.send_signal(number)

    def left_behind(self) -> list[str]:
        """What is left of it: processes, files, sockets."""
        left = [f"process {pid}: {_command_line(pid)}" for pid in self.processes()]
        left += [str(path) for path in self.tmpdir.iterdir()]
        for event in self.events:
            if event["event"] == "xvfb.started":
                number = event["display"].removeprefix(":")
                sockets = Path("/proc/net/unix").read_text()
                path = Path(f"/tmp/.X11-unix/X{number}")
                if path.exists() and f"@{path}\n" not in sockets:
                    left.append(str(path))  # a dead server's; a live one is somebody else's
        return left

    def end(self) -> None:
        """End it, however the test went."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        self._stderr.close()


def marked(mark: str, name: str = "") -> list[int]:
    """Processes with this mark in their environment and `name` in their command line."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted not in (entry / "environ").read_bytes():
                continue
            if name.encode() in (entry / "cmdline").read_bytes().replace(b"\0", b" "):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    except OSError:
        return "gone"


def eventually(condition: Any, *, timeout_s: float = 10, what: str = "") -> Any:
    """Poll until a condition is true; its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(_POLL_S)
    return value
