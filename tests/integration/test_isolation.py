"""The local runner where nothing isolates tasks; its uids, and keys that one has left."""

from __future__ import annotations

import ctypes
import json
import os
import pwd

import psutil
import pytest
from isolated_api import PRIVATE
from worker_run import eventually

from worker import linux
from worker.api.runners.local.isolation import cpu_shares


def test_not_isolated(isolated_api):
    """It is reported; one account only, unless WORKER_LOCAL_SHARED is set."""
    made = isolated_api({"WORKER_LOCAL_ISOLATION": "off"}).start()
    missing = made.event("isolation.missing")
    assert missing["why"] == "WORKER_LOCAL_ISOLATION is off"
    made.sign_in("alice")
    task = made.start_task("victim", input_parameters={"private": PRIVATE})
    made.wait_for_status(task, "running")
    with (made.state / "tasks" / task / "events.jsonl").open("a") as file:
        forged = {"event": "stream.ready", "time": "2000-01-01T00:00:00Z", "host": "evil.example"}
        file.write(json.dumps(forged | {"port": 80}) + "\n" + "[" * 4000 + "\n")
    made.post(f"/tasks/{task}/cancel")  # its events follow the forged one
    made.wait_for_status(task, "cancelled")
    assert made.task(task)["started_at"] > "2001"
    made.sign_in("bob")
    body = {"endpoint_name": "victim", "input_parameters": {}}
    answer = made.post("/inference", body)
    assert answer.status_code == 403
    assert "one account only" in answer.json()["detail"]
    assert made.stop() == 0
    refused = made.start_refused()
    assert refused.returncode == 64
    assert refused.stderr.count("\n") == 1
    assert "WORKER_LOCAL_SHARED=true" in refused.stderr
    assert "bob" in refused.stderr
    made.environ["WORKER_LOCAL_SHARED"] = "true"
    made.start()
    assert made.post("/inference", body).status_code == 202


def test_uids_that_a_user_has_are_refused(isolated_api):
    """The user's processes would be killed with a task's."""
    user = max(pwd.getpwall(), key=lambda each: each.pw_uid)
    refused = isolated_api(
        {"WORKER_LOCAL_UIDS": f"{user.pw_uid - 9}-{user.pw_uid}"}
    ).start_refused()
    assert refused.returncode == 64
    assert "WORKER_LOCAL_UIDS" in refused.stderr
    assert user.pw_name in refused.stderr


def test_keys_of_an_earlier_process_are_forgotten():
    """Those of the inherited session keyring, and those that the same uid has left in its own."""
    if os.geteuid() != 0 or os.uname().machine not in linux._KEYCTL_CALLS:
        pytest.skip("only root can become another user")
    call, (keyctl, add_key) = ctypes.CDLL(None).syscall, {
        "x86_64": (250, 248), "aarch64": (219, 217)
    }[os.uname().machine]  # fmt: skip
    keyrings = (-3, -4, -5)  # keyrings(7): of the session, the user, and the user's sessions

    def keys():
        found = [
            call(keyctl, 10, ctypes.c_long(each), b"user", b"worker-test", 0)  # KEYCTL_SEARCH
            for each in keyrings
        ]
        return [each > 0 for each in found]

    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(*3 * [4_000_000_030])
            call(keyctl, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
            for each in keyrings:
                call(add_key, b"user", b"worker-test", b"a", 1, ctypes.c_long(each))
            before = keys()
            linux.forget_keys()
            os._exit(0 if before != [True] * 3 else 2 if any(keys()) else 1)
        finally:
            os._exit(3)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        pytest.skip("keyctl(2) is not permitted")
    assert os.waitstatus_to_exitcode(status) == 1


def test_cgroup_of_a_task(isolated_api):
    """A task's processes belong to one, next to the API's, which is removed after its end."""
    parent = cpu_shares.detect().parent
    if parent is None or not os.access(parent.parent, os.W_OK):
        pytest.skip("needs root, and a writable file system of cgroups")
    made = isolated_api().start()
    victim = made.start_victim()
    (worker,) = linux.pids_with_arguments("--task-id", victim.task_id)
    uid = psutil.Process(worker).uids().real
    group = parent / str(uid)
    outside = [
        pid
        for pid in linux.running_processes_of(uid)
        if str(pid) not in (group / "cgroup.procs").read_text().split() and psutil.pid_exists(pid)
    ]
    assert not outside
    made.post(f"/tasks/{victim.task_id}/cancel")
    eventually(lambda: not group.exists(), timeout_s=20, what="its removal")
