"""Which messages of a viewer reach the VNC server, in what form, and what is a violation."""

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rfb_parser import Read, ServerSide

from worker.rfb.client_filter import PROTOCOL_VERSION, ClientFilter, ProtocolViolation

HANDSHAKE = b"RFB 003.008\n" + b"\x01" + b"\x01"
HANDSHAKE_PASSED = b"\x01\x01"
TRUE_COLOUR_32 = (32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
MIB = 1 << 20

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
    client = ClientFilter(control=control, one_frame=one_frame)
    assert client.feed(HANDSHAKE) == HANDSHAKE_PASSED
    return client


def read(passed: bytes) -> list[Read]:
    """Parse what passed after the handshake."""
    return ServerSide(HANDSHAKE_PASSED + passed).session()[2:]


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
    client = ClientFilter(control=False)
    assert client.feed(PROTOCOL_VERSION) == b""
    assert client.feed(b"\x01") == b"\x01"
    assert client.feed(b"\x00") == b"\x01"


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.889\n"])
def test_other_protocol_versions_are_refused(version: bytes) -> None:
    """A version other than the one that was sent to the VNC server is a violation."""
    with pytest.raises(ProtocolViolation, match=r"not 3\.8"):
        ClientFilter(control=True).feed(version)


@pytest.mark.parametrize("choice", [0, 2, 16, 19, 255])
def test_security_types_that_were_not_offered_are_refused(choice: int) -> None:
    """Only None is offered, so any other choice is a violation."""
    with pytest.raises(ProtocolViolation, match="security type"):
        ClientFilter(control=True).feed(PROTOCOL_VERSION + bytes([choice]))


# What passes


@given(session=sessions)
@relaxed
def test_no_message_with_a_side_effect_passes_for_view(session: bytes) -> None:
    """Whatever a viewer sends, only its handshake, format, encodings and requests pass."""
    passed = ClientFilter(control=False).feed(session)
    assert {message.name for message in ServerSide(passed).session()} <= SEEN_BY_VIEW


@given(session=sessions)
@relaxed
def test_only_input_passes_in_addition_for_control(session: bytes) -> None:
    """Whatever a controller sends, resize, xvp and the extensions do not pass."""
    passed = ClientFilter(control=True).feed(session)
    assert {message.name for message in ServerSide(passed).session()} <= SEEN_BY_CONTROL


@given(messages=st.lists(harmless, max_size=25), control=st.booleans())
@relaxed
def test_formats_encodings_and_requests_pass_in_order(
    messages: list[bytes], *, control: bool
) -> None:
    """Each of them reaches the VNC server, for both roles."""
    names = {0: "SetPixelFormat", 2: "SetEncodings", 3: "FramebufferUpdateRequest"}
    passed = connected(control=control).feed(b"".join(messages))
    assert [m.name for m in read(passed)] == [names[raw[0]] for raw in messages]


@pytest.mark.parametrize(
    "raw", [key_event(0xFFE1, down=True), pointer_event(0x81, 5, 6), cut_text(b"x" * 999)]
)
def test_input_passes_for_control_only(raw: bytes) -> None:
    """Key events, pointer events and cut text pass unchanged for control, and not for view."""
    assert connected(control=True).feed(raw) == raw
    assert connected(control=False).feed(raw) == b""


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
    assert connected(control=control).feed(raw + request) == request


def test_a_qemu_key_becomes_a_plain_key() -> None:
    """Libvncserver does not support QEMU's key event, so it gets the KeyEvent of its keysym."""
    passed = connected(control=True).feed(qemu_key(0x61, down=True))
    assert read(passed) == [Read("KeyEvent", {"down": True, "keysym": 0x61})]


@pytest.mark.parametrize("control", [False, True])
def test_only_served_encodings_are_announced(*, control: bool) -> None:
    """Encodings that would enable messages that do not pass are removed; the order is kept."""
    announced = [EXTENDED_CLIPBOARD, 7, XVP, 16, EXTENDED_DESKTOP_SIZE, 7, FENCE, -239, -26]
    announced += [CONTINUOUS_UPDATES, QEMU_KEYS, EXTENDED_BUTTONS, 0x574D5664, 1, 0]
    passed = connected(control=control).feed(set_encodings(*announced))
    assert read(passed) == [Read("SetEncodings", {"encodings": [7, 16, -239, -26, 1, 0]})]


@pytest.mark.parametrize("text", ["plain", "gr\u00fc\u00dfe", "\u4f60\u597d \U0001f600", "\u00c3"])
def test_cut_text_is_converted_to_utf8(text):
    """It may arrive as UTF-8 or as Latin-1, which RFC 6143 specifies."""
    utf8 = text.encode()
    arriving = [utf8] if max(text) > "\u00ff" else [utf8, text.encode("latin-1")]
    for raw in arriving:
        client = connected(control=True)
        assert client.feed(cut_text(raw)) == cut_text(utf8)


def test_cut_text_too_long_as_utf8_does_not_pass():
    """Latin-1 that exceeds libvncserver's limit as UTF-8 is dropped; what follows passes."""
    client = connected(control=True)
    after = key_event(0x61, down=True)
    assert client.feed(cut_text(b"\xff" * MIB) + after) == after


# Cut into pieces


@given(session=sessions, places=st.lists(st.integers(0, 1 << 16), max_size=60), control=...)
@relaxed
def test_packet_boundaries_make_no_difference(
    session: bytes, places: list[int], *, control: bool
) -> None:
    """The output does not depend on the packets, and always ends with a complete message."""
    client = ClientFilter(control=control)
    pieces = [client.feed(piece) for piece in cut_at(session, places)]
    assert b"".join(pieces) == ClientFilter(control=control).feed(session)
    for count in range(len(pieces)):
        ServerSide(b"".join(pieces[:count])).session()  # raises if it ends within a message


@given(session=sessions, control=...)
@settings(relaxed, max_examples=30)
def test_one_byte_at_a_time_makes_no_difference(session: bytes, *, control: bool) -> None:
    """A session that arrives byte by byte has the same output."""
    client = ClientFilter(control=control)
    pieces = [client.feed(session[i : i + 1]) for i in range(len(session))]
    assert b"".join(pieces) == ClientFilter(control=control).feed(session)


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
    client = ClientFilter(control=control)
    passed = b""
    try:
        for piece in cut_at(after + garbage, places):
            passed += client.feed(piece)
    except ProtocolViolation:
        pass
    seen = {message.name for message in ServerSide(passed).session()}
    assert seen <= (SEEN_BY_CONTROL if control else SEEN_BY_VIEW)


@given(session=sessions, place=st.integers(0, 1 << 16), byte=u8, control=...)
@relaxed
def test_a_damaged_session_raises_nothing_but_a_violation(
    session: bytes, place: int, byte: int, *, control: bool
) -> None:
    """With one byte changed, only messages that the role allows pass, or it is a violation."""
    at = place % len(session)
    damaged = session[:at] + bytes([byte]) + session[at + 1 :]
    try:
        passed = ClientFilter(control=control).feed(damaged)
    except ProtocolViolation:
        return
    seen = {message.name for message in ServerSide(passed).session()}
    assert seen <= (SEEN_BY_CONTROL if control else SEEN_BY_VIEW)


KNOWN_TYPES = {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255}


@pytest.mark.parametrize("control", [False, True])
def test_unknown_types_are_violations(*, control: bool) -> None:
    """File transfer, chat, scaling and every other unlisted type end the connection at once."""
    for kind in set(range(256)) - KNOWN_TYPES:
        with pytest.raises(ProtocolViolation, match="unknown message type"):
            connected(control=control).feed(bytes([kind]))


def test_nothing_passes_after_a_violation() -> None:
    """After a violation even a valid message is refused."""
    client = connected(control=True)
    with pytest.raises(ProtocolViolation):
        client.feed(b"\x07")
    with pytest.raises(ProtocolViolation):
        client.feed(update_request(incremental=True, rect=(0, 0, 1, 1)))


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
        connected(control=control).feed(head)


@pytest.mark.parametrize(
    "pixel_format",
    [
        TRUE_COLOUR_32,
        (32, 32, 1, 1, 255, 255, 255, 24, 16, 8),
        (16, 16, 0, 1, 31, 63, 31, 11, 5, 0),
        (8, 8, 0, 1, 7, 7, 3, 0, 3, 6),
        (8, 8, 0, 1, 3, 3, 3, 0, 2, 4),
        (8, 8, 0, 0, 0, 0, 0, 0, 0, 0),
    ],
)
def test_usual_pixel_formats_pass(pixel_format: tuple[int, ...]) -> None:
    """The formats that viewers use reach the VNC server unchanged."""
    raw = set_pixel_format(*pixel_format)
    assert connected(control=False).feed(raw) == raw


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
    ],
)
def test_impossible_pixel_formats_are_violations(pixel_format: tuple[int, ...]) -> None:
    """Libvncserver does not verify formats, so inconsistent ones must not reach it."""
    with pytest.raises(ProtocolViolation, match="pixel format"):
        connected(control=False).feed(set_pixel_format(*pixel_format))


