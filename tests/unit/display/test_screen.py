"""The display has one screen of one size."""

from __future__ import annotations

from pathlib import Path

from worker.display import screen, xvfb


def test_the_x_server_gets_the_screens_size():
    assert (screen.WIDTH_PX, screen.HEIGHT_PX, screen.DEPTH_BITS) == (1920, 1080, 24)
    assert "1920x1080x24" in xvfb.command(Path("/cookie"))
