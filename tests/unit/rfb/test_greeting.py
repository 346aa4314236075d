"""A viewer's handshake: one step a message, as noVNC wants it."""

from __future__ import annotations

import pytest

from worker.stream.viewer import _Greeting

VERSION, SECURITY = b"RFB 003.008\n", b"\x01\x01"


def test_version_and_security_types_that_arrive_as_one():
    """The version goes out by itself, the security types when the viewer has answered."""
    greeting = _Greeting()
    assert greeting.from_server(VERSION + SECURITY) == [VERSION]
    assert greeting.from_viewer(VERSION) == [SECURITY]
    assert greeting.from_server(b"later") == [b"later"]


@pytest.mark.parametrize("cut", range(1, 14))
def test_cut_anywhere(cut):
    """However x11vnc's bytes are cut, the two steps stay apart."""
    both = VERSION + SECURITY
    greeting = _Greeting()
    sent = greeting.from_server(both[:cut]) + greeting.from_server(both[cut:])
    assert sent == [VERSION]
    assert greeting.from_viewer(VERSION) == [SECURITY]


def test_viewer_that_speaks_first():
    """A viewer that speaks before it is greeted gets both steps, still apart."""
    greeting = _Greeting()
    assert greeting.from_viewer(VERSION) == []
    assert greeting.from_server(VERSION + SECURITY) == [VERSION, SECURITY]