def test_the_text_of_a_violation_contains_no_bytes_of_the_viewer() -> None:
    """It can be logged and sent."""
    with pytest.raises(ProtocolViolation) as caught:
        ClientFilter(control=False).feed(b"GET /secret ")
    assert "secret" not in str(caught.value)


# Bounds


def test_the_longest_messages_pass() -> None:
    """512 encodings and 1 MiB of cut text are within the limits."""
    client = connected(control=True)
    assert client.feed(set_encodings(*[0] * 512)) == set_encodings(0)
    assert client.feed(cut_text(b"t" * MIB)) == cut_text(b"t" * MIB)


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
            client.feed(piece)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < limit_bytes


# Holding updates back


def test_update_requests_are_counted() -> None:
    client = connected(control=False)
    client.feed(update_request(incremental=False, rect=(0, 0, 1920, 1080)) * 3)
    assert client.update_requests == 3


def test_held_requests_become_one() -> None:
    """Held requests merge into one for all areas, non-incremental if any of them is."""
    client = connected(control=False)
    client.hold_updates()
    held = update_request(incremental=True, rect=(10, 20, 5, 5))
    held += update_request(incremental=False, rect=(0, 30, 8, 100))
    held += update_request(incremental=True, rect=(100, 25, 1, 2))
    assert client.feed(held) == b""
    assert client.update_requests == 0
    assert read(client.release_updates()) == [
        Read("FramebufferUpdateRequest", {"incremental": False, "rect": (0, 20, 101, 110)})
    ]
    assert client.update_requests == 1


