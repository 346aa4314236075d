"""Programs that the API starts: what they get, and how their ends are reported."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from worker.api import programs

PYTHON = (sys.executable, "-I", "-S", "-c")


@pytest.fixture
def null():
    descriptor = os.open(os.devnull, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def start(null, *argv, **more):
    return programs.start(argv, os.environ, stdin=null, stdout=null, stderr=null, **more)


@pytest.mark.parametrize(
    ("code", "returncode"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
    ],
    ids=["success", "failure", "killed"],
)
def test_end(null, code, returncode):
    assert start(null, *PYTHON, code).wait() == returncode


def test_sigpipe_has_its_default_effect(null):
    assert start(null, "sh", "-c", "kill -PIPE $$").wait() == -13


def test_end_is_reported_once_to_every_thread(null):
    program = start(null, *PYTHON, "raise SystemExit(3)")
    found = []
    threads = [threading.Thread(target=lambda: found.append(program.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 8
    assert program.poll() == 3


def test_running_program_has_no_returncode(null):
    program = start(null, "sleep", "600")
    assert program.poll() is None
    os.kill(program.pid, 15)
    assert program.wait() == -15


def test_input_and_output_of_any_size():
    content = os.urandom(1 << 20) * 17
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1]); sys.exit(4)"
    assert programs.run([*PYTHON, code], content) == (4, content[::-1])


def test_program_that_takes_too_long():
    with pytest.raises(programs.TookTooLong):
        programs.run(["sleep", "600"], limit_s=0.01)


@pytest.mark.parametrize("name", ["/no/such/program", "no-such-program"])
def test_missing_program(name):
    with pytest.raises(FileNotFoundError):
        programs.run([name])


def test_what_a_program_gets(tmp_path):
    """Its folder, a session, the descriptors that it is to get and no others, its variables."""
    (tmp_path / "inherited").write_text("inherited")
    given, kept = (os.open(tmp_path / "inherited", os.O_RDONLY) for _ in range(2))
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    code = (
        "import os; print(os.getcwd(), os.getsid(0) == os.getpid(), os.environ['A'], "
        "os.read(int(os.environ['GIVEN']), 99), sorted(map(int, os.listdir('/proc/self/fd'))))"
    )
    program = programs.start(
        [*PYTHON, code],
        {"A": "ä=\udcff", "GIVEN": str(given), "PYTHONUTF8": "1"},
        stdin=given,
        stdout=out,
        stderr=out,
        inherited=[given],
        folder=str(tmp_path),
    )
    returncode = program.wait()
    for each in (given, kept, out):
        os.close(each)
    text = (tmp_path / "out").read_text(errors="surrogateescape")
    assert returncode == 0, text
    assert text.startswith(f"{tmp_path} True ä=\udcff b'inherited' [0, 1, 2, ")
    assert f" {given}," in text or f" {given}]" in text
    assert f" {kept}," not in text
