"""The API with the local runner, end to end: real workers, real viewers, real callbacks."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import os
import signal
import threading
import uuid

import pytest
from rfb_client import Viewer
from viewers import ActiveViewer, idle
from worker_run import eventually, marked_processes

BLUE = (20, 120, 220)
MISSING = {"detail": "Invalid or missing API key"}
NOT_RUNNING = {"detail": "Stream not available: task is not running"}


def not_found(task):
    return {"detail": f"Task {task} not found"}


@pytest.fixture(scope="module")
def shared(shared_serve):
    """An API shared by the tests that need no other setting."""
    return shared_serve({"WORKER_MAX_RUNNING": "2"})


@pytest.fixture
def api(shared):
    """The shared API, without a running task before and after the test."""
    shared.sign_in()
    yield shared
    shared.cancel_all()


@pytest.fixture
def inputs(readable):
    return {"gate": str(readable / "gate")}


def stream(api, task, **more):
    answer = api.get(f"/tasks/{task}/stream", **more)
    return answer.status_code, answer.json()


def test_task_is_watched_to_its_end(api, readable):
    """POST, wait for `running`, get the stream URL, see the pixels, get the outcome."""
    gate = readable / "gate"
    task = api.start_task("painted", input_parameters={"gate": str(gate)})
    api.wait_for_status(task, "running")
    status, body = stream(api, task)
    assert status == 200
    assert list(body) == ["stream_url"]
    assert body["stream_url"].startswith("ws://127.0.0.1:")
    assert f"/tasks/{task}/websockify?token=" in body["stream_url"]
    viewer = Viewer.connect(body["stream_url"])
    eventually(lambda: blue(viewer), what="the task's page")
    watching = ActiveViewer(idle, viewer)
    watching.wait_ready(10)
    gate.write_text("go")
    closed = watching.result(20)
    assert (closed.code, closed.reason) == (1000, "task success")
    end = api.wait_for_status(task, "success")
    assert (end["exit_code"], end["output"], end["error"]) == (0, {"title": "painted"}, None)
    assert end["created_at"] <= end["started_at"] <= end["finished_at"]
    assert stream(api, task) == (409, NOT_RUNNING)


def blue(viewer):
    viewer.request_update(incremental=False)
    viewer.read_update(10)
    return viewer.pixel(960, 700) == BLUE


def test_statuses_in_the_order_of_the_reference(api, inputs):
    """401 before 404, 404 before 409; queued, running and ended."""
    tasks = [api.start_task("gated", input_parameters=inputs) for _ in range(3)]
    api.wait_for_status(tasks[0], "running")
    api.wait_for_status(tasks[1], "running")
    assert stream(api, tasks[2]) == (409, NOT_RUNNING)  # queued
    assert stream(api, tasks[2], headers={"x-api-key": "wk_no"}) == (401, MISSING)
    none = str(uuid.uuid4())
    assert stream(api, none, headers={"x-api-key": ""}) == (401, MISSING)
    assert stream(api, none) == (404, not_found(none))
    assert stream(api, "no-uuid") == (404, not_found("no-uuid"))
    bob = {"x-api-key": api.key("bob")}
    for task in tasks:
        assert stream(api, task, headers=bob) == (404, not_found(task))
    assert stream(api, tasks[0])[0] == 200
    for task in tasks:
        assert api.post(f"/tasks/{task}/cancel").status_code == 202
    for task in tasks:
        api.wait_for_status(task, "cancelled")
        assert stream(api, task) == (409, NOT_RUNNING)


def test_control_needs_a_key_created_for_it(api, inputs):
    task = api.start_task("gated", input_parameters=inputs)
    api.wait_for_status(task, "running")
    status, body = stream(api, task, params={"role": "control"})
    assert status == 403
    assert "may not control" in body["detail"]
    api.sign_in("alice", "--control")
    status, body = stream(api, task, params={"role": "control"})
    assert status == 200
    with Viewer.connect(body["stream_url"]) as viewer:
        assert (viewer.width, viewer.height) == (1920, 1080)


def test_cancel_a_running_task_twice(api, inputs):
    task = api.start_task("gated", input_parameters=inputs)
    api.wait_for_status(task, "running")
    viewer = Viewer.connect(stream(api, task)[1]["stream_url"])
    watching = ActiveViewer(idle, viewer)
    watching.wait_ready(10)
    for _ in range(2):
        assert api.post(f"/tasks/{task}/cancel").status_code == 202
    closed = watching.result(20)
    assert (closed.code, closed.reason) == (1000, "task cancelled")
    assert api.wait_for_status(task, "cancelled")["exit_code"] == 143
    answer = api.post(f"/tasks/{task}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")


def test_cancel_while_starting(api, inputs):
    """At any time: before the process exists, in its first milliseconds, or later."""
    tasks = [api.start_task("gated", input_parameters=inputs) for _ in range(6)]
    for task in tasks:
        assert api.post(f"/tasks/{task}/cancel").status_code == 202
    ended = [api.wait_for_status(task, "success", "failed", "cancelled") for task in tasks]
    assert [end["status"] for end in ended] == ["cancelled"] * 6
    eventually(lambda: not marked_processes(api.mark, "worker.cli run"), what="their workers' end")


def test_killed_worker_fails_its_task(api, inputs):
    task = api.start_task("gated", input_parameters=inputs)
    api.wait_for_status(task, "running")
    [pid] = marked_processes(api.mark, "worker.cli run")
    os.kill(pid, signal.SIGKILL)
    end = api.wait_for_status(task, "failed")
    assert end["exit_code"] == 137
    assert end["error"]["type"] == "WorkerDied"
    assert "was killed by signal 9" in end["error"]["message"]
    echo = api.start_task("echo", input_parameters={"a": ["ä", 1.5, None]})
    # The killed worker does not count against the limit of running tasks.
    assert api.wait_for_status(echo, "success")["output"] == {"a": ["ä", 1.5, None]}
    eventually(lambda: not api.leftovers(), what="its temporary folder removed")


def test_artifacts_are_downloads(api, readable):
    gate = readable / "gate"
    gate.write_text("go")
    task = api.start_task("painted", input_parameters={"gate": str(gate)})
    api.wait_for_status(task, "success")
    listed = {each["name"] for each in api.get(f"/tasks/{task}/artifacts").json()["artifacts"]}
    assert {"result.json", "task.log", "screen.png", "evil.html", "two\nlines"} <= listed
    got = api.get(f"/tasks/{task}/artifacts/screen.png")
    assert got.content.startswith(b"\x89PNG")
    got = api.get(f"/tasks/{task}/artifacts/evil.html")
    assert got.headers["content-disposition"].startswith("attachment")
    assert api.get(f"/tasks/{task}/artifacts/two%0Alines").content == b"of a name"
    for name in ("%2e%2e/events.jsonl", "..%2flock", "%2fetc%2fpasswd"):
        assert api.get(f"/tasks/{task}/artifacts/{name}").status_code == 404


def test_api_variables_do_not_reach_a_task(serve, tmp_path):
    """The master secret does not; a variable for every worker reaches the worker."""
    api = serve(
        {"WORKER_STREAM_SECRET": "s" * 40, "WORKER_CHROMIUM_SANDBOX": "auto", "WORKER_COUNT": "3"}
    )
    assert api.event("setting.unknown")["name"] == "WORKER_COUNT"
    api.sign_in()
    task = api.start_task("environment")
    seen = api.wait_for_status(task, "success")["output"]
    own = {name for name in seen if name.startswith("WORKER_")}
    assert own == {"WORKER_ARTIFACTS_DIR", "WORKER_CHROMIUM", "WORKER_INPUTS", "WORKER_TASK_ID"}
    assert "s" * 40 not in json.dumps(seen)


def test_full_queue(serve, tmp_path):
    inputs = {"gate": str(tmp_path / "gate")}
    api = serve({"WORKER_MAX_RUNNING": "1", "WORKER_QUEUE_MAX": "1"})
    api.sign_in()
    first = api.start_task("gated", input_parameters=inputs)
    api.wait_for_status(first, "running")
    api.start_task("gated", input_parameters=inputs)
    answer = api.post("/inference", {"endpoint_name": "gated"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_callback_is_signed(serve):
    received = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((dict(self.headers), body))
            self.send_response(200 if len(received) > 1 else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Log nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        api = serve({"WORKER_CALLBACK_PRIVATE": "true"})
        api.sign_in()
        url = f"http://127.0.0.1:{server.server_port}/done"
        task = api.start_task("echo", input_parameters={"n": 7}, callback_url=url)
        api.event("callback.delivered", wanted=lambda event: event["task_id"] == task)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    headers, body = received[-1]
    assert (json.loads(body)["status"], json.loads(body)["output"]) == ("success", {"n": 7})
    secret = api.key("alice", "--callback-secret")
    signed = headers["x-worker-timestamp"].encode() + b"." + body
    wanted = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["x-worker-signature"] == f"sha256={wanted}"


def test_callback_to_loopback_is_refused(api):
    answer = api.post("/inference", {"endpoint_name": "echo", "callback_url": "http://127.0.0.1/"})
    assert answer.status_code == 422
    task = api.start_task("echo", callback_url="http://localhost:1/")
    failed = api.event("callback.failed", wanted=lambda event: event["task_id"] == task)
    assert "which is not public" in failed["why"]


def test_revoked_key(api):
    assert api.get("/tasks").status_code == 200
    api.key("alice", "--revoke")
    assert api.get("/tasks").json() == MISSING
