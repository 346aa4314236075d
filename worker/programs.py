"""The programs that a task needs, and the Debian packages that contain them."""

from __future__ import annotations

from typing import Final

# `scripts/bootstrap` and `docker/Dockerfile` install these packages.
DEBIAN_PACKAGES: Final = {
    "Xvfb": "xvfb",
    "x11vnc": "x11vnc",
    "matchbox-window-manager": "matchbox-window-manager",
    "chromium": "chromium",
    "noVNC": "novnc",
}
DISPLAY_PROGRAMS: Final = ("Xvfb", "x11vnc", "matchbox-window-manager")  # looked up on PATH
