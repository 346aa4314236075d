"""Appends its id to the artifact `ran`, then waits for a file and returns what the file says."""

import os
import time
from pathlib import Path


def run(inputs):
    with Path(os.environ["WORKER_ARTIFACTS_DIR"], "ran").open("a") as file:
        file.write(f"{os.environ['WORKER_TASK_ID']}\n")
    gate = Path(inputs["gate"])
    while not (gate.exists() and (said := gate.read_text())):
        time.sleep(0.01)
    if said == "fail":
        raise RuntimeError("failure requested")
    return {"said": said}
