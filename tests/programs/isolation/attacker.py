"""Tries what a hostile task would try: each probe, on its own targets and on those of others."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

from probes import (  # type: ignore[import-not-found]  # a module beside this one
    PROBES,
    allowed,
    make_segment,
    write,
)

NAME = f"{os.environ.get('TEST_RUN_MARK')}-{os.getpid()}"
PROGRAMS = ("supervisor.supervisord", "Xvfb", "x11vnc", "worker.stream.server")


async def run(page, inputs):
    """Return what was possible, and facts about the task; the input `other`: targets by kind."""
    own, other = own_targets(), json.loads(inputs["other"])
    possible = measured(own, other)
    for url_of in ("file://", "view-source:file://"):
        for name, targets in (("own", own), ("other", other)):
            for path in targets.get("browser", ()):
                if await shows(page, f"{url_of}{path}"):
                    row = next(row for row in PROBES if PROBES[row].kind == "browser")
                    possible[row][name].append(url_of + path)
    return {"possible": possible, "facts": facts()}


def measured(own, other, *, browser=False):
    """For each row, the own and the other targets on which the access was possible.

    Args:
        own: targets by kind.
        other: the same.
        browser: whether to read the files that a browser would be directed to.
    """
    other = {**other, "status": [os.getpid()]}
    return {
        row: {
            name: []
            if probe.kind == "browser" and not browser
            else [each for each in targets.get(probe.kind, ()) if allowed(probe.attempt, each)]
            for name, targets in (("own", own), ("other", other))
        }
        for row, probe in PROBES.items()
    }


def own_targets():
    """What belongs to this task and its session."""
    worker, task = os.getppid(), [os.getpid(), ""]
    session = Path(os.environ["XAUTHORITY"]).parent
    artifacts = Path(os.environ["WORKER_ARTIFACTS_DIR"])
    programs: dict[str, list[object]] = {name: [] for name in PROGRAMS}
    for pid, command_line in command_lines():
        for name in PROGRAMS:
            if name in command_line and is_below(pid, worker):
                programs[name].append([pid, ""])
    supervisord, xvfb, x11vnc, server = programs.values()
    secret = [[worker, ""], *supervisord, *server]
    first = [[1, ""]] if Path("/proc/1/comm").read_text() == "tini\n" else []
    unix_socket = Path(os.environ["TMPDIR"], "own.sock")
    listeners = [listening(str(unix_socket)), listening(f"\0own-{NAME}"), port_of()]
    KEPT.extend(listeners)
    segment, shm_file = make_segment("own"), Path("/dev/shm", f"own-{NAME}")
    shm_file.touch()
    return {
        "artifacts": [str(artifacts), str(own_file(artifacts))],
        "folders": [str(Path.cwd()), os.environ["TMPDIR"]],
        "task": [task],
        "events": [
            str(artifacts.parent / "events.jsonl"),
            *(f"/proc/{pid}/fd/1" for pid, _ in ([worker, ""], *first)),
        ],
        "session": [str(session), str(session / "supervisord.log")],
        "supervisord": supervisord,
        "supervisord_socket": [[each, str(session / "supervisor.sock")] for each in supervisord],
        "keys": [*secret, *first],
        "secret": secret,
        "ordinary": [*xvfb, *x11vnc],
        "processes": [*secret, *xvfb, *x11vnc],
        "x11vnc": [str(session / "x11vnc.sock")],
        "display": [[os.environ["DISPLAY"], os.environ["XAUTHORITY"]]],
        "unix_sockets": [str(unix_socket)],
        "ports": [f"own-{NAME}", listeners[-1].getsockname()[1]],
        "segments": [[segment, "own"]],
        "shm_files": [str(shm_file)],
        "modes": [str(own_file(artifacts))],
        "browser": [str(own_file(artifacts))],
    }


KEPT: list[socket.socket] = []


def command_lines():
    """The processes that are visible: pid and command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield (
                    int(entry.name),
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(),
                )


def is_below(pid, ancestor):
    """Whether a process descends from another."""
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


def listening(path):
    """A Unix socket that listens."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen()
    return made


def port_of():
    """A TCP socket that listens."""
    return socket.create_server(("127.0.0.1", 0))


def own_file(artifacts):
    """A text among the artifacts."""
    path = artifacts / "own.txt"
    path.write_text("own")
    return path


async def shows(page, url):
    """Whether the browser shows a page's text, which is no error."""
    opened = await page.context.new_page()
    try:
        await opened.goto(url)
        text = await opened.inner_text("body")
    except Exception:
        return False
    else:
        return bool(text.strip()) and "ERR_" not in text
    finally:
        await opened.close()


def facts():
    """What must still be possible, and who the task is."""
    Path(os.environ["HOME"], "own.txt").write_text("own")
    argv = [sys.executable, "-c", "print(1 + 1)"]
    child = subprocess.run(argv, check=True, capture_output=True, text=True)
    daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
    os.kill(daemon.pid, 0)
    for folder in ("/dev/shm", os.environ["TMPDIR"]):
        Path(folder, f"left-{NAME}").write_text("left")
    status = Path("/proc/self/status").read_text()
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "no_new_privs": "NoNewPrivs:\t1" in status,
        "no_capabilities": "CapEff:\t0000000000000000" in status,
        "current_folder": allowed(write, "."),
        "child": child.stdout.strip(),
        "daemon": daemon.pid,
        "killed_before_the_api": int(Path("/proc/self/oom_score_adj").read_text()) > 0,
        "processes_max": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "left": [f"left-{NAME}", f"own-{NAME}"],
        "keys": [name for name in os.environ if "KEY" in name or "SECRET" in name],
        "environment": dict(os.environ),
        "surroundings": surroundings(),
    }


def surroundings():
    """What it may have inherited from the API that no program of another account should get."""
    fields = dict(line.split(":\t", 1) for line in STATUS.splitlines() if ":\t" in line)
    files = [str(each.resolve()) for each in Path("/proc/self/fd").iterdir()]
    umask = os.umask(0)
    os.umask(umask)
    return {
        "descriptors": [each for each in files if "inherited" in each],
        "umask": umask,
        "blocked": int(fields["SigBlk"], 16),
        "ignores_sighup": bool(int(fields["SigIgn"], 16) >> (signal.SIGHUP - 1) & 1),
        "capabilities": sum(int(fields[f"Cap{each}"], 16) for each in ("Inh", "Prm", "Eff", "Amb")),
        "leads_its_session": os.getsid(0) == os.getpgrp() == os.getpid(),
        "terminal": has_terminal(),
        "policy": os.sched_getscheduler(0),
        "precedence": [resource.getrlimit(each) for each in (resource.RLIMIT_RTPRIO,
                                                             resource.RLIMIT_NICE)],
        "keys": [each for each in KEYRINGS if has_key(each)],
    }  # fmt: skip


def has_terminal():
    """Whether the process has a controlling terminal."""
    try:
        Path("/dev/tty").open("rb").close()
    except OSError:
        return False
    return True


STATUS = Path("/proc/self/status").read_text()
KEYRINGS = (-1, -2, -3)  # keyrings(7): of the thread, the process and the session


def has_key(keyring):
    """Whether a keyring has the key that the API's has."""
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]  # keyctl(2)
    call = ctypes.CDLL(None).syscall
    return call(number, 10, ctypes.c_long(keyring), b"user", b"worker-test", 0) > 0  # KEYCTL_SEARCH


if __name__ == "__main__":  # as a program of another user, without a task
    print(json.dumps(measured({}, json.load(sys.stdin), browser=True)))
