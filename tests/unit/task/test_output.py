"""A task's output is JSON within limits."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest

from worker.task import output


def nested(levels):
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"inner": value}
    return value


@pytest.mark.parametrize("value", [None, 1, "text", [1, {"a": (2.5, True)}], nested(200), {1: 2}])
def test_json_is_accepted(value):
    assert output.check(value) == json.dumps(value)


def raising(*_):
    raise RuntimeError("hostile")


class Dict(dict[str, int]):
    items = keys = values = __iter__ = __len__ = raising


class List(list[int]):
    __iter__ = __len__ = __getitem__ = raising


class Text(str):
    __slots__ = ()
    __len__ = __iter__ = encode = raising


class Number(int):
    __repr__ = __str__ = __int__ = raising


def itself():
    value: list[Any] = []
    value.append([{"inner": value}])
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(object(), {1, 2}, math.nan, math.inf, -math.inf, b"bytes", {(): 1}, 1j, 10**5000),
        *({b"": 1}, [[{"a": math.nan}]], itself(), range(3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_is_reported(value):
    with pytest.raises(TypeError, match="return value is not JSON"):
        output.check(value)


def test_an_error_of_the_tasks_own_classes_is_the_tasks():
    for value in (Dict(a=1), [Dict(a=1)], List([1])):
        with pytest.raises(RuntimeError, match="hostile"):
            output.check(value)


def test_subclasses_of_json_types_are_taken_as_such():
    value = [Text("x\ud800\0"), Number(7)]
    assert output.check(value) == json.dumps(["x\ud800\0", 7])


def test_too_many_values_are_reported(monkeypatch):
    """Each reference to a value counts: this one has 10 to the power of 30."""
    monkeypatch.setattr(output, "MAX_VALUES", 1000)
    value: list[Any] = [1]
    for _ in range(30):
        value = [value] * 10
    with pytest.raises(ValueError, match="more than 1000 values"):
        output.check(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: ["x" * 2**20] * 500, id="500 MB of text"),
        pytest.param(lambda: {str(n): "x" * 2**20 for n in range(17)}, id="17 MB in a dict"),
        pytest.param(lambda: {"x" * (17 << 20): 1}, id="17 MB key"),
    ],
)
def test_too_large_an_output_takes_no_memory(value):
    """It is refused before its text is made."""
    made = value()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than 16777216 bytes"):
            output.check(made)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_too_large_an_output_is_reported():
    output.check("x" * (output.MAX_BYTES - 2))
    with pytest.raises(ValueError, match="larger than 16777216 bytes; write it to a file"):
        output.check("x" * output.MAX_BYTES)


def test_too_deep_an_output_is_reported():
    for levels in (201, 980, 5000):
        with pytest.raises(ValueError, match="nested more than 200 levels"):
            output.check(nested(levels))


@pytest.mark.parametrize(
    ("value", "depth"), [(1, 0), ("text", 0), ([], 1), ({"a": [], "b": [{}]}, 3), ([[1], 2], 2)]
)
def test_nesting_depth(value, depth):
    assert output.nesting_depth(value) == depth
