"""Which messages of a viewer reach the VNC server, in what form, and what is a violation."""

import struct
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rfb_parser import Read, ServerSide

from worker.rfb.client_filter import PROTOCOL_VERSION, ClientFilter, ProtocolViolation
from worker.rfb.encodings import PASSED_ENCODINGS
from worker.rfb.update_requests import FRAME_WAIT_S

HANDSHAKE = b"RFB 003.008\n" + b"\x01" + b"\x01"
HANDSHAKE_PASSED = b"\x01\x01"
TRUE_COLOUR_32 = (32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
MIB = 1 << 20
SCREEN = (1920, 1080)
NOW = 100.0

SEEN_BY_VIEW = {
    "SecurityType",
    "ClientInit",
    "SetPixelFormat",
    "SetEncodings",
    "FramebufferUpdateRequest",
}
SEEN_BY_CONTROL = SEEN_BY_VIEW | {"KeyEvent", "PointerEvent", "ClientCutText"}

# Pseudo-encodings of libvncserver that would enable messages that do not pass.
XVP, EXTENDED_DESKTOP_SIZE, EXTENDED_CLIPBOARD = -309, -308, -1063131698
FENCE, CONTINUOUS_UPDATES, QEMU_KEYS, EXTENDED_BUTTONS = -312, -313, -258, -316

relaxed = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


# A client's messages, as defined by RFC 6143 and rfbproto.


def set_pixel_format(
    bits: int,
    depth: int,
    big_endian: int,
    true_colour: int,
    *channels: int,
) -> bytes:
    head = struct.pack(">B3xBBBB", 0, bits, depth, big_endian, true_colour)
    return head + struct.pack(">HHHBBB3x", *channels)


def set_encodings(*encodings: int) -> bytes:
    return struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings)


def update_request(*, incremental: bool, rect: tuple[int, int, int, int]) -> bytes:
    return struct.pack(">BBHHHH", 3, incremental, *rect)


def key_event(keysym: int, *, down: bool) -> bytes:
    return struct.pack(">BBHI", 4, down, 0, keysym)


def pointer_event(buttons: int, x: int, y: int) -> bytes:
    return struct.pack(">BBHH", 5, buttons, x, y)


def cut_text(text: bytes) -> bytes:
    return struct.pack(">B3xI", 6, len(text)) + text


def extended_cut_text(payload: bytes) -> bytes:
    return struct.pack(">B3xi", 6, -len(payload)) + payload


def enable_continuous_updates() -> bytes:
    return struct.pack(">BBHHHH", 150, 1, 0, 0, 1920, 1080)


def fence(payload: bytes) -> bytes:
    return struct.pack(">B3xIB", 248, 1 << 31, len(payload)) + payload


def xvp(operation: int) -> bytes:
    return struct.pack(">BxBB", 250, 1, operation)


def set_desktop_size(screens: int) -> bytes:
    head = struct.pack(">BxHHBx", 251, 800, 600, screens)
    return head + struct.pack(">IHHHHI", 1, 0, 0, 800, 600, 0) * screens


def qemu_key(keysym: int, *, down: bool, keycode: int = 30) -> bytes:
    return struct.pack(">BBHII", 255, 0, down, keysym, keycode)


def qemu_audio(operation: int) -> bytes:
    return struct.pack(">BBH", 255, 1, operation) + (b"\x03\x02\0\0\xac\x44" * (operation == 2))


def connected(*, control: bool, one_frame: bool = False) -> ClientFilter:
    client = ClientFilter(control=control, screen_px=SCREEN, one_frame=one_frame)
    assert client.feed(HANDSHAKE, NOW) == HANDSHAKE_PASSED
    return client


def read(passed: bytes) -> list[Read]:
    """Parse what passed after the handshake."""
    return ServerSide(HANDSHAKE_PASSED + passed).session()[2:]


def released(client: ClientFilter, now: float = NOW) -> bytes:
    """Let update requests pass again; return what passes."""
    client.requests.hold(held=False)
    return client.advance(now)


def frame_sent(client: ClientFilter, now: float = NOW) -> bytes:
    """Report that a full frame was sent; return what passes."""
    client.requests.frame_sent()
    return client.advance(now)


