"""A task's output is JSON within limits."""

from __future__ import annotations

import math
from typing import Any

import pytest

from worker.task import output


def nested(levels):
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"inner": value}
    return value


@pytest.mark.parametrize("value", [None, 1, "text", [1, {"a": (2.5, True)}], nested(200)])
def test_json_is_accepted(value):
    output.check(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, math.nan, math.inf, b"bytes", {(): 1}])
def test_what_is_not_json_is_reported(value):
    with pytest.raises(TypeError, match="return value is not JSON"):
        output.check(value)


def test_a_value_that_contains_itself_is_reported():
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match="return value is not JSON"):
        output.check(value)


def test_too_large_an_output_is_reported():
    output.check("x" * (output.MAX_BYTES - 2))
    with pytest.raises(ValueError, match="larger than 16777216 bytes; write it to a file"):
        output.check("x" * output.MAX_BYTES)


def test_too_deep_an_output_is_reported():
    with pytest.raises(ValueError, match="nested more than 200 levels"):
        output.check(nested(201))


@pytest.mark.parametrize(
    ("value", "depth"), [(1, 0), ("text", 0), ([], 1), ({"a": [], "b": [{}]}, 3), ([[1], 2], 2)]
)
def test_nesting_depth(value, depth):
    assert output.nesting_depth(value) == depth
