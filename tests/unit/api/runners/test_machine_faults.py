"""Errors of the machine and errors of a task."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator

import pytest

from worker.api.runners import files, results
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.machine_faults import describe, is_machine_fault
from worker.api.runners.protocol import RunnerUnavailable


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *(
            (OSError(number, "x"), True)
            for number in (
                *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE),
                *(errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
            )
        ),
        *(
            (OSError(number, "x"), False)
            for number in (errno.E2BIG, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR)
        ),
        (MemoryError(), True),
        (RunnerUnavailable("away"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("other"), False),
        (ValueError("embedded null byte"), False),
        (Unreadable(), False),
    ],
)
def test_is_machine_fault(error, expected):
    assert is_machine_fault(error) is expected


def test_description_of_an_error_whose_text_raises():
    assert describe(Unreadable()) == "Unreadable: its text cannot be read"


# -- files that a task may have replaced

READS = {
    "results.read_file": lambda folder: results.read_file(folder.artifacts),
    "list_files": lambda folder: files.list_files(folder.artifacts),
    "open_file": lambda folder: files.open_file(folder.artifacts, "result.json"),
    "worker_exists": lambda folder: folder.worker_exists(),
    "stderr_tail": lambda folder: folder.stderr_tail(),
    "remove_session": lambda folder: folder.remove_session(),
}


@pytest.fixture
def folder(tmp_path) -> TaskFolder:
    made = TaskFolder(path=tmp_path)
    made.artifacts.mkdir()
    for file in (made.lock, made.events, made.stderr, made.artifacts / "result.json"):
        file.write_text("{}")
    return made


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_machine_fault_is_not_taken_for_the_tasks(folder, monkeypatch, name, number):
    """A lack of descriptors is raised: it does not mean that a file is missing or invalid."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        READS[name](folder)


@pytest.fixture
def leased(folder) -> Iterator[TaskFolder]:
    """Another program has leases (fcntl(2)) on the task's files: opening them would wait."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    paths = (folder.lock, folder.events, folder.stderr, folder.artifacts / "result.json")
    opened = [os.open(path, os.O_RDWR) for path in paths]
    for each in opened:
        fcntl.fcntl(each, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    yield folder
    for each in opened:
        os.close(each)
    signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("name", READS)
def test_fault_of_a_file_is_not_taken_for_the_machines(leased, name):
    """A task can cause it, so nothing is raised: the caller would try again without an end."""
    READS[name](leased)
    assert isinstance(results.read_file(leased.artifacts), results.Invalid)
