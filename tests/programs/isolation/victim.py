"""Leaves files, and waits for its cancellation."""

import os
import time
from pathlib import Path


def run(inputs):
    for folder in (os.environ["WORKER_ARTIFACTS_DIR"], os.environ["TMPDIR"], Path.cwd()):
        Path(folder, "private.txt").write_text(inputs["private"])
    time.sleep(600)
