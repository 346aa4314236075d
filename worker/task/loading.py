"""Loading the task's function, and its errors' tracebacks without this package's frames."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.task.target import PARAMETERS, task_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from worker.task.messages import Run

_MODULE_NAME: Final = "worker_task"
_FOLDER: Final = f"{Path(__file__).parent}/"
_IMPORT_FILES: Final = (
    "<frozen importlib._bootstrap>",
    "<frozen importlib._bootstrap_external>",
    importlib.__file__,
)


def load(run: Run) -> Callable[..., Any]:
    """Import the target and return its function; runs the task's code.

    Raises:
        BaseException: whatever the task's module raises.
    """
    sys.path += task_path(Path(run.file) if run.module is None else None)
    if run.module is None:
        module = _load_file(Path(run.file))
    else:
        module = importlib.import_module(run.module)
    function = getattr(module, run.name)
    if not callable(function):
        raise TypeError(f"{run.name} is not a function")
    return function  # type: ignore[no-any-return]  # it is callable; its signature is unknown


def _load_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(_MODULE_NAME, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module
    spec.loader.exec_module(module)
    return module


def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Which of PARAMETERS a loaded function takes."""
    found = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found.values()):
        return tuple(sorted(PARAMETERS))
    return tuple(sorted(PARAMETERS & set(found)))


def traceback_text(error: BaseException, max_chars: int) -> str:
    """The traceback from the task's first frame on, cut at a length.

    Raises:
        BaseException: whatever the error's attributes raise.
    """
    frame = error.__traceback__
    while frame is not None and _is_internal(frame):
        frame = frame.tb_next
    text = ""
    for piece in traceback.TracebackException(type(error), error, frame).format():
        text += piece
        if len(text) > max_chars:
            break
    return text[:max_chars]


def _is_internal(frame: TracebackType) -> bool:
    file = frame.tb_frame.f_code.co_filename
    return file.startswith(_FOLDER) or file in _IMPORT_FILES
