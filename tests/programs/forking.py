"""Processes of a user that are hard to kill: `forking.py KIND UID`, started as root.

They are not restricted by Landlock. Should a test fail to kill them, they end after some seconds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

CHAINS = 4
PROCESSES_MAX = 300
END = time.monotonic() + 20


def chain(*, again=lambda: None):
    """Fork and end, again and again."""
    while time.monotonic() < END:
        with suppress(BlockingIOError):  # too many zombies that are not reaped yet
            if os.fork():
                os._exit(0)
            again()
    os._exit(0)


def sessions():
    """The same, each in a session of its own."""
    chain(again=os.setsid)


def double():
    """Fork twice, and end."""

    def again():
        if os.fork() == 0 and os.fork() == 0:
            return
        os._exit(0)

    chain(again=again)


def executes():
    """Start a program, and end."""
    os.environ["AGAIN"] = 'if [ "$(date +%s)" -lt "$END" ]; then sh -c "$AGAIN" & fi'
    os.environ["END"] = str(int(time.time() + END - time.monotonic()))
    os.execvp("sh", ["sh", "-c", os.environ["AGAIN"]])  # noqa: S606 - a shell is wanted


def bomb():
    """Fork as often as possible, and do not end."""
    while time.monotonic() < END:
        with suppress(BlockingIOError):
            os.fork()


def threads():
    """Fork in a thread, after the first thread of the process has ended."""
    threading.Thread(target=chain).start()
    ctypes.CDLL(None).pthread_exit(None)


def first_thread_ended():
    """Exist, with the state of a zombie."""
    threading.Thread(target=lambda: time.sleep(max(0, END - time.monotonic()))).start()
    ctypes.CDLL(None).pthread_exit(None)


def many():
    """Exist."""
    for _ in range(PROCESSES_MAX // CHAINS - 2):
        if os.fork() == 0:
            break
    time.sleep(max(0, END - time.monotonic()))


def stopper():
    """Stop each new process of the user, and let it run only if no other one does."""
    if os.fork():
        chain()
    while time.monotonic() < END:
        newest = int(Path("/proc/loadavg").read_text().split()[-1])
        for pid in set(range(newest - 2, newest + 3)) - {os.getpid()}:
            with suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
                os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


KINDS = (chain, sessions, double, executes, bomb, threads, first_thread_ended, many, stopper)

if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    uid = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES_MAX, PROCESSES_MAX))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    for _ in range(CHAINS - 1):
        if os.fork() == 0:
            break
    next(kind for kind in KINDS if kind.__name__ == sys.argv[1])()
