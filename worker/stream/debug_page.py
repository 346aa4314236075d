"""The noVNC page for local debugging: its files, and who may see it."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from worker.stream.refusal import Refusal

if TYPE_CHECKING:
    from email.message import Message

HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; "
        "img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PAGE_DIR: Final = Path(__file__).parent / "page"
_INDEX: Final = "index.html"
_MEDIA_TYPES: Final = {".js": "text/javascript; charset=utf-8", ".html": "text/html; charset=utf-8"}
_OWN_REQUESTS: Final = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the page."""

    content: bytes
    media_type: str


def check_host(headers: Message) -> None:
    """Serve only requests that name this machine by a loopback name (DNS rebinding).

    The pages that the task visits run on the same machine, and any name can be made to point here.

    Raises:
        Refusal: 403.
    """
    if urlsplit(f"//{headers.get('Host', '')}").hostname not in _LOOPBACK_NAMES:
        raise Refusal(HTTPStatus.FORBIDDEN, "the debug page is served to loopback names only")


def check_same_origin(headers: Message) -> None:
    """Answer only the debug page itself and tools that are no browser.

    Raises:
        Refusal: 403.
    """
    if headers.get("Sec-Fetch-Site", "none") not in _OWN_REQUESTS:
        raise Refusal(HTTPStatus.FORBIDDEN, "only the debug page itself may ask")
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
        raise Refusal(HTTPStatus.FORBIDDEN, "only the debug page itself may ask")


def find(path: str, novnc_dir: str) -> File | None:
    """The file behind a URL path; None when there is none.

    Args:
        path: `/`, `/page/…` or `/novnc/…`.
        novnc_dir: where noVNC is installed.
    """
    roots = {"page": _PAGE_DIR, "novnc": Path(novnc_dir)}
    if path == "/":
        return _read(_PAGE_DIR, _INDEX)
    _, top, *rest = unquote(path).split("/", 2)
    if top not in roots or not rest:
        return None
    return _read(roots[top], rest[0])


def _read(root: Path, name: str) -> File | None:
    try:
        file = (root / name).resolve(strict=True)
        if not file.is_relative_to(root.resolve()) or not file.is_file():
            return None
        content = file.read_bytes()
    except (OSError, ValueError):
        return None
    guessed = _MEDIA_TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    return File(content=content, media_type=guessed or "application/octet-stream")
