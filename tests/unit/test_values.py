"""Values: a text is taken for what it says, or refused in words that say what is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker import values


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.text, "a b", "a b"),
        (values.matching("[a-z]+", "letters"), "abc", "abc"),
        (values.whole(0, 9), "9", 9),
        (values.whole(1), "12", 12),
        (values.seconds(zero=True), "0", 0.0),
        (values.seconds(zero=False), "0.5", 0.5),
        (values.flag, "Yes", True),
        (values.flag, "0", False),
        (values.one_of("on", "off"), "off", "off"),
        (values.path, "a/b", Path("a/b")),
        (values.parts, " a, ,b,", ("a", "b")),
        (values.networks, "10.1.2.3/8, ::1", ("10.1.2.3/8", "::1")),
        (values.json_object, '{"n": 1}', {"n": 1}),
    ],
)
def test_taken(read, text, value):
    """What a text means."""
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "wanted"),
    [
        (values.matching("[a-z]+", "letters"), "abc\n", "must be letters"),
        (values.whole(0, 9), "10", "from 0 to 9"),
        (values.whole(0, 9), "-1", "from 0 to 9"),
        (values.whole(1), "1.5", "whole number, 1 or more"),
        (values.seconds(zero=True), "-1", "0 or more"),
        (values.seconds(zero=False), "0", "more than 0"),
        (values.seconds(zero=False), "nan", "more than 0"),
        (values.seconds(zero=False), "soon", "more than 0"),
        (values.flag, "maybe", "true or false"),
        (values.one_of("on", "off", "auto"), "ON", "on, off or auto"),
        (values.networks, "10.0.0.0/33", "'10.0.0.0/33' is neither"),
        (values.json_object, "[1]", "a JSON object"),
        (values.json_object, "{", "a JSON object"),
        (values.master_secret, "s" * 31, "at least 32 bytes"),
        (values.hex_key, "0" * 63, "64 hex digits"),
        (values.hex_key, "x" * 64, "64 hex digits"),
    ],
)
def test_refused(read, text, wanted):
    """What is wanted instead."""
    with pytest.raises(ValueError, match=wanted):
        read(text)


@pytest.mark.parametrize(
    ("read", "text"), [(values.master_secret, "hunter2" * 5), (values.hex_key, "ab" * 32)]
)
def test_a_secret_does_not_show(read, text):
    """A secret is given out when asked for, and never when it is only printed."""
    secret = read(text)
    assert secret.reveal() == text
    assert text not in f"{secret} {secret!r}"
