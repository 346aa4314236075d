"""Tasks that end in every way but the usual ones."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIFETIME_S = 30  # of the processes that a failed test would leave


def leaves_forking_processes():
    """Return, and leave processes that fork and end at once."""
    for _ in range(3):
        if not os.fork():
            fork_and_end()
    return "left"


def fork_and_end():
    """Live on in children, each in a session or group of its own, for at most LIFETIME_S."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    until = time.monotonic() + LIFETIME_S
    while time.monotonic() < until:
        for separate in (os.setsid, os.setpgrp):
            if os.fork():
                os._exit(0)
            with contextlib.suppress(OSError):
                separate()
    os._exit(0)


def leaves_respawning_processes():
    """Return, and leave two processes that start each other again."""
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        until = time.monotonic() + LIFETIME_S
        while time.monotonic() < until:
            other = os.fork()
            if other:
                os.waitpid(other, 0)
            else:
                os.setsid()
                time.sleep(0.001)
                if not os.fork():
                    os._exit(0)
        os._exit(0)


def ignores_signals_hidden():
    """Leave a process that /proc may hide: it is not dumpable."""
    if not os.fork():
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        time.sleep(LIFETIME_S)
        os._exit(0)


def freezes(inputs):
    """Leave a process in a frozen cgroup (version 1), where SIGKILL does not end it."""
    child = subprocess.Popen(["sleep", str(LIFETIME_S)])
    Path(inputs["freezer"], "tasks").write_text(str(child.pid))
    Path(inputs["freezer"], "freezer.state").write_text("FROZEN")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(inputs["frozen"]).touch()
    time.sleep(LIFETIME_S)


def leaves_a_deep_tree():
    at = os.open(os.environ["TMPDIR"], os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below


def leaves_an_immutable_file():
    path = Path(os.environ["TMPDIR"], "file")
    path.write_text("kept")
    subprocess.run(["chattr", "+i", path], check=True)
    return str(path)


# -- errors


def raises_much_text():
    raise LookupError("<html>" * 1_000_000)


def raises_what_has_no_text():
    class Hostile(Exception):
        def __str__(self):
            raise KeyboardInterrupt

        def __getattribute__(self, name):
            raise RuntimeError(name)

    raise Hostile


def raises_group():
    error: BaseException = KeyboardInterrupt("\ud800\0")
    for _ in range(1000):
        error = BaseExceptionGroup("group", [error])
    raise error


async def raises_in_callback():
    asyncio.get_running_loop().call_soon(sys.exit, 70)
    await asyncio.sleep(600)


async def raises_cancelled():
    raise asyncio.CancelledError("mine")


def raises_exit():
    sys.exit(70)


def exits():
    os._exit(70)


def raises_with_a_closed_stderr():
    sys.stderr.close()
    os.close(2)
    raise LookupError("nothing there")


def claims_a_failed_browser():
    os.write(int(sys.argv[1]), b'{"type": "BrowserFailed", "message": "mine"}\n')
    time.sleep(600)


def closes_everything():
    os.closerange(0, 4096)


def leaves_the_connection_to_a_child():
    descriptor = int(sys.argv[1])
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.set_inheritable(True)
        subprocess.Popen(["sleep", str(LIFETIME_S)], close_fds=False)
    os._exit(0)


# -- outputs


def returns_deep():
    value: Any = 1
    for _ in range(980):
        value = [value]
    return value


def returns_much():
    return ["x" * 2**20] * 500


def returns_beyond_its_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24,) * 2)
    return ["x" * 2**23]


if __name__ == "__main__":
    fork_and_end()
