"""The messages between the session and the task's process."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.outcome import TaskError
from worker.task.messages import (
    ERROR_TEXT_MAX_CHARS,
    LINE_MAX_BYTES,
    BrowserFailed,
    DisplayReady,
    FromTask,
    Go,
    Quit,
    Raised,
    Ready,
    Returned,
    Run,
    Started,
    ToTask,
)
from worker.wire import Decoder, InvalidMessage, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
RUN = Run(
    file="/task.py",
    module=None,
    name="run",
    is_async=None,
    parameters=None,
    inputs={},
    launch_options={},
)
ERROR = TaskError(type="LookupError", message="nothing there", traceback=None)
TO_TASK = (RUN, DisplayReady(display=":7", xauthority="/cookie"), Go(), Quit())
FROM_TASK = (
    Ready(),
    Started(),
    Returned(output=None),
    Raised(error=ERROR),
    BrowserFailed(message="no display"),
)


def decoded(union: Any, data: bytes) -> Any:
    decoder: Decoder[Any] = Decoder(union)
    return decoder.decode(data)


@pytest.mark.parametrize(("union", "messages"), [(ToTask, TO_TASK), (FromTask, FROM_TASK)])
def test_each_message_of_a_direction_is_decoded(union, messages):
    assert {type(message) for message in messages} == set(get_args(union))
    for message in messages:
        assert decoded(union, encode(message)) == message


@given(JSON)
def test_an_output_is_any_json_value(output):
    assert decoded(FromTask, encode(Returned(output=output))) == Returned(output=output)


@pytest.mark.parametrize(("union", "messages"), [(ToTask, FROM_TASK), (FromTask, TO_TASK)])
def test_messages_of_the_other_direction_are_invalid(union, messages):
    for message in messages:
        with pytest.raises(InvalidMessage):
            decoded(union, encode(message))


def test_the_largest_error_fits_into_a_line():
    text = "\U0001f600" * ERROR_TEXT_MAX_CHARS  # 12 bytes a character in JSON
    error = TaskError(type="E", message=text, traceback=text)
    assert len(encode(Raised(error=error))) < LINE_MAX_BYTES
