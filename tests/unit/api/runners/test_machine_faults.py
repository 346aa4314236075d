"""Errors of the machine and errors of a task."""

from __future__ import annotations

import errno

import pytest

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
