"""Tries what a hostile task would try; returns what happened, by name."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

PTRACE_ATTACH = 16
DENIED = (PermissionError, FileNotFoundError, NotADirectoryError, ProcessLookupError)


async def run(page, inputs):
    denied = {}

    def attempt(name, action):
        try:
            action()
        except DENIED:
            denied[name] = True
        else:
            denied[name] = False

    for path in inputs["read"]:
        attempt(f"read {path}", lambda path=path: read(path))
    for path in inputs["write"]:
        attempt(f"write {path}", lambda path=path: write(path))
    for pid in inputs["processes"]:
        name = Path(f"/proc/{pid}/comm").read_text().strip() + f" {pid}"
        attempt(f"signal {name}", lambda pid=pid: os.kill(pid, 0))
        attempt(f"trace {name}", lambda pid=pid: trace(pid))
        for file in ("environ", "mem", "maps", "fd/1"):
            attempt(f"{file} of {name}", lambda pid=pid, file=file: read(f"/proc/{pid}/{file}"))
    attempt("signal the own worker", lambda: os.kill(os.getppid(), 0))
    attempt("environ of the own worker", lambda: read(f"/proc/{os.getppid()}/environ"))
    attempt("config of supervisord", lambda: read(session() / "supervisord.conf"))
    attempt("log of supervisord", lambda: read(session() / "supervisord.log"))
    for path in inputs["open"]:
        for scheme in ("file://", "view-source:file://"):
            denied[f"open {scheme}{path}"] = not await shows(page, scheme + path, inputs["private"])
    return {"denied": denied, "facts": facts()}


def read(path):
    if Path(path).is_dir():
        return list(Path(path).iterdir())
    return os.read(os.open(path, os.O_RDONLY), 1)


def write(path):
    if Path(path).is_dir():
        Path(path, "written").write_text("by the attacker")
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def session():
    return Path(os.environ["XAUTHORITY"]).parent


async def shows(page, url, private):
    opened = await page.context.new_page()
    try:
        await opened.goto(url)
        return private in await opened.inner_text("body")
    except Exception:
        return False
    finally:
        await opened.close()


def facts():
    """What must still be possible, and who the task is."""
    own = Path(os.environ["WORKER_ARTIFACTS_DIR"], "own.txt")
    own.write_text("own")
    Path(os.environ["HOME"], "own.txt").write_text("own")
    Path("in-the-current-folder").write_text("own")
    argv = [sys.executable, "-c", "print(1 + 1)"]
    child = subprocess.run(argv, check=True, capture_output=True, text=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname()).close()
    daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
    os.kill(daemon.pid, 0)
    for folder in ("/dev/shm", os.environ["TMPDIR"]):
        Path(folder, f"left-{os.getpid()}").write_text("left")
    status = Path("/proc/self/status").read_text()
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "no_new_privs": "NoNewPrivs:\t1" in status,
        "no_capabilities": "CapEff:\t0000000000000000" in status,
        "child": child.stdout.strip(),
        "daemon": daemon.pid,
        "killed_before_the_api": int(Path("/proc/self/oom_score_adj").read_text()) > 0,
        "processes_max": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "left": f"left-{os.getpid()}",
        "keys": [name for name in os.environ if "KEY" in name or "SECRET" in name],
        "ignored": signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN,
    }
