"""The report of an exception, whatever its own methods do.

They are the task's code: `str()` may raise, return no string, or recurse; attributes may be
properties that raise; a text may be of any size. The methods of the built-in types are called
directly, where there is a choice.
"""

from __future__ import annotations

import traceback
from typing import Final

from worker.outcome import TaskError
from worker.task import loading
from worker.task.messages import ERROR_TEXT_MAX_CHARS, ERROR_TYPE_MAX_CHARS

_NAME: Final = type.__dict__["__name__"]
_TRACEBACK: Final = BaseException.__dict__["__traceback__"]
_CODE: Final = SystemExit.__dict__["code"]


def of(error: BaseException) -> TaskError:
    """Type, message and traceback, each cut at its limit."""
    return TaskError(type=_type(error), message=_message(error), traceback=_traceback(error))


def is_normal_exit(error: BaseException) -> bool:
    """Whether it is SystemExit without a code, or with 0: the function has ended as it meant to."""
    if not issubclass(type(error), SystemExit):  # isinstance() reads an attribute of the error
        return False
    code = _CODE.__get__(error)
    return code is None or (type(code) in {int, bool} and not code)


def _type(error: BaseException) -> str:
    return _cut(_NAME.__get__(type(error)), ERROR_TYPE_MAX_CHARS)


def _message(error: BaseException) -> str:
    try:
        return _cut(str(error), ERROR_TEXT_MAX_CHARS)
    except BaseException as failure:
        return f"the message is unknown: str() of the exception raised {_type(failure)}"


def _traceback(error: BaseException) -> str:
    try:
        return loading.traceback_text(error, ERROR_TEXT_MAX_CHARS)
    except BaseException as failure:
        reason = f"the rest is unknown: formatting the exception raised {_type(failure)}\n"
    try:
        frames = traceback.format_tb(_TRACEBACK.__get__(error))
    except BaseException:
        frames = []
    return _cut("".join(frames), ERROR_TEXT_MAX_CHARS - len(reason)) + reason


def _cut(text: str, max_chars: int) -> str:
    """A plain string, also of a subclass with methods of its own."""
    return str.__getitem__(text, slice(0, max_chars))
