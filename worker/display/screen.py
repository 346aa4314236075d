"""The size of the display's one screen."""

from __future__ import annotations

from typing import Final

WIDTH_PX: Final = 1920
HEIGHT_PX: Final = 1080
DEPTH_BITS: Final = 24
