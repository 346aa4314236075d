"""The local runner isolates tasks from the API, from the machine, and from each other."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import sys
import sysconfig
import tempfile
from pathlib import Path

import psutil
import pytest
from required import skip_or_fail
from worker_run import PROGRAMS, eventually, marked_processes
from worker_serve import WorkerServe

from worker.api.runners.local.isolation.enter import PROCESSES_MAX
from worker.linux import SIGNALS_ABI, landlock_abi, mounts_errno

ENDPOINTS = PROGRAMS / "isolation"
USER = 64_999
PRIVATE = "the-private-text-of-another-account"
MECHANISMS = {
    "uids": "uids+landlock",
    "landlock-as-root": "landlock",
    "landlock-as-user": "landlock",
}


class Api(WorkerServe):
    """One that runs as root, or as another user."""

    def __init__(self, folder, env=None, *, as_user=False):
        super().__init__(folder, {"WORKER_ENDPOINTS_DIR": str(ENDPOINTS)} | (env or {}))
        if as_user:
            self.python = python_for_every_user(folder)
            self.user = {"user": USER, "group": USER, "extra_groups": ()}
            self.environ["HOME"] = str(folder)
            for path in (folder, self.tmpdir):
                os.chown(path, USER, USER)


def python_for_every_user(folder):
    """This interpreter with its packages, or Debian's of the same version, if it is below /root."""
    found = Path(sys.executable).resolve()
    if all(parent.stat().st_mode & 0o001 for parent in found.parents):
        return sys.executable
    debian = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    if not debian.exists():
        skip_or_fail("a Python that every user can execute", f"install {debian.name}")
    packages = folder / f"venv/lib/{debian.name}/site-packages"
    packages.mkdir(parents=True)
    (packages / "paths.pth").write_text(f"{sysconfig.get_path('purelib')}\n{PROGRAMS.parents[1]}\n")
    (folder / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "venv/bin").mkdir()
    (folder / "venv/bin/python").symlink_to(debian)
    return str(folder / "venv/bin/python")


def processes_of(uids):
    return [each.pid for each in psutil.process_iter() if each.uids().real in uids]


@pytest.fixture
def api(display_programs):
    """Start APIs as root or as a user; nothing of them is left after the test."""
    if os.geteuid() != 0:
        skip_or_fail("root", "run the tests as root")
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: sockets live below it
    folder.chmod(0o755)
    made: list[Api] = []

    def make(env=None, *, as_user=False):
        made.append(Api(folder / str(len(made)), env, as_user=as_user))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.end()
    left = [line for each in made for line in each.leftovers()]
    shutil.rmtree(folder)
    assert not left


def started(api, mechanism):
    if landlock_abi() < SIGNALS_ABI or mounts_errno():
        skip_or_fail("Landlock and mount namespaces", "use Linux 6.12 or newer")
    env = {"WORKER_LOCAL_ISOLATION": "landlock"} if mechanism == "landlock-as-root" else {}
    made = api(env, as_user=mechanism == "landlock-as-user").start()
    event = made.event("isolation.enabled")
    assert event["mechanism"] == MECHANISMS[mechanism]
    assert event["abi"] == landlock_abi()
    return made


