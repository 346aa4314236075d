"""Everything that can go wrong, as users read it.

    WorkerError
     ├── UsageError          64  said before anything starts
     │    ├── SettingError        a setting or an option has a bad value
     │    ├── TargetError         TARGET does not name something that can be run
     │    ├── InputError          the task's inputs are not what they must be
     │    ├── PortInUse           somebody else listens there
     │    ├── ProgramMissing      a program is not installed
     │    └── ExtraMissing        an extra of this package is not installed
     └── SessionError        70  the display, the stream or the browser broke
          ├── StartFailed         a program did not become ready
          └── SessionLost         a program that cannot be replaced died

Only `cli` maps them to exit codes.
"""

from __future__ import annotations

from typing import ClassVar, Final

from worker.outcome import EXIT_SESSION_LOST, EXIT_USAGE

DEBIAN_PACKAGES: Final = {
    "Xvfb": "xvfb",
    "x11vnc": "x11vnc",
    "matchbox-window-manager": "matchbox-window-manager",
    "chromium": "chromium",
    "noVNC": "novnc",
}


class WorkerError(Exception):
    """The root. `str()` is one line that says what to do."""

    exit_code: ClassVar[int] = EXIT_SESSION_LOST


class UsageError(WorkerError):
    """Something that the caller gave is wrong; nothing was started."""

    exit_code = EXIT_USAGE


class SettingError(UsageError):
    """A setting or an option has a bad value."""


class TargetError(UsageError):
    """TARGET does not name a function that can be run."""


class InputError(UsageError):
    """The task's inputs are not what they must be."""


class PortInUse(UsageError):
    """The stream's port cannot be listened on."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(host, port, why)
        self.host, self.port, self.why = host, port, why

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host} port {self.port}: {self.why}; "
            "give another --port, or --port 0 to have a free one picked"
        )


class ProgramMissing(UsageError):
    """A program of the display stack is not installed."""

    def __init__(self, program: str, looked_for: str | None = None) -> None:
        super().__init__(program, looked_for)
        self.program, self.looked_for = program, looked_for

    def __str__(self) -> str:
        where = f" ({self.looked_for})" if self.looked_for else ""
        package = DEBIAN_PACKAGES[self.program]
        return f"{self.program} is not installed{where}: run `apt-get install {package}`"


class ExtraMissing(UsageError):
    """A command needs Python packages that only an extra brings."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(extra, module)
        self.extra, self.module = extra, module

    def __str__(self) -> str:
        return (
            f"there is no module {self.module}: run `pip install 'worker[{self.extra}]'`, or "
            "`make setup` in a checkout"
        )


class SessionError(WorkerError):
    """The display, the stream or the browser broke."""


class StartFailed(SessionError):
    """A program did not become ready."""

    def __init__(self, program: str, why: str, last_lines: str = "") -> None:
        super().__init__(program, why, last_lines)
        self.program, self.why, self.last_lines = program, why, last_lines

    def __str__(self) -> str:
        said = f"; its last words: {self.last_lines}" if self.last_lines else ""
        return f"{self.program} did not start: {self.why}{said}"


class SessionLost(SessionError):
    """A program without which the session cannot go on died."""
