"""Start-up does not depend on what a worker inherits: variables, folders, descriptors, signals."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from worker_run import COMMAND, PROGRAMS, WorkerRun, eventually

TASKS = str(PROGRAMS / "tasks.py")
DEAD_PROXY = "http://127.0.0.1:9"
PROXIES = {
    name: DEAD_PROXY
    for each in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for name in (each, each.lower())
}
BLOCKS_SIGNALS = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"""


def shell(script):
    """A wrapper that executes the command line after it as `"$@"` of a shell script."""
    return ("sh", "-c", script, "sh")


# -- TMPDIR


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("a ;b #c %f 's \"h é $i\\j", True),
        ("x" * 200, False),
        ("a\nb", False),
        ("\udce9", False),
    ],
    ids=["special characters", "long", "line break", "not UTF-8"],
)
def test_tmpdir(run, tmp_path, name, used):
    """A browser starts in it if its sockets can be there, else in /tmp; nothing is left in it."""
    folder = Path("/tmp") / f"t-{os.getpid()}-{name}"
    folder.mkdir()
    # Where it is not used, the browser has the same folder as without a TMPDIR.
    target = "titled" if used else "temporary"
    try:
        worker = run(f"{TASKS}:{target}", env={"TMPDIR": str(folder)})
        assert worker.wait() == 0, worker.stderr
        assert list(folder.iterdir()) == []
        assert not worker.session_folder.exists()
        assert worker.session_folder.parent == (folder if used else Path("/tmp"))
        if not used:
            assert Path(worker.result["output"]).is_relative_to(worker.session_folder)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["missing", "a file", "read-only"])
def test_unusable_tmpdir(run, tmp_path, kind):
    """One line says that TMPDIR cannot be written to; the exit code is 64."""
    file = tmp_path / "file"
    file.write_text("")
    place = {"missing": tmp_path / "none", "a file": file, "read-only": Path("/proc")}[kind]
    worker = run("--", "true", env={"TMPDIR": str(place)})
    assert worker.wait() == 64
    assert worker.stderr.count("\n") == 1
    assert str(place) in worker.stderr
    assert "TMPDIR" in worker.stderr


# -- descriptors, limits, signals, variables

SHELLS = {
    "no stdin": 'exec "$@" <&-',
    "no stdout": 'exec "$@" >&-',
    "no stderr": 'exec "$@" 2>&-',
    "no descriptor": 'exec "$@" <&- >&- 2>&-',
    "full stdout": 'exec "$@" >/dev/full',
    "full stdout and stderr": 'exec "$@" >/dev/full 2>&1',
    "256 descriptors": 'ulimit -n 256; exec "$@"',
    "150 descriptors": 'ulimit -n 150; exec "$@"',
    "umask 000": 'umask 000; exec "$@"',
    "umask 077": 'umask 077; exec "$@"',
    "read-only folder": 'cd /proc; exec "$@"',
    "ignored signals": "trap '' CHLD TERM INT QUIT USR1 USR2 ALRM PIPE; exec \"$@\"",
}
VARIABLES = {
    "proxies, no HOME": PROXIES | {"HOME": None},
    "Python's variables, HOME does not exist": {
        "PYTHONHOME": "/nonexistent",
        "PYTHONHASHSEED": "x",
        "PYTHONMALLOC": "x",
        "PYTHONSTARTUP": "/nonexistent",
        "PYTHONINSPECT": "1",
        "HOME": "/nonexistent",
    },
    "HOME cannot be written to": {"HOME": "/proc"},
    "empty": {name: None for name in os.environ if name not in ("PATH", "HOME")},
}


@pytest.mark.parametrize("script", SHELLS.values(), ids=SHELLS)
def test_inherited(run, script):
    """A function's process starts, and the exit code is the task's."""
    worker = run(f"{TASKS}:plain", "--input", "a=1", wrapper=shell(script))
    assert worker.wait() == 0, worker.stderr
    assert worker.result["output"] == {"a": "1"}
    assert (worker.artifacts / "task.log").read_text().split() == ["out", "err"]


@pytest.mark.parametrize("env", VARIABLES.values(), ids=VARIABLES)
def test_variables(run, env):
    """A browser starts, whatever these variables are."""
    worker = run(f"{TASKS}:titled", env=env)
    assert worker.wait() == 0, worker.stderr


