"""The encodings that a viewer may choose, and the list of them that the VNC server gets.

What Debian's libvncserver 0.9.14 serves and noVNC, TigerVNC, vncdotool or asyncvnc decodes. Not
included:

- ExtendedClipboard: x11vnc discards what arrives by it, so TigerVNC's clipboard would be lost.
  Without it viewers use plain cut text, which works.
- Xvp, ExtendedDesktopSize: a viewer must not change the power or the size of the display.
- Fence, ContinuousUpdates, QEMU keys and audio, extended mouse buttons: libvncserver implements
  none of them, and closes the connection when it receives their messages.
- any other number: libvncserver writes a line to its log for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

ZLIB: Final = 6
PASSED_ENCODINGS: Final = frozenset(
    {
        0,  # Raw
        1,  # CopyRect
        2,  # RRE
        5,  # Hextile
        ZLIB,
        7,  # Tight
        16,  # ZRLE
        -239,  # Cursor
        -224,  # LastRect
        -223,  # DesktopSize
    }
)
COMPRESSION_LEVELS: Final = range(-256, -246)  # level 0 to 9
QUALITY_LEVELS: Final = range(-32, -22)  # JPEG quality level 0 to 9

# x11vnc encodes the updates of all viewers in one thread. A frame of text as Zlib takes 0.04 s at
# level 2, 0.17 s at level 6 and 2.7 s at level 9. libvncserver's Tight uses no level above 2.
COMPRESSION_LEVEL_MAX: Final = 2


def served(announced: Iterable[int]) -> list[int]:
    """Return the encodings that are served, each once, in the viewer's order of preference.

    Of several levels the last one counts, as for libvncserver. Without a level, libvncserver would
    compress Zlib at level 5; it then gets the highest level that is allowed.
    """
    kept: dict[int, None] = {}
    for encoding in announced:
        for levels, highest in (
            (COMPRESSION_LEVELS, COMPRESSION_LEVELS[COMPRESSION_LEVEL_MAX]),
            (QUALITY_LEVELS, QUALITY_LEVELS[-1]),
        ):
            if encoding in levels:
                for level in levels:
                    kept.pop(level, None)
                kept[min(encoding, highest)] = None
        if encoding in PASSED_ENCODINGS:
            kept.setdefault(encoding)
    if ZLIB in kept and not any(level in kept for level in COMPRESSION_LEVELS):
        kept[COMPRESSION_LEVELS[COMPRESSION_LEVEL_MAX]] = None
    return list(kept)
