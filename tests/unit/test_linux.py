"""What is read from /proc, and the system calls whose effect a process can see on itself."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker import linux, net

NO_PROCESS = 2**22 + 1  # beyond pid_max's upper limit (proc(5))


def test_parent():
    assert linux.parent_pid(os.getpid()) == os.getppid()
    assert linux.parent_pid(NO_PROCESS) is None


def test_start_ticks_order_processes_by_their_start():
    own, init = linux.start_ticks(os.getpid()), linux.start_ticks(1)
    assert own is not None
    assert init is not None
    assert init <= own
    assert linux.start_ticks(NO_PROCESS) is None


@pytest.mark.parametrize(("state", "expected"), [("S", False), ("R", False), ("Z", True)])
def test_zombie_has_ended(tmp_path, monkeypatch, state, expected):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (x11vnc) {state} 42 7 7\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert linux.has_ended(7) is expected
    assert linux.has_ended(8)


def test_stat_is_parsed_after_a_command_with_parentheses(tmp_path, monkeypatch):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b (c) S 42 7 7 " + "0 " * 15 + "1234 0\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert linux.parent_pid(7) == 42
    assert linux.start_ticks(7) == 1234


def test_processes_are_found_by_consecutive_arguments(tmp_path, monkeypatch):
    for pid, command in ((3, b"run\0--id\0a\0"), (4, b"run\0--id\0ab\0"), (5, b"run\0a\0--id\0")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(command)
    (tmp_path / "6").mkdir()  # it has ended
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert list(linux.pids_with_arguments("--id", "a")) == [3]


def test_own_cgroups(tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert linux.own_cgroups() == []
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("4:memory:/a:b\n0::/c\n")
    assert linux.own_cgroups() == [("memory", "/a:b"), ("", "/c")]


def test_shared_memory_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert list(linux.shared_memory_segments()) == []
    (tmp_path / "sysvipc").mkdir()
    (tmp_path / "sysvipc" / "shm").write_text("  key  shmid cpid\n    0     12   34\n")
    assert list(linux.shared_memory_segments()) == [{"key": 0, "shmid": 12, "cpid": 34}]


def test_a_scrubbed_variable_leaves_no_bytes(monkeypatch):
    monkeypatch.setenv("WORKER_TEST_SECRET", "hunter2")
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address = libc.getenv(b"WORKER_TEST_SECRET")
    linux.scrub_environment("WORKER_TEST_SECRET")
    assert "WORKER_TEST_SECRET" not in os.environ
    assert ctypes.string_at(address, 7) == b"\0" * 7
    linux.scrub_environment("WORKER_TEST_SECRET")  # a variable that is not set is ignored


def test_a_listener_that_drops_connections_keeps_its_queue():
    with net.listen("127.0.0.1", 0, backlog=8) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as late:
            linux.drop_connections(listener)
            late.setblocking(False)
            assert late.connect_ex(address) == errno.EINPROGRESS
            listener.accept()[0].close()
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_sandbox_errno_is_a_known_error_or_0():
    number = linux.sandbox_errno()
    assert number == 0 or number in errno.errorcode


def test_it_imports_the_standard_library_alone():
    lines = Path(linux.__file__).read_text().splitlines()
    assert not [line for line in lines if line.startswith(("from worker", "import worker"))]


def test_cpu_clock_of_a_peer_is_that_of_its_process():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = time.process_time()
        assert before <= time.clock_gettime(linux.peer_cpu_clock(ours)) <= time.process_time()


def test_unacknowledged_bytes_are_those_that_the_peer_has_not_read():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours, theirs:
            ours.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += ours.send(bytes(65536))
            assert 0 < linux.unacknowledged_bytes(ours) <= sent
            theirs.settimeout(5)
            while sent:
                sent -= len(theirs.recv(65536))
            deadline = time.monotonic() + 5  # an acknowledgement may be delayed (tcp(7))
            while linux.unacknowledged_bytes(ours):
                assert time.monotonic() < deadline


def test_limits_of_other_processes():
    """They can neither be changed nor read; the own ones can."""
    limit = resource.getrlimit(resource.RLIMIT_CPU)

    def attempt():
        linux.forbid_limits_of_others()  # of this thread only
        assert resource.prlimit(0, resource.RLIMIT_CPU, limit) == limit
        for pid in (os.getppid(), os.getpid()):
            with pytest.raises(PermissionError):
                resource.prlimit(pid, resource.RLIMIT_CPU, limit)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(attempt).result()
    assert resource.prlimit(os.getpid(), resource.RLIMIT_CPU, limit) == limit
