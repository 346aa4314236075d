"""The noVNC page for local debugging: its files, and which requests are served."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from worker.net import LOOPBACK_HOSTS
from worker.stream.page import files as page_files
from worker.stream.refusals import Refusal, parts

if TYPE_CHECKING:
    from email.message import Message

_OWN_REQUESTS: Final = frozenset({"same-origin", "none"})


def check_host(headers: Message) -> None:
    """Serve only requests whose Host is a loopback name (DNS rebinding).

    The pages that the task visits run on the same machine, and any name can resolve to it.

    Raises:
        Refusal: 403.
    """
    if parts(f"//{headers.get('Host', '')}").hostname not in LOOPBACK_HOSTS:
        raise Refusal(HTTPStatus.FORBIDDEN, "the debug page is served for loopback names only")


def check_same_origin(headers: Message) -> None:
    """Answer only the debug page itself, and clients that are no browsers.

    Raises:
        Refusal: 403.
    """
    if headers.get("Sec-Fetch-Site", "none") not in _OWN_REQUESTS:
        raise Refusal(HTTPStatus.FORBIDDEN, "only the debug page itself may request this")
    origin = headers.get("Origin")
    if origin is not None and parts(origin).netloc != headers.get("Host"):
        raise Refusal(HTTPStatus.FORBIDDEN, "only the debug page itself may request this")


def find(path: str, novnc_dir: str) -> page_files.File | None:
    """The file at a URL path; None when there is none.

    Args:
        path: `/`, `/page/…`, `/novnc/core/…` or `/novnc/vendor/…`, percent-encoded or not.
        novnc_dir: where noVNC is installed.
    """
    roots = {"page": page_files.LIVE_VIEW_DIR, **page_files.novnc_roots(Path(novnc_dir))}
    return page_files.find(unquote(path), roots)
