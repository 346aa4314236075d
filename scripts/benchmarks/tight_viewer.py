"""A viewer that requests the same encodings as noVNC and decodes them.

Tight is not in RFC 6143; it is in the community's specification (github.com/rfbproto/rfbproto).
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

from PIL import Image
from rfb_client import COPY_RECT, CURSOR, DESKTOP_SIZE, LAST_RECT, RAW, PixelFormat, Rect, Viewer

if TYPE_CHECKING:
    from collections.abc import Generator

    Reads = Generator[memoryview, None, bytes]

TIGHT = 7
QUALITY_6, COMPRESSION_2 = -26, -254
FENCE, CONTINUOUS_UPDATES, DESKTOP_NAME = -312, -313, -307
ENCODINGS = (*(COPY_RECT, TIGHT, RAW, QUALITY_6, COMPRESSION_2, DESKTOP_SIZE, LAST_RECT, CURSOR),)
NOVNC_FORMAT = PixelFormat(shifts=(0, 8, 16))

_FILL, _JPEG, _EXPLICIT_FILTER = 8, 9, 4
_COPY, _PALETTE, _GRADIENT = 0, 1, 2
_PLAIN_BELOW_BYTES = 12
_PIXEL_BYTES = 3
_MORE = 0x80


class TightViewer(Viewer):
    """Reads the updates that noVNC would receive.

    Attributes:
        decodes: whether pixels are decoded, or skipped.
        spot: the pixel whose colour is tracked.
        colour: the last known colour of that pixel.
    """

    decodes = True
    spot = (0, 0)
    colour: tuple[int, int, int] | None = None

    def start(self, *, decodes: bool = True) -> None:
        """Send the messages that noVNC sends once connected, and request the complete picture."""
        self.decodes = decodes
        self._inflaters = [zlib.decompressobj() for _ in range(4)]
        self.set_pixel_format(NOVNC_FORMAT)
        self.set_encodings(*ENCODINGS)
        self.request_update(incremental=False)

    def next_update(self, timeout_s: float) -> tuple[Rect, ...]:
        """Read the next update and request another, as noVNC does; return its rectangles."""
        rects = self.read_update(timeout_s).rects
        self.request_update(incremental=True)
        return rects

    def _rect(self, rect: Rect) -> Generator[memoryview, None, None]:
        if rect.encoding != TIGHT:
            yield from super()._rect(rect)
            return
        (control,) = yield from _bytes(1)
        for number in range(4):
            if control >> number & 1:
                self._inflaters[number] = zlib.decompressobj()
        kind = control >> 4
        if kind == _FILL:
            self._note(rect, (yield from _bytes(_PIXEL_BYTES)), 0)
        elif kind == _JPEG:
            data = yield from _sized()
            if self.decodes:
                image = Image.open(io.BytesIO(data))
                image.load()
                if self._inside(rect):
                    at = (self.spot[0] - rect.x, self.spot[1] - rect.y)
                    red, green, blue = (
                        image.convert("RGB").crop((*at, at[0] + 1, at[1] + 1)).tobytes()
                    )
                    self.colour = (red, green, blue)
        else:
            yield from self._basic(rect, kind)

    def _basic(self, rect: Rect, kind: int) -> Generator[memoryview, None, None]:
        chosen = (yield from _bytes(1))[0] if kind & _EXPLICIT_FILTER else _COPY
        palette = b""
        row_bytes = rect.width * _PIXEL_BYTES
        if chosen == _PALETTE:
            colours = (yield from _bytes(1))[0] + 1
            palette = yield from _bytes(colours * _PIXEL_BYTES)
            row_bytes = (rect.width + 7) // 8 if colours == 2 else rect.width  # noqa: PLR2004
        size = row_bytes * rect.height
        if size < _PLAIN_BELOW_BYTES:
            data = yield from _bytes(size)
        else:
            data = yield from _sized()
            if self.decodes:
                data = self._inflaters[kind & 3].decompress(data)
        if not self.decodes or not self._inside(rect):
            return
        x, y = self.spot[0] - rect.x, self.spot[1] - rect.y
        if not palette:
            self._note(rect, data, y * row_bytes + x * _PIXEL_BYTES)
        elif len(palette) == 2 * _PIXEL_BYTES:
            bit = data[y * row_bytes + x // 8] >> (7 - x % 8) & 1
            self._note(rect, palette, bit * _PIXEL_BYTES)
        else:
            self._note(rect, palette, data[y * row_bytes + x] * _PIXEL_BYTES)

    def _inside(self, rect: Rect) -> bool:
        x, y = self.spot
        return rect.x <= x < rect.x + rect.width and rect.y <= y < rect.y + rect.height

    def _note(self, rect: Rect, data: bytes, at: int) -> None:
        if self._inside(rect):
            red, green, blue = data[at : at + _PIXEL_BYTES]
            self.colour = (red, green, blue)


def _bytes(size: int) -> Reads:
    data = bytearray(size)
    yield memoryview(data)
    return bytes(data)


def _sized() -> Reads:
    """Data after its length (compact: seven bits per byte, lowest first, at most three bytes)."""
    size = 0
    for shift in (0, 7, 14):
        (byte,) = yield from _bytes(1)
        size |= (byte & (_MORE - 1) if shift < 14 else byte) << shift  # noqa: PLR2004
        if shift == 14 or not byte & _MORE:  # noqa: PLR2004
            break
    return (yield from _bytes(size))
