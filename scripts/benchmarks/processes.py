"""Starts processes in a clean environment, and reads their CPU time and memory from /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

POLL_S = 0.005
STOP_TIMEOUT_S = 10.0
READY_TIMEOUT_S = 15.0
_LISTEN_STATE = "0A"
_NS = 1e9


def start(
    argv: Sequence[str], extra: Mapping[str, str] | None = None, *, output: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a program without the environment variables of the worker and the display."""
    own = ("WORKER_", "PYTHONPATH", "DISPLAY", "XAUTHORITY")
    environ = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    return subprocess.Popen(
        list(argv),
        env=environ | dict(extra or {}),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Send TERM to its process group, wait for a limited time, send KILL."""
    for number, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(timeout_s)
    if process.stdout is not None:
        process.stdout.close()


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def free_port() -> int:
    """A TCP port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Wait until a process listens, without connecting: the first client must be the measured one.

    Raises:
        TimeoutError: no process does after READY_TIMEOUT_S.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    wanted = f":{port:04X} "
    while time.monotonic() < deadline:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines():
                fields = line.split()
                if fields[3] == _LISTEN_STATE and f"{fields[1]} ".endswith(wanted):
                    return
        time.sleep(POLL_S)
    raise TimeoutError(f"no process listens on port {port}")


def tree(root: int, *, without: Iterable[int] = ()) -> list[int]:
    """A process and its descendants, without those of `without` and their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    left = set(without)
    found: list[int] = []
    queue = [root]
    while queue:
        pid = queue.pop()
        if pid not in left:
            found.append(pid)
            queue += children.get(pid, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds used so far (schedstat counts nanoseconds)."""
    total = 0
    for pid in pids:
        for each in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(each.read_text().split()[0])
    return total / _NS


def pss_mb(pids: Iterable[int]) -> float:
    """Memory in MB; shared pages are divided between their processes (PSS, proc_pid_smaps(5))."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) / 1024
    return total


def name(pid: int) -> str:
    """The command line of a process; "gone" if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return "gone"
