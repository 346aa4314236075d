"""The security model's tables, row by row, on a host: real processes measure every cell."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sysconfig
from pathlib import Path

import psutil
import pytest
from event_process import EventProcess
from isolated_api import USER
from required import skip_or_fail
from security_tables import differences, probes, table
from viewer_access import PROBES, callers
from worker_run import MARK, eventually

from worker.api.runners.local.isolation import environment
from worker.api.runners.local.isolation.enter import PROCESSES_MAX
from worker.linux import SIGNALS_ABI, landlock_abi, mounts_errno

OTHER_USER = 64_998
# How the API is started, the mechanism that it reports, and the column of the table.
MECHANISMS = {
    "uids": ("uids+landlock", "uids"),
    "landlock-as-root": ("landlock", "Landlock"),
    "landlock-as-user": ("landlock", "Landlock"),
}
OFF = {"WORKER_LOCAL_ISOLATION": "off", "WORKER_LOCAL_SHARED": "true"}
SECRETS = dict.fromkeys(
    ("AWS_SECRET_ACCESS_TOKEN", "KUBECONFIG", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS",
     "XDG_RUNTIME_DIR", "DISPLAY", "XAUTHORITY", "PYTHONSTARTUP", "LD_BIND_NOW", "NODE_OPTIONS",
     "PLAYWRIGHT_OTHER", "DATABASE_URL"), ""
)  # fmt: skip
# Of the variables of a task, those that its session sets.
OF_THE_SESSION = {"DISPLAY", "XAUTHORITY", "PYTHONUNBUFFERED"}
OWN = {f"WORKER_{name}" for name in ("CHROMIUM", "TASK_ID", "ARTIFACTS_DIR", "INPUTS")}
ELSEWHERE = ["/etc", "/var/tmp", sysconfig.get_path("purelib")]


def started(api, mechanism, inherited):
    if landlock_abi() < SIGNALS_ABI or mounts_errno():
        skip_or_fail("Landlock and mount namespaces", "use Linux 6.12 or newer")
    env = {"WORKER_LOCAL_ISOLATION": "landlock"} if mechanism == "landlock-as-root" else {}
    made = api(env | SECRETS, as_user=mechanism == "landlock-as-user")
    made.surroundings = {"preexec_fn": spoil_surroundings, "pass_fds": [inherited]}
    made.start()
    event = made.event("isolation.enabled")
    assert event["mechanism"] == MECHANISMS[mechanism][0]
    assert event["abi"] == landlock_abi()
    return made


def spoil_surroundings():
    """Change what a process inherits, as a shell or a service manager may have done."""
    os.umask(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    syscall = ctypes.CDLL(None).syscall
    keyctl, add_key = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
    syscall(keyctl, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
    syscall(add_key, b"user", b"worker-test", b"secret", 6, ctypes.c_long(-3))


def assert_nothing_inherited(facts):
    """The task has the documented variables only, and the same surroundings in every case."""
    chosen = environment.passed_on(facts["environment"], [MARK])
    own = {name for name in facts["environment"] if name.startswith("WORKER_")}
    assert facts["environment"].keys() - chosen.keys() - own == OF_THE_SESSION
    assert own == OWN
    assert facts["surroundings"] == {
        "descriptors": [],
        "umask": 0o077,
        "blocked": 0,
        "ignores_sighup": False,
        "capabilities": 0,
        "leads_its_session": True,
        "terminal": False,
        "policy": os.SCHED_OTHER,
        "precedence": [[0, 0], [0, 0]],
        "keys": [],
    }


def attack(api, victim, *, elsewhere=()):
    """What a task of another account, started by the API, can do: its output."""
    other = victim.targets | {"elsewhere": [*victim.targets["elsewhere"], *elsewhere]}
    api.sign_in("alice")
    task = api.start_task("attacker", input_parameters={"other": json.dumps(other)})
    end = api.wait_for_status(task, "success", "failed")
    assert end["status"] == "success", end["error"]
    return task, end["output"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_isolated_task(isolated_api, mechanism, tmp_path):
    """It can do what the table states, needs nothing more, inherits nothing, and leaves nothing."""
    with (tmp_path / "inherited").open("w") as inherited:
        made = started(isolated_api, mechanism, inherited.fileno())
    victim = made.start_victim()
    stream = made.get(f"/tasks/{victim.task_id}/stream").json()["stream_url"]
    attacker, output = attack(made, victim, elsewhere=ELSEWHERE)
    assert differences(MECHANISMS[mechanism][1], output["possible"]) == {}
    facts = output["facts"]
    assert facts["child"] == "2"
    assert facts["current_folder"]
    assert facts["keys"] == []
    assert_nothing_inherited(facts)
    assert (facts["no_new_privs"], facts["no_capabilities"]) == (True, True)
    assert (facts["uid"] in range(70_000, 71_000)) == (mechanism == "uids")
    assert facts["killed_before_the_api"]
    if mechanism == "uids":
        assert facts["groups"] == []
        assert 0 < facts["processes_max"] <= PROCESSES_MAX
    assert_cleaned_up(made, attacker, facts)
    assert made.get(f"/tasks/{attacker}/artifacts/own.txt").text == "own"
    if mechanism == "landlock-as-user":
        assert differences("other user", of_another_user(made, victim)) == {}
    made.sign_in("bob")
    assert stream.partition("/tasks/")[0] == address_after_restart(made, victim.task_id)
    made.post(f"/tasks/{victim.task_id}/cancel")
    made.wait_for_status(victim.task_id, "cancelled")


def assert_cleaned_up(api, attacker, facts):
    """Its daemon is killed; with a uid of its own, its files elsewhere are removed as well."""
    eventually(lambda: not psutil.pid_exists(facts["daemon"]), what="the daemon's end")
    left = [Path("/dev/shm", name) for name in facts["left"]]
    if facts["uid"] not in range(70_000, 71_000):
        return  # its user is the API's; the test removes them
    assert not [path for path in left if path.exists()]
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


def processes_of(numbers):
    return [each.pid for each in psutil.process_iter() if each.uids().real in numbers]


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


def of_another_user(api, victim):
    """What a process of another user of the machine can do."""
    return json.loads(
        subprocess.run(
            [api.python, "-B", str(api.endpoints / "attacker.py")],
            input=json.dumps(victim.targets),
            user=OTHER_USER,
            group=OTHER_USER,
            extra_groups=(),
            env={},
            cwd="/",
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )


def run_attack(api, victim, env=None):
    """What the task of a `worker run` of the API's user can do."""
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    artifacts = api.folder / "run"
    worker = EventProcess(
        [*(as_user if api.user else []), api.python, "-m", "worker.cli", "run",
         str(api.endpoints / "attacker.py"), "--artifacts-dir", str(artifacts), "--port", "0",
         "--input", f"other={json.dumps(victim.targets)}"],
        stderr=api.folder / "run.stderr",
        env={k: v for k, v in api.environ.items() if not k.startswith("WORKER_")} | (env or {}),
        cwd=api.endpoints,  # a confined task can read it
    )  # fmt: skip
    assert worker.wait(timeout_s=60) == 0, worker.stderr
    output = json.loads((artifacts / "result.json").read_text())["output"]
    return output["possible"]


