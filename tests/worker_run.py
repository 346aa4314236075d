"""`worker run` as users start it: a process, its events, its exit code, and its leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from event_process import EventProcess

COMMAND = Path(sys.executable).parent / "worker"
PROGRAMS = Path(__file__).parent / "programs"
MARK = "TEST_RUN_MARK"
COMMAND_LINES = {
    "supervisord": "supervisor.supervisord",
    "Xvfb": "Xvfb -displayfd",
    "x11vnc": "x11vnc -display",
    "stream server": "worker.stream",
    "window manager": "matchbox-window-manager",
    "task process": "worker.task.child",
    "browser": "/chromium ",
    "renderer": "--type=renderer",
    "driver": "playwright/driver/node",
}
"""A part of the command line of each process of a run."""
_POLL_S = 0.01


class WorkerRun(EventProcess):
    """One run, with a TMPDIR and an environment mark of its own, by which leftovers are found."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        env: dict[str, str | None] | None = None,
        wrapper: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            folder: for its files.
            arguments: of `worker run`.
            env: variables in addition to this process's; None removes one.
            wrapper: a command line that executes the one that follows it.
            cwd: its working directory.
        """
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.tmpdir = folder / "tmp"
        self.tmpdir.mkdir(parents=True)
        self.mark = uuid.uuid4().hex
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        environ |= {"TMPDIR": str(self.tmpdir), MARK: self.mark, "WORKER_PORT": "0"}
        environ |= {"WORKER_ARTIFACTS_DIR": str(self.artifacts)}
        environ |= {name: value for name, value in (env or {}).items() if value is not None}
        for name in [name for name, value in (env or {}).items() if value is None]:
            environ.pop(name, None)
        super().__init__(
            [*wrapper, str(COMMAND), "run", *arguments],
            stderr=folder / "stderr",
            env=environ,
            cwd=cwd,
        )

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
        with urllib.request.urlopen(f"{self.page}debug/stream-url?role={role}", timeout=20) as got:
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

    # -- its processes and files

    def processes(self, name: str = "") -> list[int]:
        """Its processes whose command line contains `name`, by the environment's mark."""
        return marked_processes(self.mark, name)

    def descendants(self, name: str) -> list[int]:
        """Like `processes`, with the renderers: Chromium overwrites the environment of these."""
        found = []
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if name in " ".join(each.cmdline()):
                        found.append(each.pid)
        return found

    def pid(self, name: str) -> int:
        """The oldest process whose command line contains `name`."""
        return min(self.processes(name))

    def leftovers(self) -> list[str]:
        """Descriptions of the processes, files and sockets that are left."""
        left = [f"process {pid}: {_command_line(pid)}" for pid in self.processes()]
        left += [str(path) for path in self.tmpdir.iterdir()]
        for event in self.events:
            if event["event"] == "xvfb.started":
                path = Path("/tmp/.X11-unix", event["display"].replace(":", "X"))
                # A newer one is another server's, whose display has got the number since.
                with contextlib.suppress(FileNotFoundError):
                    created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                    if created < datetime.fromisoformat(event["time"]):
                        left.append(str(path))
        return left


def marked_processes(mark: str, name: str = "") -> list[int]:
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
        return "ended"


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal (proc(5), stat: T)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def eventually(
    condition: Any, *, timeout_s: float = 10, what: str = "", poll_s: float = _POLL_S
) -> Any:
    """Poll until a condition is true; return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(poll_s)
    return value
