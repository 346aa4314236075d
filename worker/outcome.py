"""How a task ended: its status, its exit code and the viewers' close code.

Users rely on these values: by `docker wait`, a Job's `podFailurePolicy`, the API and the dashboard.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from worker.close_codes import DISPLAY_LOST, Close, CloseCode

EXIT_SUCCESS: Final = 0
EXIT_RAISED: Final = 1
EXIT_USAGE: Final = 64
EXIT_SESSION_LOST: Final = 70
EXIT_TIMEOUT: Final = 124
EXIT_SIGINT: Final = 130
EXIT_SIGKILL: Final = 137
EXIT_SIGTERM: Final = 143
EXIT_SIGNAL_BASE: Final = 128
DISK_FULL_SIGNAL: Final = signal.SIGUSR1
"""From the API's local runner to a worker: its account's files exceed their limit."""
ACCOUNT_DISK_FULL: Final = "AccountDiskFull"


class Status(StrEnum):
    """How a task ended."""

    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why a task failed.

    Attributes:
        type: the exception's class, or `Killed`, `Exited`, `Timeout`, `TaskProtocolError` or
            `AccountDiskFull`.
        message: one or more lines.
        traceback: from the task's first frame on; None unless its own code raised.
    """

    type: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one task, as `result.json`, the exit code and the close reason report it.

    Attributes:
        output: the function's return value, JSON.
        lost: the session failed, not the task.
    """

    status: Status
    exit_code: int
    output: Any = None
    error: TaskError | None = None
    lost: bool = False

    @property
    def close(self) -> Close:
        """The Close that every viewer gets."""
        if self.lost:
            return DISPLAY_LOST
        return Close(code=CloseCode.TASK_ENDED, reason=f"task {self.status}")


def success(output: Any) -> Outcome:
    """The task's function returned, or its command exited with 0."""
    return Outcome(status=Status.SUCCESS, exit_code=EXIT_SUCCESS, output=output)


def raised(error: TaskError) -> Outcome:
    """The task's function raised."""
    return Outcome(status=Status.FAILED, exit_code=EXIT_RAISED, error=error)


def exited(returncode: int) -> Outcome:
    """A command exited, or the process of a function exited without a result.

    Args:
        returncode: as `os.waitstatus_to_exitcode` returns it: -N if signal N killed it.
    """
    if returncode == 0:
        return success(None)
    if returncode < 0:
        signal_number = -returncode
        message = f"the task's process was killed by signal {signal_number}"
        error = TaskError(type="Killed", message=message)
        exit_code = EXIT_SIGNAL_BASE + signal_number
    else:
        message = f"the task's process exited with code {returncode}"
        error = TaskError(type="Exited", message=message)
        exit_code = returncode
    return Outcome(status=Status.FAILED, exit_code=exit_code, error=error)


def timed_out(timeout_s: float) -> Outcome:
    """The task ran past its timeout."""
    error = TaskError(type="Timeout", message=f"the task ran longer than {timeout_s:g} s")
    return Outcome(status=Status.FAILED, exit_code=EXIT_TIMEOUT, error=error)


def cancelled(exit_code: int) -> Outcome:
    """A signal ended the task.

    Args:
        exit_code: EXIT_SIGTERM or EXIT_SIGINT.
    """
    return Outcome(status=Status.CANCELLED, exit_code=exit_code)


def disk_full() -> Outcome:
    """The API ended the task because the files of its account exceed their limit."""
    error = TaskError(
        type=ACCOUNT_DISK_FULL,
        message="the files of this account's tasks exceed its limit (WORKER_ACCOUNT_MAX_BYTES, "
        "WORKER_ACCOUNT_MAX_FILES)",
    )
    return Outcome(status=Status.FAILED, exit_code=EXIT_RAISED, error=error)


def session_lost(error: TaskError) -> Outcome:
    """The display or the stream could not start, or was lost."""
    return Outcome(status=Status.FAILED, exit_code=EXIT_SESSION_LOST, error=error, lost=True)
