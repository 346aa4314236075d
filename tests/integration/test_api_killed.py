"""After the API process is killed no task is lost and none runs twice."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter

from repeated import repeated
from worker_run import eventually, marked_processes


def statuses(api, tasks):
    return [api.task(task)["status"] for task in tasks]


def assert_sound(api):
    with sqlite3.connect(api.state / "tasks.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_tasks_survive_the_api(serve, tmp_path):
    """Three queued and two running tasks end, each once, with its result."""
    api = serve({"WORKER_MAX_RUNNING": "2"})
    api.sign_in()
    gate = tmp_path / "gate"
    inputs = {"gate": str(gate)}
    tasks = [api.start_task("gated", input_parameters=inputs) for _ in range(5)]
    for task in tasks[:2]:
        api.wait_for_status(task, "running")
    assert statuses(api, tasks[2:]) == ["queued"] * 3
    workers = set(marked_processes(api.mark, "worker.cli run"))
    api.kill()
    assert set(marked_processes(api.mark, "worker.cli run")) == workers
    api.start()
    eventually(lambda: statuses(api, tasks[:2]) == ["running"] * 2, what="both found again")
    assert api.get(f"/tasks/{tasks[0]}/stream").status_code == 200
    gate.write_text("go")
    ended = [api.wait_for_status(task, "success", "failed", "cancelled") for task in tasks]
    assert [end["status"] for end in ended] == ["success"] * 5
    assert [end["output"] for end in ended] == [{"said": "go"}] * 5
    assert api.runs() == Counter(tasks)
    assert api.stop() == 0
    assert_sound(api)


def test_end_without_an_api_process_is_stored_by_the_next(serve, tmp_path):
    api = serve()
    api.sign_in()
    gate = tmp_path / "gate"
    inputs = {"gate": str(gate)}
    task = api.start_task("gated", input_parameters=inputs)
    api.wait_for_status(task, "running")
    api.kill()
    gate.write_text("fail")
    eventually(lambda: not marked_processes(api.mark, "worker.cli run"), timeout_s=20)
    api.start()
    end = api.wait_for_status(task, "failed")
    assert (end["exit_code"], end["error"]["message"]) == (1, "failure requested")


@repeated(10)
def test_repeated_kills(serve, tmp_path, repetition):
    """Whatever the API process was doing (storing, starting, reading), each task runs once."""
    api = serve({"WORKER_MAX_RUNNING": "2"})
    api.sign_in()
    gate = tmp_path / "gate"
    gate.write_text("go")
    inputs = {"gate": str(gate)}
    count = 6 if repetition else 4  # more only for races
    tasks = [api.start_task("gated", input_parameters=inputs) for _ in range(count)]
    for moment_s in (0, 0.01, 0.03, 0.1, 0.3):
        time.sleep(moment_s)  # not to synchronise: the time is the parameter
        api.kill()
        api.start()
    ended = [api.wait_for_status(task, "success", "failed", "cancelled") for task in tasks]
    assert [end["status"] for end in ended] == ["success"] * count
    assert api.runs() == Counter(tasks)
    assert api.stop() == 0
    assert_sound(api)


def test_stop_leaves_workers_running(serve, tmp_path):
    api = serve()
    api.sign_in()
    gate = tmp_path / "gate"
    task = api.start_task("gated", input_parameters={"gate": str(gate)})
    api.wait_for_status(task, "running")
    assert api.stop() == 0
    assert marked_processes(api.mark, "worker.cli run")
    api.start()
    gate.write_text("go")
    assert api.wait_for_status(task, "success")["output"] == {"said": "go"}


def test_second_api_on_a_state_folder_is_refused(serve):
    api = serve()
    second = api.start_refused()
    assert second.returncode == 64
    assert second.stderr.count("\n") == 1
    assert "another `worker serve` uses" in second.stderr


def test_retention(serve, tmp_path):
    """An expired task's files and Idempotency-Key are removed; running tasks are kept."""
    api = serve()
    api.sign_in()
    gate = tmp_path / "gate"
    key = {"idempotency-key": "once"}
    body = {"endpoint_name": "echo", "input_parameters": {"n": 1}}
    old = api.post("/inference", body, headers=key).json()["task_id"]
    running = api.start_task("gated", input_parameters={"gate": str(gate)})
    api.wait_for_status(old, "success")
    api.wait_for_status(running, "running")
    assert api.stop() == 0
    api.environ["WORKER_RETENTION_S"] = "0.1"
    api.start()
    eventually(lambda: api.get(f"/tasks/{old}").status_code == 404, what="the old task removed")
    assert [each.name for each in (api.state / "tasks").iterdir()] == [running]
    assert api.task(running)["status"] == "running"
    again = api.post("/inference", body | {"input_parameters": {"n": 2}}, headers=key)
    assert (again.status_code, again.json()["task_id"]) == (202, old)
    gate.write_text("go")
    eventually(lambda: api.get("/tasks").json()["tasks"] == [], timeout_s=60)
