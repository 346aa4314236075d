"""A machine that lacks something for some time: nothing is lost, and no task runs twice."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from required import skip_or_fail
from worker_run import eventually
from worker_serve import WorkerServe

_BLOCK = bytes(4096)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        skip_or_fail("the permission to mount a tmpfs", "run the tests as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full_disk(api: WorkerServe) -> Iterator[None]:
    """The state folder's disk is full."""
    filler = api.state.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left") as full:
            while True:
                file.write(_BLOCK)
        assert full.value.errno == errno.ENOSPC
        yield
    filler.unlink()


@contextlib.contextmanager
def no_descriptors(api: WorkerServe) -> Iterator[None]:
    """The API can open no file and accept no connection; its client is connected already."""
    limits = resource.prlimit(api.process.pid, resource.RLIMIT_NOFILE)
    used = {int(each.name) for each in Path(f"/proc/{api.process.pid}/fd").iterdir()}
    free = min(set(range(len(used) + 1)) - used)
    resource.prlimit(api.process.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    yield
    resource.prlimit(api.process.pid, resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def no_task_folders(api: WorkerServe) -> Iterator[None]:
    """No folder of a task can be made."""
    folder = api.state / "tasks"
    folder.rename(api.state / "elsewhere")
    folder.write_bytes(b"")
    yield
    folder.unlink()
    (api.state / "elsewhere").rename(folder)


def ready(api: WorkerServe) -> httpx.Response:
    return api.client.get(f"{api.url}/readyz")


@pytest.mark.parametrize("fault", [full_disk, no_descriptors, no_task_folders])
def test_fault(serve, small_disk, tmp_path, fault):
    """A running task ends and a queued one is started, during the fault or after it."""
    state = small_disk / "state"
    api = serve({"WORKER_STATE_DIR": str(state), "WORKER_MAX_RUNNING": "1"})
    api.state = state
    api.sign_in()
    gate, ran = tmp_path / "gate", tmp_path / "ran"
    body = {
        "endpoint_name": "gated",
        "input_parameters": {"gate": str(gate), "ran": str(ran), "padding": "x" * 50_000},
    }
    running = api.post("/inference", body).json()["task_id"]
    api.wait_for_status(running, "running")
    queued = [api.post("/inference", body).json()["task_id"]]
    with fault(api):
        if fault is full_disk:
            answer = api.post("/inference", body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "database or disk is full" in answer.json()["detail"]
        gate.write_text("go")
        eventually(lambda: ready(api).status_code == 503, what="/readyz to answer 503")
        answer = api.post("/inference", body)
        assert answer.status_code in (202, 503)
        queued += [answer.json()["task_id"]] if answer.status_code == 202 else []
    eventually(lambda: ready(api).status_code == 200, what="/readyz to answer 200")
    ends = [api.wait_for_status(task, "success", "failed") for task in (running, *queued)]
    # Without a place for its result, the first task's end is the worker's.
    expected = ends if fault is no_descriptors else ends[1:]
    assert {each["status"] for each in expected} == {"success"}
    assert Counter(ran.read_text().split()) == Counter([running, *queued])
    changes = Counter(event["event"] for event in api.events)
    assert changes["runner.lost"] == changes["runner.found"]
    assert changes["loop.failed"] == changes["loop.recovered"]
    assert changes["runner.lost"] + changes["loop.failed"] in (1, 2)
    assert api.stop() == 0
