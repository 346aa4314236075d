"""Runs until a file has the word that ends it: `go` or `fail`."""

import time
from pathlib import Path


def run(inputs):
    gate = Path(inputs["gate"])
    while not (gate.exists() and (word := gate.read_text())):
        time.sleep(0.01)
    if word == "fail":
        raise RuntimeError("failed on purpose")
    return {"word": word}
