"""What a task does to its artifacts is reported on that task; the API and the worker go on.

tests/contract has every kind of result on every runner.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from worker_run import eventually

from worker import trees

KINDS = ("fifo", "sparse", "forged")
GROWTH_MAX_BYTES = 64 << 20


def rss_bytes(pid):
    """A process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture
def api(serve):
    started = serve({"WORKER_MAX_RUNNING": "2"})
    started.sign_in()
    yield started
    trees.remove(
        started.state / "tasks", limit_s=60
    )  # if the test failed: `shutil` cannot remove it


def test_tasks_that_forge_their_result(api):
    """They have failed by signal 9; other tasks run, and retention removes all of them."""
    before = rss_bytes(api.process.pid)
    hostile = [api.start_task("hostile", input_parameters={"kind": kind}) for kind in KINDS]
    echo = api.start_task("echo", input_parameters={"n": 7})
    for task in hostile:
        end = api.wait_for_status(task, "failed", "success")
        assert (end["status"], end["exit_code"]) == ("failed", 137), end
        assert (end["output"], end["output_omitted"]) == (None, True)
        assert "result.json" in end["error"]["message"]
        listed = api.get(f"/tasks/{task}/artifacts")
        assert listed.status_code == 200
        assert "task.log" not in {each["name"] for each in listed.json()["artifacts"]}
        assert api.get(f"/tasks/{task}/artifacts/task.log").status_code == 404
    assert api.wait_for_status(echo, "success")["output"] == {"n": 7}
    assert {each["status"] for each in api.get("/tasks").json()["tasks"]} == {"failed", "success"}
    assert rss_bytes(api.process.pid) - before <= GROWTH_MAX_BYTES
    eventually(lambda: not list(api.tmpdir.glob("worker-*")), what="the workers' folders removed")
    api.stop()
    api.environ["WORKER_RETENTION_S"] = "0.1"
    api.start()
    eventually(lambda: not api.get("/tasks").json()["tasks"], timeout_s=60, what="their removal")


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_artifacts_folder_of_a_former_task(run, kind, tmp_path):
    """What a former task left in place of the worker's files is replaced, and not written to."""
    outside = tmp_path / "outside"
    outside.write_text("outside")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for name in ("task.log", "result.json"):
        match kind:
            case "fifo":
                os.mkfifo(folder / name)
            case "link":
                (folder / name).symlink_to(outside)
            case _:
                (folder / name / "inner").mkdir(parents=True)
    worker = run("--artifacts-dir", str(folder), "--", "echo", "said")
    assert worker.wait() == 0
    assert (folder / "task.log").read_text() == "said\n"
    assert json.loads((folder / "result.json").read_text())["exit_code"] == 0
    assert outside.read_text() == "outside"
    assert trees.remove(folder, limit_s=60) == []