def assert_allowed(passed: bytes, *, control: bool) -> None:
    """Assert that this consists of complete messages that the role allows, all of them clamped."""
    for message in ServerSide(passed).session():
        assert message.name in (SEEN_BY_CONTROL if control else SEEN_BY_VIEW)
        fields = message.fields
        match message.name:
            case "FramebufferUpdateRequest":
                x, y, width, height = fields["rect"]
                assert width > 0
                assert height > 0
                assert x + width <= SCREEN[0]
                assert y + height <= SCREEN[1]
            case "SetEncodings":
                assert_served(fields["encodings"])
            case "SetPixelFormat":
                assert_possible(**fields)
            case "PointerEvent":
                assert fields["x"] < SCREEN[0]
                assert fields["y"] < SCREEN[1]
            case "KeyEvent":
                assert 0 < fields["keysym"] < 1 << 29
            case "ClientCutText":
                assert len(fields["text"]) <= MIB
                fields["text"].decode()


def assert_served(encodings: list[int]) -> None:
    """Each encoding once, and at most one level of each kind, within its limit."""
    assert len(encodings) == len(set(encodings))
    levels = [each for each in encodings if -256 <= each <= -247]
    qualities = [each for each in encodings if -32 <= each <= -23]
    assert len(levels) <= 1
    assert len(qualities) <= 1
    assert all(level <= -254 for level in levels)
    assert levels or 6 not in encodings
    assert set(encodings) - {*levels, *qualities} <= PASSED_ENCODINGS


def assert_possible(
    *, bits: int, depth: int, true_colour: bool, maxima: list[int], shifts: list[int]
) -> None:
    """The channels of a pixel format fit and do not overlap."""
    assert bits in {8, 16, 32}
    assert 0 < depth <= bits
    if true_colour:
        masks = [maximum << shift for maximum, shift in zip(maxima, shifts, strict=True)]
        assert all(0 < mask < 1 << bits for mask in masks)
        assert sum(masks) == masks[0] | masks[1] | masks[2]
        assert sum(mask.bit_count() for mask in masks) <= depth


u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
rects = st.tuples(u16, u16, u16, u16)
harmless = st.one_of(
    st.just(set_pixel_format(*TRUE_COLOUR_32)),
    st.just(set_pixel_format(8, 8, 0, 0, 0, 0, 0, 0, 0, 0)),
    st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-320, 20), max_size=40).map(
        lambda encodings: set_encodings(*encodings)
    ),
    st.builds(update_request, incremental=st.booleans(), rect=rects),
)
touching = st.one_of(
    st.builds(key_event, u32, down=st.booleans()),
    st.builds(pointer_event, u8, u16, u16),
    st.binary(max_size=300).map(cut_text),
    st.binary(min_size=4, max_size=300).map(extended_cut_text),
    st.just(enable_continuous_updates()),
    st.binary(max_size=64).map(fence),
    st.builds(xvp, u8),
    st.builds(set_desktop_size, u8),
    st.builds(qemu_key, u32, down=st.booleans(), keycode=u32),
    st.integers(0, 2).map(qemu_audio),
)
sessions = st.lists(harmless | touching, max_size=25).map(
    lambda messages: HANDSHAKE + b"".join(messages)
)


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# The handshake


def test_the_handshake_passes_without_the_version_and_always_shared() -> None:
    """The viewer's version is dropped, None passes, and an exclusive ClientInit becomes shared."""
    client = ClientFilter(control=False, screen_px=SCREEN)
    assert client.feed(PROTOCOL_VERSION, NOW) == b""
    assert client.feed(b"\x01", NOW) == b"\x01"
    assert client.feed(b"\x00", NOW) == b"\x01"


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.889\n"])
def test_other_protocol_versions_are_refused(version: bytes) -> None:
    """A version other than the one that was sent to the VNC server is a violation."""
    with pytest.raises(ProtocolViolation, match=r"not 3\.8"):
        ClientFilter(control=True, screen_px=SCREEN).feed(version, NOW)


@pytest.mark.parametrize("choice", [0, 2, 16, 19, 255])
def test_security_types_that_were_not_offered_are_refused(choice: int) -> None:
    """Only None is offered, so any other choice is a violation."""
    with pytest.raises(ProtocolViolation, match="security type"):
        ClientFilter(control=True, screen_px=SCREEN).feed(PROTOCOL_VERSION + bytes([choice]), NOW)


# What passes


