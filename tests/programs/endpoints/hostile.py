"""Replaces what its worker leaves, and kills the worker."""

import os
import signal
import time
from pathlib import Path

SUCCESS = (
    '{"status": "success", "exit_code": 0, "output": "forged", "error": null, '
    '"started_at": "0001-01-01T00:00:00+14:00", "finished_at": "0001-01-01T00:00:00+14:00"}'
)


def run(inputs):
    folder = Path(os.environ["WORKER_ARTIFACTS_DIR"])
    result, log = folder / "result.json", folder / "task.log"
    log.unlink()
    os.mkfifo(log)
    match inputs["kind"]:
        case "fifo":
            os.mkfifo(result)
        case "sparse":
            with result.open("wb") as file:
                file.truncate(3 << 30)
        case "forged":
            result.write_text(SUCCESS)
    nest(folder)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def nest(folder):
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