def missing_targets(possible, targets):
    """What root could not access either, of the rows that allow it: it does not exist."""
    return {
        row: missing
        for row, probe in probes().PROBES.items()
        if probe.kind in targets and probe.kind != "browser" and possible[row]["other"]
        if (missing := [each for each in targets[probe.kind] if each not in possible[row]["other"]])
    }


@pytest.mark.parametrize("column", ["root", "user"])
def test_task_that_is_not_isolated(isolated_api, column):
    """Started by the API or by `worker run`, with WORKER_CONFINE the latter is isolated as well."""
    made = isolated_api(OFF, as_user=column == "user").start()
    victim = made.start_victim()
    _, output = attack(made, victim)
    assert differences(column, output["possible"]) == {}
    if column == "root":
        assert missing_targets(output["possible"], victim.targets) == {}
    assert differences(column, run_attack(made, victim)) == {}
    if landlock_abi() >= SIGNALS_ABI:
        assert differences("Landlock", run_attack(made, victim, {"WORKER_CONFINE": "true"})) == {}


def test_viewers_and_accounts(isolated_api):
    """They can do what the table states."""
    made = isolated_api(OFF).start()
    victim = made.start_victim()
    keys = made.key("bob", "--control"), made.key("alice", "--control")
    found = callers(victim, *keys)
    expected = table("access of viewers and accounts")
    measured = {
        column: {row: "yes" if probe(caller) else "no" for row, probe in PROBES.items()}
        for column, caller in found.items()
    }
    assert measured == expected
