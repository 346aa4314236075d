"""The systems that are compared: each is a display, a browser with a page, and a stream of it."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from benchmarks import processes
from worker.stream import tokens

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.remote_task import RemoteTask, TaskListener

HERE = Path(__file__).parent
TASK = f"{HERE / 'measured_task.py'}:follow_commands"
EXIT_TIMEOUT_S = 30.0


def chromium() -> str:
    """The path of the browser, the same for every system."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("bench: Chromium is not installed: run `make setup`")
    return found


class Worker:
    """`worker run`, as a user starts it; viewers' URLs are signed with its key.

    Attributes:
        exec_s: when it was started (time.monotonic).
    """

    name = "worker"
    missing: ClassVar[str] = ""

    def __init__(self, listener: TaskListener) -> None:
        self._listener = listener
        self._folder = Path(listener.folder.name) / uuid.uuid4().hex
        self._task_id = uuid.uuid4().hex
        self._key = secrets.token_bytes(tokens.KEY_BYTES)
        self.events: dict[str, dict[str, Any]] = {}
        self.exec_s = time.monotonic()
        self.process = processes.start(
            [
                *(str(Path(sys.executable).parent / "worker"), "run"),
                *("--host", "127.0.0.1", "--port", "0", "--artifacts-dir", str(self._folder)),
                *(TASK, "--input", f"socket={listener.path}"),
            ],
            {
                "WORKER_TASK_ID": self._task_id,
                "WORKER_STREAM_KEY": self._key.hex(),
                "WORKER_CHROMIUM": chromium(),
            },
            output=subprocess.PIPE,
        )
        self._task: RemoteTask | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop(self.process)

    @property
    def task(self) -> RemoteTask:
        """The task; waits for its first line."""
        if self._task is None:
            self._task = self._listener.next_task()
        return self._task

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event and return its fields."""
        assert self.process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        while name not in self.events:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the worker ended without {name}: {list(self.events)}")
            event = json.loads(line)
            self.events.setdefault(event["event"], event)
        return self.events[name]

    def url(self) -> str:
        """A URL for one viewer."""
        ready = self.event("stream.ready")
        token = tokens.mint(self._key, self._task_id)
        return tokens.stream_url(f"ws://{ready['host']}:{ready['port']}", self._task_id, token)

    def display(self) -> tuple[str, str | None]:
        """The display's name, and the file with its cookie."""
        folder = self.event("worker.started")["folder"]
        return self.event("xvfb.started")["display"], f"{folder}/Xauthority"

    def own_processes(self) -> list[int]:
        """All processes except Chromium's, Playwright's driver and the task."""
        found = processes.tree(self.process.pid, without=[self.task.pid])
        # Chromium's crash handlers are orphaned, and become children of the worker (a subreaper).
        return [pid for pid in found if "crashpad" not in processes.name(pid)]

    def wait(self) -> float:
        """Wait until it has exited; return the time (time.monotonic)."""
        self.process.wait(EXIT_TIMEOUT_S)
        return time.monotonic()


class Peer:
    """A display, a VNC server and the `websockify` command, started one by one."""

    name = "peer"
    programs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, listener: TaskListener) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._vnc_port = processes.free_port()
        try:
            self._display = self._start_display()
            self._start(["matchbox-window-manager", "-use_titlebar", "no"])
            script = self._start(
                processes.python(str(HERE / "bare_script.py"), listener.path, self._display),
                BENCH_CHROMIUM=chromium(),
                PYTHONPATH=str(HERE.parent),
            )
            self.task = listener.next_task()
            self._script_pid = script.pid
            self._start_vnc()
            self._web_port = processes.free_port()
            websockify = str(Path(sys.executable).parent / "websockify")
            self._start([websockify, f"127.0.0.1:{self._web_port}", f"127.0.0.1:{self._vnc_port}"])
            processes.wait_for_port(self._web_port)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            processes.stop(process)

    def _start(self, argv: list[str], **extra: str) -> subprocess.Popen[bytes]:
        process = processes.start(argv, {"DISPLAY": self._display, **extra})
        self._running.append(process)
        return process

    def _start_server(self, argv: list[str]) -> str:
        """Start an X server; return the display's name, which the server chooses."""
        process = processes.start(argv, output=subprocess.PIPE)
        self._running.append(process)
        assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        return f":{int(process.stdout.readline())}"

    def _start_display(self) -> str:
        raise NotImplementedError

    def _start_vnc(self) -> None:
        raise NotImplementedError

    def url(self) -> str:
        """A URL for one viewer."""
        return f"ws://127.0.0.1:{self._web_port}/websockify"

    def display(self) -> tuple[str, str | None]:
        """The display's name, and None for the file with its cookie."""
        return self._display, None

    def own_processes(self) -> list[int]:
        """All processes except Chromium's, Playwright's driver and the task."""
        pids = [process.pid for process in self._running if process.pid != self._script_pid]
        return [each for pid in pids for each in processes.tree(pid)]


class Stock(Peer):
    """Xvfb, x11vnc with its defaults, and websockify."""

    name = "stock"
    programs = ("Xvfb", "x11vnc", "matchbox-window-manager")

    def _start_display(self) -> str:
        return self._start_server(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "1920x1080x24", "-nolisten", "tcp"]
        )

    def _start_vnc(self) -> None:
        port = str(self._vnc_port)
        self._start(["x11vnc", "-forever", "-shared", "-nopw", "-localhost", "-rfbport", port])
        processes.wait_for_port(self._vnc_port)


class Xvnc(Peer):
    """TigerVNC's Xvnc, an X server with an RFB server in it, and websockify."""

    name = "Xvnc"
    programs = ("Xvnc", "matchbox-window-manager")

    def _start_display(self) -> str:
        display = self._start_server(
            [
                *("Xvnc", "-displayfd", "1", "-geometry", "1920x1080", "-depth", "24"),
                *("-SecurityTypes", "None", "-localhost", "-AlwaysShared"),
                *("-rfbport", str(self._vnc_port)),
            ]
        )
        processes.wait_for_port(self._vnc_port)
        return display

    def _start_vnc(self) -> None:
        """Xvnc is display and VNC server."""


System = Worker | Stock | Xvnc


def installed(plan: Plan, key: str, *kinds: type[Stock | Xvnc]) -> list[type[Stock | Xvnc]]:
    """The baselines that are installed; notes in the plan that line `key` lacks the others."""
    found: list[type[Stock | Xvnc]] = []
    for kind in kinds:
        absent = [name for name in kind.programs if shutil.which(name) is None]
        if absent:
            plan.skip(f"{key} against {kind.name}: not installed: {', '.join(absent)}")
        else:
            found.append(kind)
    return found
