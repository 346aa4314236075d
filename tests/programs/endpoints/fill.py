"""Fills the disk in one of several places, then waits until it is ended."""

import os
import tempfile
import time
from pathlib import Path

CHUNK_BYTES = 1 << 20


def artifacts():
    return Path(os.environ["WORKER_ARTIFACTS_DIR"], "big").open("wb")


def temporary():
    return tempfile.NamedTemporaryFile(delete=False)


def deleted():
    """Its blocks are in use until it is closed."""
    return tempfile.TemporaryFile()


def closed():
    """In a folder that not even its owner can read."""
    folder = Path(tempfile.mkdtemp())
    file = (folder / "big").open("wb")
    folder.chmod(0)
    return file


def current():
    return Path("big").open("wb")


def nothing():
    return Path(os.devnull).open("wb")


PLACES = [artifacts, temporary, deleted, closed, current, nothing]


def run(inputs):
    place = {each.__name__: each for each in PLACES}[inputs["place"]]
    with place() as file:
        for _ in range(inputs["size_bytes"] // CHUNK_BYTES):
            file.write(os.urandom(CHUNK_BYTES))
        file.flush()
        if place is not nothing:
            os.fsync(file.fileno())  # so that its blocks are allocated
        while True:
            time.sleep(1)
