"""Repetitions of tests whose failures are rare races."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., object])


def repeated(count: int) -> Callable[[_Test], _Test]:
    """Run a test `count` times: once in every run, the others only with the marker `soak`."""
    numbers = [
        pytest.param(number, marks=[pytest.mark.soak] if number else []) for number in range(count)
    ]

    def mark(test: _Test) -> _Test:
        pytest.mark.parametrize("repetition", numbers, indirect=True)(test)
        pytest.mark.usefixtures("repetition")(test)
        return test

    return mark