def test_no_home_directory(run):
    """A browser starts for a user without HOME that /etc/passwd does not contain."""
    script = 'mount --bind /dev/null /etc/passwd && exec env -u HOME "$@"'
    wrapper = ("unshare", "--mount", *shell(script))
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount in a namespace")
    worker = run(f"{TASKS}:titled", wrapper=wrapper)
    assert worker.wait() == 0, worker.stderr


def test_blocked_signals(run):
    """A worker that was started with all signals blocked is cancelled by SIGTERM."""
    worker = run("--", "sleep", "600", wrapper=(sys.executable, "-c", BLOCKS_SIGNALS))
    worker.event("task.started")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 143
    assert worker.result["status"] == "cancelled"


def test_nohup(run, tmp_path):
    """With SIGHUP ignored at the start, as by nohup(1), it stays ignored."""
    go = tmp_path / "go"
    script = f"until [ -e {go} ]; do sleep 0.05; done; exit 3"
    worker = run("--", "sh", "-c", script, wrapper=shell("trap '' HUP; exec \"$@\""))
    worker.event("task.started")
    worker.signal(signal.SIGHUP)
    go.touch()
    assert worker.wait() == 3


ASCII = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


def test_ascii(run, tmp_path):
    """Inputs, file names, output and errors keep their characters where the locale is ASCII."""
    (tmp_path / "tâche.py").write_text(
        "def run(inputs):\n    print(inputs['n'])\n    raise LookupError('ñ \\udcff')\n",
        encoding="utf-8",
    )
    folder = tmp_path / "é"
    options = ("--input", "n=é ✓", "--artifacts-dir", str(folder))
    worker = run(str(tmp_path / "tâche.py"), *options, env=ASCII)
    assert worker.wait() == 1, worker.stderr
    assert "é ✓" in (folder / "task.log").read_text(encoding="utf-8")
    assert worker.events[0]["target"].endswith("tâche.py")
    assert worker.events[-1]["error"] == "LookupError: ñ \udcff"
    refused = run("tâche.py", env=ASCII)
    assert refused.wait() == 64
    assert "no such file: tâche.py" in refused.stderr