@given(session=sessions)
@relaxed
def test_no_message_with_a_side_effect_passes_for_view(session: bytes) -> None:
    """Whatever a viewer sends, only its handshake, format, encodings and requests pass."""
    passed = ClientFilter(control=False, screen_px=SCREEN).feed(session, NOW)
    assert_allowed(passed, control=False)


@given(session=sessions)
@relaxed
def test_only_input_passes_in_addition_for_control(session: bytes) -> None:
    """Whatever a controller sends, resize, xvp and the extensions do not pass."""
    passed = ClientFilter(control=True, screen_px=SCREEN).feed(session, NOW)
    assert_allowed(passed, control=True)


@given(messages=st.lists(harmless, max_size=25), control=st.booleans())
@relaxed
def test_formats_and_encodings_pass_in_order(messages: list[bytes], *, control: bool) -> None:
    """Each format and list of encodings reaches the VNC server, for both roles."""
    names = {0: "SetPixelFormat", 2: "SetEncodings"}
    passed = connected(control=control).feed(b"".join(messages), NOW)
    order = [m.name for m in read(passed) if m.name in names.values()]
    assert order == [names[raw[0]] for raw in messages if raw[0] in names]


@pytest.mark.parametrize(
    "raw", [key_event(0xFFE1, down=True), pointer_event(0x81, 5, 6), cut_text(b"x" * 999)]
)
def test_input_passes_for_control_only(raw: bytes) -> None:
    """Key events, pointer events and cut text pass unchanged for control, and not for view."""
    assert connected(control=True).feed(raw, NOW) == raw
    assert connected(control=False).feed(raw, NOW) == b""


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    "raw",
    [
        set_desktop_size(1),
        set_desktop_size(255),
        xvp(2),
        fence(b""),
        fence(b"f" * 64),
        enable_continuous_updates(),
        extended_cut_text(b"\x10\0\0\1" + b"z" * 500),
        qemu_audio(0),
        qemu_audio(2),
        qemu_key(0, down=True),
    ],
)
def test_extensions_are_skipped(raw: bytes, *, control: bool) -> None:
    """A message that libvncserver does not support or must not obey is skipped, and no other."""
    request = update_request(incremental=True, rect=(0, 0, 9, 9))
    assert connected(control=control).feed(raw + request, NOW) == request


def test_a_qemu_key_becomes_a_plain_key() -> None:
    """Libvncserver does not support QEMU's key event, so it gets the KeyEvent of its keysym."""
    passed = connected(control=True).feed(qemu_key(0x61, down=True), NOW)
    assert read(passed) == [Read("KeyEvent", {"down": True, "keysym": 0x61})]


@pytest.mark.parametrize("control", [False, True])
def test_only_served_encodings_are_announced(*, control: bool) -> None:
    """Encodings that would enable messages that do not pass are removed; the order is kept."""
    announced = [EXTENDED_CLIPBOARD, 7, XVP, 16, EXTENDED_DESKTOP_SIZE, 7, FENCE, -239, -26]
    announced += [CONTINUOUS_UPDATES, QEMU_KEYS, EXTENDED_BUTTONS, 0x574D5664, 1, 0]
    passed = connected(control=control).feed(set_encodings(*announced), NOW)
    assert read(passed) == [Read("SetEncodings", {"encodings": [7, 16, -239, -26, 1, 0]})]


@pytest.mark.parametrize(
    ("announced", "passed"),
    [
        ([6, -247], [6, -254]),
        ([7, -247, -256], [7, -256]),
        ([6], [6, -254]),
        ([-255, 6], [-255, 6]),
        ([7, -32, -23], [7, -23]),
        ([7, *range(-511, 0)], [7, -223, -224, -239, -23, -254]),
    ],
)
def test_levels_are_clamped(announced: list[int], passed: list[int]) -> None:
    """The last level counts; Zlib gets a level in any case."""
    got = read(connected(control=False).feed(set_encodings(*announced), NOW))
    assert sorted(got[0].fields["encodings"]) == sorted(passed)


@pytest.mark.parametrize("text", ["plain", "gr\u00fc\u00dfe", "\u4f60\u597d \U0001f600", "\u00c3"])
def test_cut_text_is_converted_to_utf8(text):
    """It may arrive as UTF-8 or as Latin-1, which RFC 6143 specifies."""
    utf8 = text.encode()
    arriving = [utf8] if max(text) > "\u00ff" else [utf8, text.encode("latin-1")]
    for raw in arriving:
        client = connected(control=True)
        assert client.feed(cut_text(raw), NOW) == cut_text(utf8)


