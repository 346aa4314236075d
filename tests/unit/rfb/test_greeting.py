"""The server's handshake messages reach the viewer one step at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rfb.greeting import Greeting
from worker.rfb.messages import PROTOCOL_VERSION as VERSION

SECURITY = b"\x01\x01"


def test_version_and_security_types_in_one_piece_are_sent_separately():
    greeting = Greeting()
    assert greeting.from_server(VERSION + SECURITY) == [VERSION]
    assert greeting.from_viewer(VERSION) == [SECURITY]
    assert greeting.from_server(b"later") == [b"later"]


@pytest.mark.parametrize("cut", range(1, 14))
def test_packet_boundaries_make_no_difference(cut):
    both = VERSION + SECURITY
    greeting = Greeting()
    assert greeting.from_server(both[:cut]) + greeting.from_server(both[cut:]) == [VERSION]
    assert greeting.from_viewer(VERSION) == [SECURITY]


def test_answer_before_the_version_does_not_merge_the_steps():
    greeting = Greeting()
    assert greeting.from_viewer(VERSION) == []
    assert greeting.from_server(VERSION + SECURITY) == [VERSION, SECURITY]


def test_partial_answer_releases_nothing():
    greeting = Greeting()
    greeting.from_server(VERSION + SECURITY)
    assert greeting.from_viewer(VERSION[:-1]) == []
    assert not greeting.done
    assert greeting.from_viewer(VERSION[-1:]) == [SECURITY]
    assert greeting.done


@given(pieces=st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=20))
def test_no_byte_is_lost_or_reordered(pieces):
    """Once the viewer has answered, everything from the server has been sent, in its order."""
    greeting = Greeting()
    sent, received = [], b""
    for from_server, data in pieces:
        if from_server:
            received += data
            sent += greeting.from_server(data)
        else:
            sent += greeting.from_viewer(data)
    sent += greeting.from_server(VERSION) + greeting.from_viewer(VERSION)
    assert b"".join(sent) == received + VERSION
    assert sent[0] == (received + VERSION)[: len(VERSION)]


def test_steps_that_the_server_has_asked_for_are_counted():
    greeting = Greeting()
    prompts = []
    for piece in (b"", VERSION[:5], VERSION[5:], SECURITY, bytes(3), bytes(1), bytes(100)):
        greeting.from_server(piece)
        prompts.append(greeting.prompts)
    assert prompts == [0, 0, 1, 2, 2, 3, 3]
