"""The pixel formats that a viewer may choose (RFC 6143 §7.4), with every field verified.

libvncserver verifies only the bits per pixel: with a depth of 24 its Tight encoder writes four
bytes for each pixel, even into a buffer for two, and so past its end.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass, replace
from typing import Final

_WIRE: Final = struct.Struct(">BBBBHHHBBB3x")
SIZE_BYTES: Final = _WIRE.size

_COLOUR_MAP_BITS: Final = 8
_CHANNEL_MAX_BITS: Final = 10  # a viewer on a 30-bit display


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The fields in the order of the protocol."""

    bits: int
    depth: int
    big_endian: int
    true_colour: int
    red_max: int
    green_max: int
    blue_max: int
    red_shift: int
    green_shift: int
    blue_shift: int

    @classmethod
    def unpack(cls, raw: bytes) -> PixelFormat:
        """Read the 16 bytes of the protocol."""
        return cls(*_WIRE.unpack(raw))

    def pack(self) -> bytes:
        """Return the 16 bytes of the protocol; every flag is 0 or 1, the padding 0."""
        flags = replace(
            self, big_endian=int(self.big_endian != 0), true_colour=int(self.true_colour != 0)
        )
        return _WIRE.pack(*astuple(flags))

    def is_possible(self) -> bool:
        """Whether it has 8, 16 or 32 bits, and channels that fit and do not overlap.

        A colour map has 8 bits; libvncserver replaces it by 3 + 3 + 2 bits of true colour.
        """
        if self.bits not in {8, 16, 32} or not 0 < self.depth <= self.bits:
            return False
        if not self.true_colour:
            return self.bits == _COLOUR_MAP_BITS
        used = used_bits = 0
        for maximum, shift in (
            (self.red_max, self.red_shift),
            (self.green_max, self.green_shift),
            (self.blue_max, self.blue_shift),
        ):
            channel_bits = maximum.bit_length()
            if not 0 < channel_bits <= _CHANNEL_MAX_BITS or maximum + 1 != 1 << channel_bits:
                return False
            if channel_bits + shift > self.bits or used & maximum << shift:
                return False
            used |= maximum << shift
            used_bits += channel_bits
        return used_bits <= self.depth
