"""The programs that a task needs are installed by `make setup` and are in the image."""

from __future__ import annotations

import re
from pathlib import Path

from worker.programs import DEBIAN_PACKAGES, DISPLAY_PROGRAMS

ROOT = Path(__file__).parents[2]


def test_each_display_program_has_a_package():
    assert set(DISPLAY_PROGRAMS) < set(DEBIAN_PACKAGES)


def test_bootstrap_installs_each_package():
    script = (ROOT / "scripts/bootstrap").read_text()
    needs = dict(re.findall(r"^need (\S+) (\S+)$", script, re.MULTILINE))
    assert {name: needs[name] for name in DISPLAY_PROGRAMS} == {
        name: DEBIAN_PACKAGES[name] for name in DISPLAY_PROGRAMS
    }
    assert needs["/usr/share/novnc/core/rfb.js"] == DEBIAN_PACKAGES["noVNC"]
    assert f"$missing {DEBIAN_PACKAGES['chromium']}" in script


def test_the_image_contains_each_package():
    words = (ROOT / "docker/Dockerfile").read_text().split()
    assert [package for package in DEBIAN_PACKAGES.values() if package not in words] == []