def test_cut_text_too_long_as_utf8_does_not_pass():
    """Latin-1 that exceeds libvncserver's limit as UTF-8 is dropped; what follows passes."""
    client = connected(control=True)
    after = key_event(0x61, down=True)
    assert client.feed(cut_text(b"\xff" * MIB) + after, NOW) == after


# Cut into pieces


@given(session=sessions, places=st.lists(st.integers(0, 1 << 16), max_size=60), control=...)
@relaxed
def test_packet_boundaries_make_no_difference(
    session: bytes, places: list[int], *, control: bool
) -> None:
    """The output does not depend on the packets, and always ends with a complete message."""
    client = ClientFilter(control=control, screen_px=SCREEN)
    pieces = [client.feed(piece, NOW) for piece in cut_at(session, places)]
    assert b"".join(pieces) == ClientFilter(control=control, screen_px=SCREEN).feed(session, NOW)
    for count in range(len(pieces)):
        ServerSide(b"".join(pieces[:count])).session()  # raises if it ends within a message


@given(session=sessions, control=...)
@settings(relaxed, max_examples=30)
def test_one_byte_at_a_time_makes_no_difference(session: bytes, *, control: bool) -> None:
    """A session that arrives byte by byte has the same output."""
    client = ClientFilter(control=control, screen_px=SCREEN)
    pieces = [client.feed(session[i : i + 1], NOW) for i in range(len(session))]
    assert b"".join(pieces) == ClientFilter(control=control, screen_px=SCREEN).feed(session, NOW)


# What is not RFB


@given(
    garbage=st.binary(max_size=400),
    after=st.sampled_from([b"", PROTOCOL_VERSION, HANDSHAKE]),
    places=st.lists(st.integers(0, 400), max_size=10),
    control=...,
)
@settings(relaxed, max_examples=400)
def test_garbage_raises_nothing_but_a_violation(
    garbage: bytes, after: bytes, places: list[int], *, control: bool
) -> None:
    """Any bytes either pass as messages that the role allows, or are a violation."""
    client = ClientFilter(control=control, screen_px=SCREEN)
    passed = b""
    try:
        for piece in cut_at(after + garbage, places):
            passed += client.feed(piece, NOW)
    except ProtocolViolation:
        pass
    assert_allowed(passed, control=control)


@given(session=sessions, place=st.integers(0, 1 << 16), byte=u8, control=...)
@relaxed
def test_a_damaged_session_raises_nothing_but_a_violation(
    session: bytes, place: int, byte: int, *, control: bool
) -> None:
    """With one byte changed, only messages that the role allows pass, or it is a violation."""
    at = place % len(session)
    damaged = session[:at] + bytes([byte]) + session[at + 1 :]
    try:
        passed = ClientFilter(control=control, screen_px=SCREEN).feed(damaged, NOW)
    except ProtocolViolation:
        return
    assert_allowed(passed, control=control)


KNOWN_TYPES = {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255}


@pytest.mark.parametrize("control", [False, True])
def test_unknown_types_are_violations(*, control: bool) -> None:
    """File transfer, chat, scaling and every other unlisted type end the connection at once."""
    for kind in set(range(256)) - KNOWN_TYPES:
        with pytest.raises(ProtocolViolation, match="unknown message type"):
            connected(control=control).feed(bytes([kind]), NOW)


def test_nothing_passes_after_a_violation() -> None:
    """After a violation even a valid message is refused."""
    client = connected(control=True)
    with pytest.raises(ProtocolViolation):
        client.feed(b"\x07", NOW)
    with pytest.raises(ProtocolViolation):
        client.feed(update_request(incremental=True, rect=(0, 0, 1, 1)), NOW)


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        struct.pack(">BxH", 2, 513),
        struct.pack(">B3xI", 6, MIB + 1),
        struct.pack(">B3xI", 6, 0x80000000),
        struct.pack(">B3xi", 6, -MIB - 1),
        struct.pack(">B3xi", 6, -3),
        struct.pack(">B3xIB", 248, 0, 65),
        struct.pack(">BBH", 255, 1, 3),
        struct.pack(">BBH", 255, 2, 0),
    ],
)
def test_impossible_lengths_are_violations(head: bytes, *, control: bool) -> None:
    """A length out of bounds is refused when it is announced, before any of it arrives."""
    with pytest.raises(ProtocolViolation):
        connected(control=control).feed(head, NOW)


