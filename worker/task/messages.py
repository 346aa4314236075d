"""The messages between the session and the process of a task's function.

One JSON object a line, over a stream socket:

    session                        task's process
       Run            ──────▶      loads Playwright
       DisplayReady   ──────▶      launches the browser
                      ◀──────      Ready, or BrowserFailed
       Go             ──────▶
                      ◀──────      Started; calls the function
                      ◀──────      Returned or Raised; keeps the browser open
       Quit           ──────▶      closes the browser and exits

If only running the task's file shows what the function is (see `target.Function`), the file is
loaded after Started, and the browser is launched after that: then BrowserFailed may follow Started.
The end of the connection means Quit.

From Started on, the task's code is in the process and may send anything. Only a BrowserFailed
before it is a failure of the session (exit code 70); after it, a message is about the task alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from worker.outcome import TaskError
from worker.task import output as task_output

ERROR_TYPE_MAX_CHARS: Final = 200
ERROR_TEXT_MAX_CHARS: Final = 500_000  # a message or a traceback; in JSON 12 bytes a character
LINE_MAX_BYTES: Final = 2 * task_output.MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Which function to run; its fields are those of `target.Function`.

    Attributes:
        launch_options: the arguments of Playwright's `launch`.
    """

    file: str
    module: str | None
    name: str
    is_async: bool | None
    parameters: tuple[str, ...] | None
    inputs: dict[str, Any]
    launch_options: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayReady:
    """The values of DISPLAY and XAUTHORITY."""

    display: str
    xauthority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """The stream is ready: call the function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quit:
    """The viewers' connections are closed: the browser is no longer needed."""


ToTask = Run | DisplayReady | Go | Quit


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """All that can be loaded without running the task's code is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """From now on SIGTERM stops the function, and it can clean up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The function returned `output`, any JSON value."""

    output: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The function raised, could not be loaded, or was stopped."""

    error: TaskError


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserFailed:
    """Playwright could not launch the browser."""

    message: str


FromTask = Ready | Started | Returned | Raised | BrowserFailed


def bounded(error: TaskError) -> TaskError:
    """An error with the texts cut at their limits."""
    traceback = error.traceback
    return TaskError(
        type=error.type[:ERROR_TYPE_MAX_CHARS],
        message=error.message[:ERROR_TEXT_MAX_CHARS],
        traceback=None if traceback is None else traceback[:ERROR_TEXT_MAX_CHARS],
    )
