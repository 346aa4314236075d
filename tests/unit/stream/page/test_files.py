"""The look-up of page files: only what our pages load, and nothing outside of its folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from worker.stream.page import debug, files

SECRET = "secret"


@pytest.fixture
def novnc(tmp_path: Path) -> Path:
    """An installed noVNC, whose `core` has links out of it and within it."""
    (tmp_path / SECRET).write_text(SECRET)
    folder = tmp_path / "novnc"
    for name in ("core/rfb.js", "core/util/a.js", "vendor/pako/b.js", "app/ui.js", "vnc.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "core" / "out.js").symlink_to(tmp_path / SECRET)
    (folder / "core" / "page.html").symlink_to(folder / "vnc.html")
    (folder / "core" / "up").symlink_to(tmp_path)
    (folder / "core" / "within.js").symlink_to("rfb.js")
    return folder


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/novnc/core/rfb.js", "core/rfb.js"),
        ("/novnc/core/util/a.js", "core/util/a.js"),
        ("/novnc/vendor/pako/b.js", "vendor/pako/b.js"),
        ("/novnc/core/within.js", "core/rfb.js"),
        ("/%6eovnc/core%2frfb.js", "core/rfb.js"),
    ],
)
def test_core_and_vendor_of_novnc(novnc: Path, path: str, content: str) -> None:
    found = debug.find(path, str(novnc))
    assert found is not None
    assert found.content.decode() == content


@pytest.mark.parametrize(
    "path",
    [
        "/novnc",
        "/novnc/",
        "/novnc/vnc.html",
        "/novnc/app/ui.js",
        "/novnc/core",
        "/novnc/core/",
        "/novnc/core/util",
        "/novnc/corex/rfb.js",
        "/novnc/core/../vnc.html",
        "/novnc/core/%2e%2e/vnc.html",
        "/novnc/core/%252e%252e/vnc.html",
        "/novnc/core/..%2fvnc.html",
        "/novnc/vendor/../app/ui.js",
        "/novnc/vendor/../core/rfb.js",
        "/novnc//core/rfb.js",
        "//novnc/core/rfb.js",
        "/./novnc/core/rfb.js",
        "/novnc/core//rfb.js",
        "/novnc/core/out.js",
        "/novnc/core/page.html",
        "/novnc/core/up/secret",
        "/novnc/core/\0",
        "/novnc/core/rfb.js/",
        "novnc/core/rfb.js",
        "",
    ],
)
def test_nothing_else(novnc: Path, path: str) -> None:
    """The pages of noVNC itself, abnormal paths and links out of the folder name no file."""
    assert debug.find(path, str(novnc)) is None
    roots = {"page": novnc / "app", **files.novnc_roots(novnc)}
    assert files.find(unquote(path), roots) is None
