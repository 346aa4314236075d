"""The codec of messages between processes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire import Decoder, InvalidMessage, encode


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    points: tuple[Point, ...]
    scales: dict[str, float]
    colour: Colour
    extra: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    pass


DECODER: Decoder[Drawn | Erased] = Decoder(Drawn | Erased)


def drawn(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "type": "Drawn",
        "points": [],
        "scales": {},
        "colour": "red",
        "extra": None,
    }
    return json.dumps({**document, **changes}).encode()


@given(
    st.builds(
        Drawn,
        points=st.tuples(st.builds(Point, x=st.integers(), label=st.none() | st.text())),
        scales=st.dictionaries(st.text(), st.floats(allow_nan=False)),
        colour=st.just(Colour.RED),
        extra=st.none() | st.lists(st.integers()),
    )
    | st.builds(Erased)
)
def test_decoding_returns_what_was_encoded(message: Drawn | Erased) -> None:
    encoded = encode(message)
    assert b"\n" not in encoded
    assert DECODER.decode(encoded) == message


@given(st.binary(max_size=64))
def test_arbitrary_bytes_raise_nothing_but_invalid_message(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        DECODER.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"null",
        b'{"type": ["Erased"]}',
        b'{"type": "Other"}',
        b'{"type": "Erased", "more": 1}',
        b"[" * 100_000,
        drawn(points={}),
        drawn(points=[{"x": True, "label": None}]),
        drawn(points=[{"x": 1}]),
        drawn(points=[7]),
        drawn(scales={"a": "1"}),
        drawn(colour="blue"),
        drawn(colour=["red"]),
    ],
)
def test_a_message_of_another_shape_is_invalid(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        DECODER.decode(data)


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        encode(Drawn(points=(), scales={}, colour=Colour.RED, extra=object()))
