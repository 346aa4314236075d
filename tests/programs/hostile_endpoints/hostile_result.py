"""Writes what the API does not expect to its artifacts folder, and ends its worker."""

import os
import signal
import threading
from pathlib import Path

FOLDER = Path(os.environ.get("WORKER_ARTIFACTS_DIR", "."))
RESULT = {
    "nested": b"[" * 4000,
    "infinite": b'{"status": "success", "exit_code": 0, "output": 1e999, "error": null}',
    "surrogate": b'{"status": "failed", "exit_code": 1, "output": "\\ud800", "error": {"a": 1}}',
    "year_1": b'{"status": "success", "exit_code": 0, "output": 1, "error": null, '
    b'"started_at": "0001-01-01T00:00:00+14:00"}',
    "error_type": b'{"status": "failed", "exit_code": 1, "output": 1, "error": {"type": 5}}',
    "empty": b"",
}


def run(inputs):
    kind = inputs["kind"]
    result = FOLDER / "result.json"
    result.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(result)
    elif kind == "link":
        result.symlink_to("/dev/zero")
    elif kind == "folder":
        result.mkdir()
    elif kind == "sparse":
        with result.open("wb") as file:
            file.truncate(3 * 2**30)
    elif kind == "deep":
        _deep(FOLDER, 1200)
    elif kind == "many":
        for number in range(30_000):
            (FOLDER / f"file{number}").touch()
    else:
        result.write_bytes(RESULT[kind])
    log = FOLDER / "task.log"
    log.unlink(missing_ok=True)
    os.mkfifo(log)
    threading.Timer(0.5, os.kill, (os.getppid(), signal.SIGKILL)).start()
    threading.Event().wait(5)


def _deep(folder, depth):
    at = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
