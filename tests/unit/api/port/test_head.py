"""How a request's head is collected."""

from __future__ import annotations

import itertools
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.api.port.head import BadHead, HeadBuffer
from worker.stream.acceptor import HEAD_MAX_BYTES

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def taken(*pieces: bytes) -> list[tuple[bytes, bytes] | None]:
    """What is taken after each piece."""
    buffer = HeadBuffer()
    found = []
    for piece in pieces:
        buffer.add(piece)
        found.append(buffer.take())
    return found


@given(st.lists(st.integers(0, len(HEAD))), st.binary(max_size=9))
def test_head_in_any_pieces(cuts: list[int], rest: bytes) -> None:
    """It is taken with its last byte, however it arrives."""
    data = HEAD + rest
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    buffer, arrived = HeadBuffer(), b""
    for piece in pieces:
        buffer.add(piece)
        arrived += piece
        found = buffer.take()
        if found is not None:
            assert found == (HEAD, arrived[len(HEAD) :])
            return
        assert len(arrived) < len(HEAD)
    raise AssertionError("the head is not taken")


def test_the_next_head_begins_anew() -> None:
    assert taken(HEAD, HEAD[:9], HEAD[9:] + b"x") == [(HEAD, b""), None, (HEAD, b"x")]


@given(st.binary(max_size=200))
def test_anything_is_taken_or_refused(data: bytes) -> None:
    try:
        (found,) = taken(data)
    except BadHead as bad:
        assert bad.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}
    else:
        assert found is None or b"".join(found) == data.removeprefix(b"\r\n")


def test_head_of_the_largest_size() -> None:
    head = b"GET / HTTP/1.1\r\na: " + b"x" * (HEAD_MAX_BYTES - 23) + b"\r\n\r\n"
    assert len(head) == HEAD_MAX_BYTES
    assert taken(head) == [(head, b"")]
    with pytest.raises(BadHead):
        taken(head.replace(b"a: ", b"a: x"))
