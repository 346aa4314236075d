"""The errors that users see.

    WorkerError
     ├── UsageError          64  found before anything is started
     │    ├── SettingError        a setting or an option has an invalid value
     │    ├── TargetError         TARGET does not name something that can be run
     │    ├── InputError          the task's inputs are invalid
     │    ├── PortInUse           the stream's port cannot be listened on
     │    ├── ProgramMissing      a program is not installed
     │    └── ExtraMissing        an extra of this package is not installed
     └── SessionError        70  the display, the stream or the browser failed
          ├── StartFailed         a program did not become ready
          └── SessionLost         a program that cannot be replaced ended

`str()` of each is one line that states what happened, then what to do. Only `cli` maps them to exit
codes.
"""

from __future__ import annotations

from typing import ClassVar

from worker.outcome import EXIT_SESSION_LOST, EXIT_USAGE
from worker.programs import DEBIAN_PACKAGES


class WorkerError(Exception):
    """The base class."""

    exit_code: ClassVar[int] = EXIT_SESSION_LOST


class UsageError(WorkerError):
    """An argument, a setting or the installation is wrong; nothing was started."""

    exit_code = EXIT_USAGE


class SettingError(UsageError):
    """A setting or an option has an invalid value."""


class TargetError(UsageError):
    """TARGET does not name a function that can be run."""


class InputError(UsageError):
    """The task's inputs are invalid."""


class PortInUse(UsageError):
    """The stream's port cannot be listened on."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(host, port, why)
        self.host, self.port, self.why = host, port, why

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host} port {self.port}: {self.why}; "
            "give another --port, or --port 0 to use a free one"
        )


class ProgramMissing(UsageError):
    """A program is not installed.

    Args:
        program: one of `programs.DEBIAN_PACKAGES`.
        looked_for: what was not found, if it is not a program on PATH.
    """

    def __init__(self, program: str, looked_for: str | None = None) -> None:
        super().__init__(program, looked_for)
        self.program, self.looked_for = program, looked_for

    def __str__(self) -> str:
        where = f" ({self.looked_for})" if self.looked_for else ""
        package = DEBIAN_PACKAGES[self.program]
        return f"{self.program} is not installed{where}: run `apt-get install {package}`"


class ExtraMissing(UsageError):
    """A command needs Python packages that only an extra of this package installs."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(extra, module)
        self.extra, self.module = extra, module

    def __str__(self) -> str:
        return (
            f"the Python module {self.module} of the extra `{self.extra}` is not installed: "
            f"run `make setup`, or use the image worker-{self.extra}"
        )


class SessionError(WorkerError):
    """The display, the stream or the browser failed."""


class StartFailed(SessionError):
    """A program did not become ready.

    Args:
        program: its name.
        why: what was observed.
        last_output: the end of its output, on one line.
    """

    def __init__(self, program: str, why: str, last_output: str = "") -> None:
        super().__init__(program, why, last_output)
        self.program, self.why, self.last_output = program, why, last_output

    def __str__(self) -> str:
        output = f"; last output: {self.last_output}" if self.last_output else ""
        return f"{self.program} did not start: {self.why}{output}"


class SessionLost(SessionError):
    """A program ended that the session cannot go on without."""
