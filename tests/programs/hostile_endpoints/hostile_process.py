"""Forks, stops its worker, fills the log, forges events, reads files of others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def run(inputs):
    return globals()[inputs["kind"]]()


def forks():
    """A process that is replaced by its child all the time."""
    if os.fork() == 0:
        os.setsid()
        for _ in range(20_000):
            if os.fork():
                os._exit(0)
            time.sleep(0.005)
        os._exit(0)
    time.sleep(3)


def stops_worker():
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(60)


def ignores_signals():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    time.sleep(60)


def prints():
    line = b"x" * 65536
    for _ in range(3000):
        os.write(1, line)


def returns_much():
    """An output that takes 0.3 s to parse, and as long to be made JSON again."""
    return [[1.5]] * 490_000


def raises():
    raise RuntimeError("<html>" * 1_000_000)


def forges_events():
    """Write a forged address to every file of the state folder that can be written to."""
    event = {
        "event": "stream.ready",
        "host": "198.51.100.9",
        "port": 1,
        "time": "2026-01-01T00:00:00Z",
    }
    folder = Path(os.environ["WORKER_ARTIFACTS_DIR"]).parent
    for file in [*folder.rglob("*"), *folder.parent.rglob("*")]:
        if file.is_file() and "artifacts" not in file.parts:
            try:
                with file.open("ab") as out:
                    out.write(json.dumps(event).encode() + b"\n")
                    out.truncate(3 * 2**30)
            except OSError:
                continue


def reads_state():
    """The files of the state folder, other than the task's own, that could be read."""
    folder = Path(os.environ["WORKER_ARTIFACTS_DIR"]).parent
    read = []
    for base in (folder.parent, folder.parent.parent):
        for file in base.rglob("*"):
            try:
                if file.is_file() and folder not in file.parents and file.read_bytes():
                    read.append(str(file))
            except OSError:
                continue
    return read