def test_removed_working_directory(run, tmp_path):
    """A worker with an absolute artifacts folder runs; otherwise one line says what to do."""
    gone = shell(f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$@"')
    worker = run(f"{TASKS}:titled", wrapper=gone)
    assert worker.wait() == 0, worker.stderr
    refused = run(f"{TASKS}:titled", wrapper=gone, env={"WORKER_ARTIFACTS_DIR": None})
    assert refused.wait() == 64
    assert "the working directory was removed" in refused.stderr


@pytest.mark.parametrize(("hidepid", "target"), [(1, "plain"), (2, "plain"), (4, "titled")])
def test_hidden_processes(run, hidepid, target):
    """A worker starts, runs and cleans up where /proc hides processes that it may not trace.

    Without capabilities, root's processes that are not dumpable are hidden from it, as from others.
    """
    script = (
        f"mount -t proc -o hidepid={hidepid} proc /proc && "
        'exec setpriv --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all "$@"'
    )
    wrapper = ("unshare", "--mount", "--pid", "--fork", "--kill-child", *shell(script))
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount /proc in a namespace")
    worker = run(f"{TASKS}:{target}", wrapper=wrapper)
    assert worker.wait() == 0, worker.stderr
    assert worker.events[-1]["event"] == "worker.finished"


# -- stdout


def test_reader_that_ends(display_programs, tmp_path):
    """`worker run … | head -n 1`: the task continues, and the exit code is its own."""
    command = f"{COMMAND} run --port 0 --artifacts-dir {tmp_path}/a -- sh -c 'exit 3'"
    script = f"{{ {command}; echo $? >{tmp_path}/code; }} | head -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["event"] == "worker.started"
    assert (tmp_path / "code").read_text() == "3\n"


def test_reader_that_does_not_read(display_programs, tmp_path):
    """Events that are not read do not delay the task."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b" " * 4096)
    os.set_blocking(write, True)
    try:
        command = [COMMAND, "run", "--port", "0", "--artifacts-dir", tmp_path, "--", "true"]
        done = subprocess.run(command, stdout=write, timeout=60, check=False)
    finally:
        os.close(read)
        os.close(write)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ('"$@" doctor | head -n 1 >/dev/null; exit "${PIPESTATUS[0]}"', 141, ""),
        ('"$@" --help | true; exit "${PIPESTATUS[0]}"', 141, ""),
        ('"$@" doctor >/dev/full', 1, "cannot write to stdout: No space left on device\n"),
        ('"$@" run no.py 2>/dev/full', 64, ""),
        ('"$@" run no.py 2>&-', 64, ""),
        ('"$@" doctor >&-', 0, ""),
    ],
)
def test_output_of_a_command(display_programs, script, code, text):
    """Output that cannot be written is no traceback; of SIGPIPE's meaning only the code is left."""
    done = subprocess.run(
        ["bash", "-c", script, "bash", COMMAND],
        env={**os.environ, "WORKER_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, f"worker: {text}" if text else "")


# -- modules

NAMES = sorted(sys.stdlib_module_names | {"worker", "playwright", "sitecustomize", "usercustomize"})


@pytest.fixture
def shadows(tmp_path):
    """A folder with a module for each one of the standard library; one that runs leaves a file."""
    folder = tmp_path / "shadows"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')")
    return folder


TASK = """
import json, pathlib, time
import of_the_task, of_pythonpath

def run():
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    return [json.__file__, of_the_task.VALUE, of_pythonpath.VALUE]
"""


def test_modules_of_a_task(run, tmp_path, shadows):
    """No process imports a module from the working directory, the task's folder or PYTHONPATH.

    A stream server that is started again does not either; the task finds its own modules.
    """
    (shadows / "of_the_task.py").write_text("VALUE = 1")
    (tmp_path / "of_pythonpath.py").write_text("VALUE = 2")
    (shadows / "random.py").write_text(TASK)
    env = {"PYTHONPATH": f"{shadows}:{tmp_path}", "PYTHONUSERBASE": str(shadows)}
    worker = run("random.py", cwd=shadows, env=env)
    worker.event("task.started")
    os.kill(worker.pid("worker.stream.server"), signal.SIGKILL)
    worker.event("websockify.restarted")
    (shadows / "go").touch()
    assert worker.wait() == 0, worker.stderr
    assert worker.result["output"] == [json.__file__, 1, 2]
    assert not (tmp_path / "ran").exists()


def test_module_in_pythonpath(run, tmp_path):
    """TARGET may be a module in PYTHONPATH, or in the working directory."""
    for folder, name in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text("def run(): return __name__")
    for name in ("first", "second"):
        worker = run(name, cwd=tmp_path / "b", env={"PYTHONPATH": str(tmp_path / "a")})
        assert worker.wait() == 0, worker.stderr
        assert worker.result["output"] == name


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["doctor"],
        ["stream-key", "a"],
        ["stream-url", "--task-id", "a"],
        ["api-key", "--list"],
        ["serve"],
    ],
    ids=lambda command: command[0],
)
def test_modules_of_a_command(display_programs, tmp_path, shadows, command):
    """No command imports a module from the working directory or PYTHONPATH."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        env = {
            "PYTHONPATH": str(shadows),
            "WORKER_STREAM_SECRET": "s" * 32,
            "WORKER_STATE_DIR": str(tmp_path / "state"),
            "WORKER_API_PORT": str(listener.getsockname()[1]),  # in use: `serve` ends with 64
            "WORKER_PORT": "0",
        }
        done = subprocess.run(
            [COMMAND, *command],
            env={**os.environ, **env},
            cwd=shadows,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == (64 if command == ["serve"] else 0), done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("module", ["worker", "worker.cli"])
def test_python_dash_m(tmp_path, shadows, module):
    """`python -m worker` imports no module of the standard library from the working directory."""
    (shadows / "worker.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=shadows,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stream-key" in done.stdout
    assert not (tmp_path / "ran").exists()


# -- the API


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_signals_of_the_api(serve, number):
    """SIGHUP and SIGQUIT end `worker serve` as SIGTERM does."""
    api = serve(env=PROXIES)
    assert api.client.get(f"{api.url}/healthz").status_code == 200
    api.process.send_signal(number)
    assert api.process.wait(20) == 0
    eventually(lambda: api.events[-1]["event"] == "api.stopped")


def test_stream_url_without_a_proxy(run):
    """`worker stream-url` requests the URL from the local worker, not from a proxy."""
    worker: WorkerRun = run("--", "sleep", "600")
    done = subprocess.run(
        [COMMAND, "stream-url", "--port", str(worker.port)],
        env={**os.environ, **PROXIES},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("ws://127.0.0.1:")