def test_a_single_held_request_comes_back_as_it_was() -> None:
    """A single held request is released unchanged."""
    client = connected(control=False)
    request = update_request(incremental=True, rect=(1, 2, 3, 4))
    client.hold_updates()
    client.feed(request)
    assert client.release_updates() == request


def test_requests_pass_again_after_release() -> None:
    """A release with nothing held is empty, and later requests pass at once."""
    client = connected(control=False)
    request = update_request(incremental=True, rect=(1, 2, 3, 4))
    client.hold_updates()
    assert client.release_updates() == b""
    assert client.feed(request) == request


def test_non_incremental_requests_pass_one_at_a_time() -> None:
    """Those that wait are merged; incremental requests pass at once."""
    client = connected(control=False, one_frame=True)
    whole = update_request(incremental=False, rect=(0, 0, 1920, 1080))
    change = update_request(incremental=True, rect=(0, 0, 1920, 1080))
    assert client.feed(whole * 4 + change) == whole + change
    assert client.frame_sent() == whole
    assert client.feed(whole) == b""
    client.hold_updates()
    assert client.frame_sent() == b""
    assert client.release_updates() == whole
    client.hold_updates()
    client.feed(whole)
    assert client.release_updates() == b""
    assert client.frame_sent() == whole
    assert client.frame_sent() == b""


def test_input_passes_while_update_requests_are_held() -> None:
    client = connected(control=True)
    client.hold_updates()
    request = update_request(incremental=True, rect=(0, 0, 1, 1))
    key = key_event(0x61, down=True)
    assert client.feed(request + key + request[:4]) == key
    assert client.feed(request[4:] + key) == key


@given(requests=st.lists(st.tuples(st.booleans(), rects), min_size=1, max_size=20))
@relaxed
def test_a_merged_request_covers_every_held_one(
    requests: list[tuple[bool, tuple[int, int, int, int]]],
) -> None:
    """Merging loses no requested area within the 16 bits of the coordinates."""
    client = connected(control=False)
    client.hold_updates()
    for incremental, rect in requests:
        client.feed(update_request(incremental=incremental, rect=rect))
    (merged,) = read(client.release_updates())
    left, top, width, height = merged.fields["rect"]
    assert merged.fields["incremental"] == all(incremental for incremental, _ in requests)
    for _, (x, y, w, h) in requests:
        assert left <= x
        assert top <= y
        assert left + width >= min(x + w, 0xFFFF)
        assert top + height >= min(y + h, 0xFFFF)


# Releasing input


def test_keys_and_buttons_of_a_leaving_controller_are_released() -> None:
    """The key that was pressed last is released first, the buttons at the end."""
    client = connected(control=True)
    client.feed(key_event(0xFFE1, down=True) + key_event(0x61, down=True))
    client.feed(qemu_key(0x62, down=True) + key_event(0x61, down=False))
    client.feed(pointer_event(0, 1, 1) + pointer_event(1, 40, 50))
    released = [key_event(0x62, down=False), key_event(0xFFE1, down=False)]
    assert client.release_input() == b"".join(released) + pointer_event(0, 40, 50)
    assert client.release_input() == b""


def test_only_what_is_held_down_is_released() -> None:
    """Neither keys of the role view, which never passed, nor keys that are up already."""
    viewer, controller = connected(control=False), connected(control=True)
    viewer.feed(key_event(0xFFE1, down=True) + pointer_event(1, 4, 5))
    controller.feed(key_event(0x61, down=True) + key_event(0x61, down=False))
    controller.feed(pointer_event(1, 4, 5) + pointer_event(0, 4, 5))
    assert viewer.release_input() == controller.release_input() == b""


def test_memory_for_keys_held_down_is_bounded() -> None:
    client = connected(control=True)
    for keysym in range(1000):
        client.feed(key_event(keysym, down=True))
    assert len(read(client.release_input())) == 256
