"""The files of the debug page and the dashboard: look-up by URL path, and their HTTP headers."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LIVE_VIEW_DIR: Final = Path(__file__).parent
"""The live view, and the styles that the debug page and the dashboard share.

In an `index.html`, `<!-- panel -->` is replaced by `panel.html`: the picture and the card above it.
"""

HEADERS: Final = {
    "Cache-Control": "no-cache",
    # noVNC draws JPEG rectangles and the pointer from `data:` URLs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        # No script can turn text into markup.
        "require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SCRIPTS: Final = "script-src 'self'"
_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_NOVNC_PARTS: Final = ("core", "vendor")
_ABNORMAL_PARTS: Final = frozenset({"", ".", ".."})
_INDEX: Final = "index.html"
_PANEL: Final = "panel.html"
_PANEL_PLACE: Final = b"<!-- panel -->"
_MEDIA_TYPES: Final = {".js": "text/javascript; charset=utf-8", ".html": "text/html; charset=utf-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a page."""

    content: bytes
    media_type: str


def headers(file: File) -> Mapping[str, str]:
    """HEADERS, with a policy that allows only the inline scripts of this file."""
    hashes = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(file.content)]
    allowed = [_SCRIPTS, *(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)]
    name = "Content-Security-Policy"
    return {**HEADERS, name: HEADERS[name].replace(_SCRIPTS, " ".join(allowed))}


def novnc_roots(novnc_dir: Path) -> dict[str, Path]:
    """The parts of noVNC that our pages load, for `find`.

    noVNC's own pages are not served: `vnc.html?host=…` would show the screen of any host under our
    origin.
    """
    return {f"novnc/{part}": novnc_dir / part for part in _NOVNC_PARTS}


def find(path: str, roots: Mapping[str, Path]) -> File | None:
    """The file at a URL path; None when there is none.

    Args:
        path: `/`, or `/<root>/<file>`, percent-decoded. A path that is not normal (an empty part,
            `.` or `..`) names no file; a link that leads out of its root neither.
        roots: the folders by their part of the path; `page` holds the page's `index.html`.
    """
    if path == "/":
        return _read(roots["page"], _INDEX)
    if not _ABNORMAL_PARTS.isdisjoint(path[1:].split("/")):
        return None
    for root, folder in roots.items():
        if path.startswith(f"/{root}/"):
            return _read(folder, path[len(root) + 2 :])
    return None


def _read(root: Path, name: str) -> File | None:
    try:
        file = (root / name).resolve(strict=True)
        if not file.is_relative_to(root.resolve()) or not file.is_file():
            return None
        content = file.read_bytes()
        if _PANEL_PLACE in content and file.name == _INDEX:
            content = content.replace(_PANEL_PLACE, (LIVE_VIEW_DIR / _PANEL).read_bytes())
    except (OSError, ValueError):
        return None
    guessed = _MEDIA_TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    return File(content=content, media_type=guessed or "application/octet-stream")