@pytest.mark.parametrize(
    "pixel_format",
    [
        TRUE_COLOUR_32,
        (32, 32, 1, 1, 255, 255, 255, 24, 16, 8),
        (16, 16, 0, 1, 31, 63, 31, 11, 5, 0),
        (8, 8, 0, 1, 7, 7, 3, 0, 3, 6),
        (8, 8, 0, 1, 3, 3, 3, 0, 2, 4),
        (8, 8, 0, 0, 0, 0, 0, 0, 0, 0),
        (8, 3, 0, 1, 1, 1, 1, 2, 1, 0),
        (8, 6, 0, 1, 3, 3, 3, 4, 2, 0),
        (16, 15, 0, 1, 31, 31, 31, 10, 5, 0),
        (32, 24, 0, 1, 255, 255, 255, 0, 8, 16),
        (32, 30, 0, 1, 1023, 1023, 1023, 20, 10, 0),
    ],
)
def test_usual_pixel_formats_pass(pixel_format: tuple[int, ...]) -> None:
    """The formats that viewers use reach the VNC server unchanged."""
    raw = set_pixel_format(*pixel_format)
    assert connected(control=False).feed(raw, NOW) == raw


@pytest.mark.parametrize(
    "pixel_format",
    [
        (24, 24, 0, 1, 255, 255, 255, 16, 8, 0),
        (0, 0, 0, 1, 255, 255, 255, 16, 8, 0),
        (16, 24, 0, 1, 255, 255, 255, 8, 8, 0),  # libvncserver's Tight encoder overruns with it
        (32, 24, 0, 1, 0, 255, 255, 16, 8, 0),
        (32, 24, 0, 1, 254, 255, 255, 16, 8, 0),
        (32, 24, 0, 1, 255, 255, 255, 25, 8, 0),
        (32, 24, 0, 1, 255, 255, 255, 255, 8, 0),
        (32, 24, 0, 0, 0, 0, 0, 0, 0, 0),
        (32, 24, 0, 1, 255, 255, 255, 0, 0, 0),  # channels overlap
        (32, 24, 0, 1, 255, 255, 255, 16, 8, 7),
        (32, 16, 0, 1, 255, 255, 255, 16, 8, 0),  # more bits than the depth
        (32, 0, 0, 1, 255, 255, 255, 16, 8, 0),
        (8, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (32, 32, 0, 1, 0xFFFF, 255, 255, 16, 8, 0),
        (16, 16, 0, 0, 0, 0, 0, 0, 0, 0),
    ],
)
def test_impossible_pixel_formats_are_violations(pixel_format: tuple[int, ...]) -> None:
    """Libvncserver does not verify formats, so inconsistent ones must not reach it."""
    with pytest.raises(ProtocolViolation, match="pixel format"):
        connected(control=False).feed(set_pixel_format(*pixel_format), NOW)


def test_the_text_of_a_violation_contains_no_bytes_of_the_viewer() -> None:
    """It can be logged and sent."""
    with pytest.raises(ProtocolViolation) as caught:
        ClientFilter(control=False, screen_px=SCREEN).feed(b"GET /secret ", NOW)
    assert "secret" not in str(caught.value)


# Bounds


def test_the_longest_messages_pass() -> None:
    """512 encodings and 1 MiB of cut text are within the limits."""
    client = connected(control=True)
    assert client.feed(set_encodings(*[0] * 512), NOW) == set_encodings(0)
    assert client.feed(cut_text(b"t" * MIB), NOW) == cut_text(b"t" * MIB)


@pytest.mark.parametrize(
    ("raw", "control", "limit_bytes"),
    [
        (cut_text(b"t" * MIB), False, 64 * 1024),
        (extended_cut_text(b"t" * MIB), True, 64 * 1024),
        (cut_text(b"t" * MIB), True, 4 * MIB),
    ],
)
def test_memory_is_bounded(raw: bytes, limit_bytes: int, *, control: bool) -> None:
    """A message that does not pass is not buffered; another is buffered once."""
    client = connected(control=control)
    pieces = [raw[i : i + 1000] for i in range(0, len(raw) - 1, 1000)]
    tracemalloc.start()
    try:
        for piece in pieces[:-1]:
            client.feed(piece, NOW)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < limit_bytes


# Holding updates back


def test_update_requests_are_counted() -> None:
    client = connected(control=False)
    client.feed(update_request(incremental=True, rect=(0, 0, 1920, 1080)) * 3, NOW)
    assert client.requests.passed == 3


def test_held_requests_become_one() -> None:
    """Held requests merge into one for all areas, non-incremental if any of them is."""
    client = connected(control=False)
    client.requests.hold(held=True)
    held = update_request(incremental=True, rect=(10, 20, 5, 5))
    held += update_request(incremental=False, rect=(0, 30, 8, 100))
    held += update_request(incremental=True, rect=(100, 25, 1, 2))
    assert client.feed(held, NOW) == b""
    assert client.requests.passed == 0
    assert read(released(client)) == [
        Read("FramebufferUpdateRequest", {"incremental": False, "rect": (0, 20, 101, 110)})
    ]
    assert client.requests.passed == 1


def test_a_single_held_request_comes_back_as_it_was() -> None:
    """A single held request is released unchanged."""
    client = connected(control=False)
    request = update_request(incremental=True, rect=(1, 2, 3, 4))
    client.requests.hold(held=True)
    client.feed(request, NOW)
    assert released(client) == request


def test_requests_pass_again_after_release() -> None:
    """A release with nothing held is empty, and later requests pass at once."""
    client = connected(control=False)
    request = update_request(incremental=True, rect=(1, 2, 3, 4))
    client.requests.hold(held=True)
    assert released(client) == b""
    assert client.feed(request, NOW) == request


def test_non_incremental_requests_pass_one_at_a_time() -> None:
    """Those that wait are merged; incremental requests pass at once."""
    client = connected(control=False, one_frame=True)
    whole = update_request(incremental=False, rect=(0, 0, 1920, 1080))
    change = update_request(incremental=True, rect=(0, 0, 1920, 1080))
    assert client.feed(whole * 4 + change, NOW) == whole + change
    assert frame_sent(client) == whole
    assert client.feed(whole, NOW) == b""
    client.requests.hold(held=True)
    later = NOW + FRAME_WAIT_S * 0.9
    assert frame_sent(client, later) == b""
    assert released(client, later) == whole
    client.requests.hold(held=True)
    client.feed(whole, later)
    assert released(client, later) == b""
    assert frame_sent(client, later + 1) == whole
    assert frame_sent(client, later + 2) == b""


def test_input_passes_while_update_requests_are_held() -> None:
    client = connected(control=True)
    client.requests.hold(held=True)
    request = update_request(incremental=True, rect=(0, 0, 1, 1))
    key = key_event(0x61, down=True)
    assert client.feed(request + key + request[:4], NOW) == key
    assert client.feed(request[4:] + key, NOW) == key


@given(requests=st.lists(st.tuples(st.booleans(), rects), min_size=1, max_size=20))
@relaxed
def test_a_merged_request_covers_every_held_one(
    requests: list[tuple[bool, tuple[int, int, int, int]]],
) -> None:
    """Merging loses no requested part of the screen."""
    client = connected(control=False)
    client.requests.hold(held=True)
    for incremental, rect in requests:
        client.feed(update_request(incremental=incremental, rect=rect), NOW)
    merged = read(released(client))
    inside = [(incremental, rect) for incremental, rect in requests if on_screen(rect)]
    assert len(merged) == bool(inside)
    for message in merged:
        left, top, width, height = message.fields["rect"]
        assert message.fields["incremental"] == all(incremental for incremental, _ in inside)
        for _, (x, y, w, h) in inside:
            assert left <= x
            assert top <= y
            assert left + width >= min(x + w, SCREEN[0])
            assert top + height >= min(y + h, SCREEN[1])


def on_screen(rect: tuple[int, int, int, int]) -> bool:
    """Whether it has a pixel of the screen."""
    x, y, width, height = rect
    return width > 0 and height > 0 and x < SCREEN[0] and y < SCREEN[1]


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize(
    ("requested", "clamped"),
    [
        ((0, 0, 0, 1080), None),
        ((0, 0, 1920, 0), None),
        ((0, 0, 0, 0), None),
        ((1920, 0, 1, 1), None),
        ((0, 1080, 1, 1), None),
        ((65535, 65535, 65535, 65535), None),
        ((0, 0, 65535, 65535), (0, 0, 1920, 1080)),
        ((1919, 1079, 65535, 2), (1919, 1079, 1, 1)),
        ((5, 6, 7, 8), (5, 6, 7, 8)),
    ],
)
def test_requests_are_clamped_to_the_screen(
    requested: tuple[int, int, int, int],
    clamped: tuple[int, int, int, int] | None,
    *,
    incremental: bool,
) -> None:
    """One that is empty or outside is dropped: libvncserver's encoders divide by its width."""
    passed = connected(control=False).feed(
        update_request(incremental=incremental, rect=requested), NOW
    )
    assert [message.fields["rect"] for message in read(passed)] == [clamped] * bool(clamped)


# Rates


class Talk:
    """A viewer that sends messages over time, and what passed of them."""

    def __init__(self, *, control: bool = False, one_frame: bool = True) -> None:
        self.now = NOW
        self.client = connected(control=control, one_frame=one_frame)
        self.passed: list[tuple[float, Read]] = []

    def send(self, data: bytes) -> None:
        self._note(self.client.feed(data, self.now))

    def wait(self, seconds: float) -> None:
        """Let time pass; the filter is called whenever something is due."""
        end = self.now + seconds
        while (due_at := self.client.due_at(self.now)) is not None and due_at <= end:
            self.now = max(self.now, due_at) + 0.001
            self._note(self.client.advance(self.now))
        self.now = max(self.now, end)
        self._note(self.client.advance(self.now))

    def _note(self, passed: bytes) -> None:
        self.passed += [(self.now, message) for message in read(passed)]

    def count(self, name: str, **fields: Any) -> int:
        return sum(
            message.name == name and fields.items() <= message.fields.items()
            for _, message in self.passed
        )


WHOLE = update_request(incremental=False, rect=(0, 0, *SCREEN))
CHANGE = update_request(incremental=True, rect=(0, 0, *SCREEN))
MOVE = [pointer_event(0, x, x) for x in range(1000)]


@pytest.mark.parametrize(
    ("message", "name", "fields", "per_s", "burst"),
    [
        (WHOLE, "FramebufferUpdateRequest", {"incremental": False}, 2, 4),
        (WHOLE + CHANGE, "FramebufferUpdateRequest", {"incremental": False}, 2, 4),
        (CHANGE, "FramebufferUpdateRequest", {}, 200, 60),
        (
            update_request(incremental=False, rect=(0, 0, 1, 1)),
            "FramebufferUpdateRequest",
            {},
            200,
            60,
        ),
        (set_encodings(6, -247), "SetEncodings", {}, 10, 42),
        (set_pixel_format(*TRUE_COLOUR_32), "SetPixelFormat", {}, 10, 42),
        (key_event(0x61, down=True), "KeyEvent", {}, 500, 510),
        (pointer_event(1, 0, 0) + pointer_event(0, 0, 0), "PointerEvent", {}, 500, 510),
        (MOVE[1] + MOVE[2], "PointerEvent", {}, 125, 30),
        (cut_text(b"x"), "ClientCutText", {}, 4, 10),
    ],
)
def test_rate_of_each_message_is_bounded(
    message: bytes, name: str, fields: dict[str, Any], per_s: float, burst: int
) -> None:
    """However often a viewer sends it, no more pass than the budget allows in any time."""
    talk = Talk(control=True, one_frame=False)
    for _ in range(60):
        if not talk.client.paused:
            talk.send(message * 1000)
        talk.wait(0.05)
    assert burst / 2 <= talk.count(name, **fields) <= burst + per_s * (talk.now - NOW)


def test_a_full_request_passes_eventually() -> None:
    """Of many at once the first passes; the others are merged into one, which passes later."""
    talk = Talk()
    talk.send(WHOLE * 500)
    assert talk.count("FramebufferUpdateRequest") == 1
    talk.client.requests.server_sent()
    talk.wait(10)
    assert talk.count("FramebufferUpdateRequest", incremental=False) == 2


def test_full_requests_do_not_pile_up_at_a_server_that_does_not_run() -> None:
    """It would answer each of them with a frame when it runs again."""
    talk = Talk()
    for _ in range(60):
        talk.send(WHOLE)
        talk.wait(1)
    assert talk.count("FramebufferUpdateRequest", incremental=False) == 1
    talk.send(CHANGE)
    assert talk.count("FramebufferUpdateRequest", incremental=True) == 1


def test_keys_and_buttons_are_delayed_and_never_lost() -> None:
    """All of them pass, in their order."""
    talk = Talk(control=True)
    events = [key_event(1 + n % 200, down=n % 2 == 0) for n in range(3000)]
    talk.send(b"".join(events))
    talk.wait(60)
    assert [m.fields["keysym"] for _, m in talk.passed] == [1 + n % 200 for n in range(3000)]
    assert not talk.client.paused


def test_the_newest_motion_passes_and_precedes_other_input() -> None:
    talk = Talk(control=True)
    talk.send(b"".join(MOVE))
    talk.wait(1)
    assert talk.passed[-1][1].fields["x"] == 999
    talk.send(b"".join(MOVE[:500]) + key_event(0x61, down=True))
    assert [m.fields.get("x", "key") for _, m in talk.passed[-2:]] == [499, "key"]


def test_messages_without_effect_are_bounded_too() -> None:
    """A flood of skipped messages pauses the reading of the viewer."""
    talk = Talk()
    talk.send(MOVE[0] * 20_000)
    assert talk.client.paused
    talk.wait(10)
    assert not talk.client.paused
    talk.client.charge(20_000, talk.now)
    assert talk.client.paused


@given(
    steps=st.lists(
        st.tuples(harmless | touching, st.sampled_from([0, 0, 0.001, 0.1, 1])), max_size=60
    ),
    control=...,
)
@settings(relaxed, max_examples=60)
def test_time_makes_no_difference_to_what_is_allowed(
    steps: list[tuple[bytes, float]], *, control: bool
) -> None:
    """Whatever is delayed or merged, only complete, clamped messages pass, and nothing is left."""
    client = ClientFilter(control=control, screen_px=SCREEN, one_frame=True)
    passed, now = client.feed(HANDSHAKE, NOW), NOW
    for message, pause_s in steps * 3:
        now += pause_s
        passed += client.feed(message, now)
        ServerSide(passed).session()  # raises if it ends within a message
    while (due_at := client.due_at(now)) is not None:
        now = max(now, due_at) + 0.001
        passed += client.advance(now)
    assert now < NOW + 3 * 60 + 120
    assert_allowed(passed, control=control)
    requested = [struct.unpack(">BBHHHH", m) for m, _ in steps if m[0] == 3]
    full = any(not r[1] for r in requested if on_screen(r[2:]))
    seen = [m.fields["incremental"] for m in read(passed[2:]) if "incremental" in m.fields]
    assert bool(seen) == any(on_screen(r[2:]) for r in requested)
    assert (False in seen) == full


# Releasing input


def test_keys_and_buttons_of_a_leaving_controller_are_released() -> None:
    """The key that was pressed last is released first, the buttons at the end."""
    client = connected(control=True)
    client.feed(key_event(0xFFE1, down=True) + key_event(0x61, down=True), NOW)
    client.feed(qemu_key(0x62, down=True) + key_event(0x61, down=False), NOW)
    client.feed(pointer_event(0, 1, 1) + pointer_event(1, 40, 50), NOW)
    released = [key_event(0x62, down=False), key_event(0xFFE1, down=False)]
    assert client.release_input() == b"".join(released) + pointer_event(0, 40, 50)
    assert client.release_input() == b""


def test_only_what_is_held_down_is_released() -> None:
    """Neither keys of the role view, which never passed, nor keys that are up already."""
    viewer, controller = connected(control=False), connected(control=True)
    viewer.feed(key_event(0xFFE1, down=True) + pointer_event(1, 4, 5), NOW)
    controller.feed(key_event(0x61, down=True) + key_event(0x61, down=False), NOW)
    controller.feed(pointer_event(1, 4, 5) + pointer_event(0, 4, 5), NOW)
    assert viewer.release_input() == controller.release_input() == b""


def test_memory_for_keys_held_down_is_bounded() -> None:
    client = connected(control=True)
    for keysym in range(1000):
        client.feed(key_event(keysym, down=True), NOW)
    assert len(read(client.release_input())) == 256