def attacks(api, victim):
    """What the attacker tries: paths and processes of the API and of the other account's task."""
    state = api.state
    task = state / "tasks" / victim
    session = Path(json.loads((task / "events.jsonl").read_text().partition("\n")[0])["folder"])
    [worker] = [
        pid for pid in marked_processes(api.mark, "worker.cli run") if victim in cmdline(pid)
    ]
    [child] = [
        each.pid for each in psutil.Process(worker).children() if "task.child" in cmdline(each.pid)
    ]
    files = [
        state / name for name in ("stream-secret", "api-keys.json", "tasks.sqlite3", "api.lock")
    ]
    files += [
        task / name
        for name in ("events.jsonl", "lock", "stderr", "artifacts/private.txt", "home/private.txt")
    ]
    files += [session / name for name in ("supervisord.conf", "Xauthority", "tmp/private.txt")]
    folders = [state, state / "tasks", task, task / "artifacts", session]
    elsewhere = [
        ENDPOINTS / "victim.py",
        ENDPOINTS,
        Path("/etc"),
        Path("/var/tmp"),
        Path(sysconfig.get_path("purelib")),
    ]
    return {
        "private": PRIVATE,
        "read": [str(path) for path in (*files, *folders)],
        "open": [str(state / "stream-secret"), str(task / "artifacts/private.txt")],
        "write": [str(path) for path in (*files, *folders, *elsewhere)],
        "processes": [api.process.pid, worker, child],
    }  # fmt: skip


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_hostile_task(api, mechanism):
    """It gets nothing of the API or of another account's task, and keeps all that it needs."""
    made = started(api, mechanism)
    made.sign_in("bob")
    victim = made.start_task("victim", input_parameters={"private": PRIVATE})
    made.wait_for_status(victim, "running")
    private = made.state / "tasks" / victim / "home/private.txt"
    eventually(private.exists, timeout_s=20, what="the victim's files")
    stream = made.get(f"/tasks/{victim}/stream").json()["stream_url"]
    inputs = attacks(made, victim)
    made.sign_in("alice")
    attacker = made.start_task("attacker", input_parameters=inputs)
    end = made.wait_for_status(attacker, "success", "failed")
    assert end["status"] == "success", end["error"]
    denied, facts = end["output"]["denied"], end["output"]["facts"]
    assert [name for name, was_denied in denied.items() if not was_denied] == []
    assert len(denied) > len(inputs["read"]) + len(inputs["write"])
    assert facts["child"] == "2"
    assert facts["keys"] == []
    assert (facts["no_new_privs"], facts["no_capabilities"]) == (True, True)
    assert (facts["uid"] in range(70_000, 71_000)) == (mechanism == "uids")
    assert facts["killed_before_the_api"]
    if mechanism == "uids":
        assert facts["groups"] == []
        assert 0 < facts["processes_max"] <= PROCESSES_MAX
    assert_cleaned_up(made, attacker, facts)
    assert made.get(f"/tasks/{attacker}/artifacts/own.txt").text == "own"
    made.sign_in("bob")
    assert stream.partition("/tasks/")[0] == address_after_restart(made, victim)
    made.post(f"/tasks/{victim}/cancel")
    made.wait_for_status(victim, "cancelled")


def assert_cleaned_up(api, attacker, facts):
    """Its daemon is killed; with a uid of its own, its files elsewhere are removed as well."""
    eventually(lambda: not psutil.pid_exists(facts["daemon"]), what="the daemon's end")
    left = Path("/dev/shm", facts["left"])
    if facts["uid"] not in range(70_000, 71_000):
        left.unlink()
        return
    assert not left.exists()
    eventually(lambda: uids(api)[attacker] is None, what="the uid is free")
    assert processes_of([facts["uid"]]) == []
    folder = api.state / "tasks" / attacker
    assert sorted(path.name for path in folder.iterdir()) == [
        "artifacts",
        "events.jsonl",
        "lock",
        "stderr",
    ]
    assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {0}


def uids(api):
    with sqlite3.connect(api.state / "tasks.sqlite3") as connection:
        return dict(connection.execute("SELECT task_id, uid FROM tasks"))


def address_after_restart(api, task):
    """The stream's address from the next API process."""
    api.kill()
    api.start()
    found = eventually(lambda: stream_url(api, task), what="the worker is found again")
    return found.partition("/tasks/")[0]


def stream_url(api, task):
    answer = api.get(f"/tasks/{task}/stream")
    return answer.json()["stream_url"] if answer.status_code == 200 else None


def test_not_isolated(api):
    """It is reported; one account only, unless WORKER_LOCAL_SHARED is set."""
    made = api({"WORKER_LOCAL_ISOLATION": "off"}).start()
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


def test_uids_that_a_user_has_are_refused(api):
    """The user's processes would be killed with a task's."""
    user = max(pwd.getpwall(), key=lambda each: each.pw_uid)
    refused = api({"WORKER_LOCAL_UIDS": f"{user.pw_uid - 9}-{user.pw_uid}"}).start_refused()
    assert refused.returncode == 64
    assert "WORKER_LOCAL_UIDS" in refused.stderr
    assert user.pw_name in refused.stderr
