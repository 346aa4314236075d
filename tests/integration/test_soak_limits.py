"""Full disks, few descriptors, little memory, stopped programs: each end is accurate."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
from machine_limits import fill, little_memory, small_disk
from worker_run import COMMAND_LINES, PROGRAMS, eventually

import worker as package

TASKS = str(PROGRAMS / "tasks.py")
RUNS = 20
USUAL_CODES = {0, 1, 64, 70}
OOM_CODES = USUAL_CODES | {137}
CANCELLED_CODE = 143
ENOUGH_DESCRIPTORS = 256
_KIB = 1024

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("display_programs")]


@pytest.fixture(params=range(RUNS))
def chance(request):
    """Reproducible random numbers, different in each run."""
    return random.Random(request.param)  # noqa: S311 - chooses test inputs


def own_tracebacks(stderr):
    """The tracebacks of the worker's code, except those of the task's process.

    In that process an import may fail, or the browser end, for lack of memory or descriptors; it
    prints why, as any task does.
    """
    tracebacks = re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*.*", stderr)
    own = [each for each in tracebacks if f'File "{Path(package.__file__).parent}/' in each]
    return [each for each in own if "/worker/task/child.py" not in each]


def assert_accurate(worker, codes, *, timeout_s=60):
    """Exit code, event and result agree, and the exit code is one of these."""
    code = worker.wait(timeout_s=timeout_s)
    assert code in codes, (worker.events, worker.stderr)
    assert not own_tracebacks(worker.stderr)
    if code == 64:
        return code
    (finished,) = (event for event in worker.events if event["event"] == "worker.finished")
    assert finished["exit_code"] == code
    assert finished["status"] == {0: "success", CANCELLED_CODE: "cancelled"}.get(code, "failed")
    assert not finished.get("left")
    with contextlib.suppress(FileNotFoundError, ValueError):
        assert worker.result["exit_code"] == code
    return code


def test_full_artifacts_disk(run, tmp_path, chance):
    """The exit code is the task's own, although its log and result cannot be written."""
    with small_disk(tmp_path / "disk", chance.randrange(4, 512) * _KIB) as disk:
        worker = run(
            f"{TASKS}:fills_artifacts", env={"WORKER_ARTIFACTS_DIR": str(disk / "artifacts")}
        )
        assert_accurate(worker, {0})


def test_full_temporary_disk(run, tmp_path, chance):
    """The task succeeds, or its end names what failed."""
    size = chance.choice([chance.randrange(4, 256), chance.randrange(256, 16_384)]) * _KIB
    with small_disk(tmp_path / "tmp", size) as disk:
        worker = run(f"{TASKS}:works", env={"TMPDIR": str(disk)})
        assert_accurate(worker, USUAL_CODES)
        assert not list(disk.iterdir())


def test_full_state_disk(serve, tmp_path, chance):
    """While the disk is full requests get 503; afterwards every task ends, and each runs once."""
    with small_disk(tmp_path / "state", 8 * _KIB * _KIB) as disk:
        api = serve({"WORKER_STATE_DIR": str(disk), "WORKER_MAX_RUNNING": "2"})
        api.sign_in()
        tasks = [api.start_task("echo", input_parameters={"n": n}) for n in range(4)]
        time.sleep(chance.uniform(0, 1.5))  # the moment is the parameter
        filling = fill(disk)
        for n in range(3):
            answer = api.post("/inference", {"endpoint_name": "echo", "input_parameters": {"n": n}})
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                tasks.append(answer.json()["task_id"])
        time.sleep(chance.uniform(0, 1.5))
        filling.unlink()
        eventually(lambda: api.client.get(f"{api.url}/readyz").status_code == 200, timeout_s=60)
        ended = [api.wait_for_status(task, "success") for task in tasks]
        assert Counter(end["exit_code"] for end in ended) == {0: len(tasks)}
        assert api.stop() == 0
        api.end()


def test_few_descriptors(run, chance):
    """The task succeeds, or its end names the limit."""
    limit = chance.choice([ENOUGH_DESCRIPTORS, chance.randrange(16, ENOUGH_DESCRIPTORS)])
    worker = run(f"{TASKS}:works", wrapper=("prlimit", f"--nofile={limit}:{limit}"))
    assert_accurate(worker, {0} if limit >= ENOUGH_DESCRIPTORS else USUAL_CODES)


def test_little_memory(run, ipc_namespace, chance):
    """Whatever the kernel kills, the end is accurate."""
    limit = chance.randrange(100, 700) * _KIB * _KIB
    with little_memory(f"worker-test-{uuid.uuid4().hex[:8]}", limit) as group:
        enter = ("sh", "-c", f'echo $$ > {group} && exec "$@"', "sh")
        worker = run(f"{TASKS}:works", "--input", "steps=30", wrapper=enter)
        code = worker.wait(timeout_s=60)
        if code == -signal.SIGKILL:
            eventually(lambda: not ipc_namespace.processes(), timeout_s=20, what="they end")
            assert run(f"{TASKS}:plain", env={"TMPDIR": str(worker.tmpdir)}).wait() == 0
        else:
            assert_accurate(worker, OOM_CODES)


def test_stopped_program(run, chance):
    """A program that is stopped (SIGSTOP) does not prevent the end."""
    name = chance.choice(list(COMMAND_LINES))
    worker = run(f"{TASKS}:sleeps_with_page")
    worker.event("task.started")
    stopped = worker.descendants(COMMAND_LINES[name])
    assert stopped, f"no process of {name} was found"
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(chance.uniform(0, 2))  # the moment is the parameter
    worker.signal(signal.SIGTERM)
    assert_accurate(worker, {CANCELLED_CODE, 70})
