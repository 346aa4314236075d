"""Every exception has a report, whatever its own methods do."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from worker.outcome import TaskError
from worker.task import error_report
from worker.task.messages import ERROR_TEXT_MAX_CHARS, ERROR_TYPE_MAX_CHARS, Raised
from worker.wire import Decoder, encode


def named(name, **attributes):
    """An exception class whose attributes are the arguments."""
    return type(name, (Exception,), attributes)


def raising(kind):
    def method(*_):
        raise kind("hostile")

    return method


class Text(str):
    """A string whose methods raise."""

    __slots__ = ()
    __len__ = __getitem__ = __iter__ = __hash__ = encode = __str__ = raising(RuntimeError)


def recursing(self):
    return str(self)


def cycle():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def deep_group(levels):
    error: BaseException = KeyboardInterrupt("innermost")
    for _ in range(levels):
        error = BaseExceptionGroup("group", [error])
    return error


def long_chain(length):
    error = ValueError("last")
    for number in range(length):
        earlier = ValueError(f"number {number}")
        earlier.__context__, error = error, earlier
    return error


def unreadable(name):
    """An exception with a property that raises."""
    return named("Unreadable", **{name: property(raising(RuntimeError))})("text")


class Getattr(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(name)


class Meta(type):
    __name__ = property(raising(RuntimeError))
    __getattribute__ = raising(RuntimeError)


class HostileClass(Exception, metaclass=Meta):
    pass


HOSTILE = [
    pytest.param(lambda: LookupError("a\nb"), "LookupError", "a\nb", id="two lines"),
    pytest.param(ValueError, "ValueError", "", id="no message"),
    pytest.param(lambda: ValueError("\ud800\0\x1b[2J"), None, "\ud800\0\x1b[2J", id="odd text"),
    pytest.param(lambda: ValueError("<p>" * 2_000_000), None, None, id="6 MB"),
    pytest.param(named("N" * 100_000), None, "", id="long name"),
    pytest.param(named("E", __str__=raising(ValueError)), "E", None, id="str raises"),
    pytest.param(named("E", __str__=raising(KeyboardInterrupt)), "E", None, id="str interrupts"),
    pytest.param(named("E", __str__=raising(SystemExit)), "E", None, id="str exits"),
    pytest.param(named("E", __str__=lambda _: 5), "E", None, id="str returns a number"),
    pytest.param(named("E", __str__=recursing), "E", None, id="str recurses"),
    pytest.param(named("E", __str__=lambda _: Text("hello")), "E", "hello", id="str's subclass"),
    pytest.param(
        lambda: named("E", __repr__=raising(ValueError))("text"), "E", "text", id="repr raises"
    ),
    pytest.param(lambda: unreadable("__class__"), "Unreadable", "text", id="class raises"),
    pytest.param(lambda: unreadable("__cause__"), "Unreadable", "text", id="cause raises"),
    pytest.param(lambda: unreadable("__notes__"), "Unreadable", "text", id="notes raise"),
    pytest.param(lambda: unreadable("__traceback__"), "Unreadable", "text", id="traceback raises"),
    pytest.param(lambda: Getattr("text"), "Getattr", "text", id="getattribute raises"),
    pytest.param(lambda: HostileClass("text"), "HostileClass", "text", id="metaclass raises"),
    pytest.param(cycle, "ValueError", "first", id="cycle of causes"),
    pytest.param(lambda: long_chain(2000), "ValueError", "number 1999", id="2000 contexts"),
    pytest.param(lambda: deep_group(2000), "BaseExceptionGroup", None, id="2000 groups"),
    pytest.param(
        lambda: BaseExceptionGroup("many", [ValueError(str(n)) for n in range(5000)]),
        "ExceptionGroup",
        "many (5000 sub-exceptions)",
        id="wide group",
    ),
    pytest.param(lambda: KeyboardInterrupt("why"), "KeyboardInterrupt", "why", id="interrupt"),
    pytest.param(lambda: GeneratorExit("why"), "GeneratorExit", "why", id="generator exit"),
    pytest.param(lambda: asyncio.CancelledError("why"), "CancelledError", "why", id="cancelled"),
    pytest.param(lambda: SystemExit("why"), "SystemExit", "why", id="exit with a text"),
    pytest.param(lambda: SystemExit(3), "SystemExit", "3", id="exit with a code"),
    pytest.param(
        lambda: SyntaxError("bad", ("f.py", -5, 10**9, "\0", "x", [])),
        "SyntaxError",
        None,
        id="odd syntax error",
    ),
    pytest.param(lambda: UnicodeDecodeError("x", b"\xff", 0, 1, "bad"), None, None, id="unicode"),
    pytest.param(lambda: OSError(5, "text", b"\xff" * 10), "OSError", None, id="bytes as a path"),
]


@pytest.mark.parametrize(("make", "kind", "message"), HOSTILE)
def test_every_exception_has_a_report(make, kind, message):
    def failing():
        raise make()

    try:
        failing()
    except BaseException as error:
        report = error_report.of(error)
    assert type(report.type) is type(report.message) is type(report.traceback) is str
    assert 0 < len(report.type) <= ERROR_TYPE_MAX_CHARS
    assert len(report.message) <= ERROR_TEXT_MAX_CHARS
    assert 0 < len(report.traceback) <= ERROR_TEXT_MAX_CHARS
    assert kind in (None, report.type)
    assert message in (None, report.message)
    decoder: Decoder[Raised] = Decoder(Raised)
    assert decoder.decode(encode(Raised(error=report))) == Raised(error=report)
    json.dumps(report.message, ensure_ascii=False).encode(errors="backslashreplace")


def test_a_message_that_cannot_be_made_names_the_reason():
    report = error_report.of(named("E", __str__=raising(ZeroDivisionError))())
    assert "str() of the exception raised ZeroDivisionError" in report.message


def test_a_traceback_that_cannot_be_formatted_keeps_its_frames():
    def failing():
        raise unreadable("__cause__")

    with pytest.raises(Exception, match="text") as raised:
        failing()
    report = error_report.of(raised.value)
    assert "in failing" in report.traceback
    assert report.traceback.endswith("formatting the exception raised RuntimeError\n")


class Zero(int):
    __eq__ = raising(RuntimeError)
    __hash__ = raising(RuntimeError)
    __bool__ = raising(RuntimeError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SystemExit(), True),
        (SystemExit(None), True),
        (SystemExit(0), True),
        (SystemExit(False), True),  # sys.exit(False) ends a program with 0
        (SystemExit(0.0), False),
        (SystemExit(""), False),
        (SystemExit(Zero()), False),
        (SystemExit(1), False),
        (SystemExit("text"), False),
        (ValueError(0), False),
        (Getattr(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_normal_exit(error, expected):
    assert error_report.is_normal_exit(error) is expected


def test_a_report_is_made_near_the_recursion_limit():
    def recurse():
        return recurse()

    with pytest.raises(RecursionError) as raised:
        recurse()
    report = error_report.of(raised.value)
    assert isinstance(report, TaskError)
    assert report.type == "RecursionError"
    assert len(report.traceback) < 100 * sys.getrecursionlimit()
