"""The routes of the dashboard: its page, the live view's modules, and noVNC."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import Request, Response

from worker.api.refusals import Refusal
from worker.stream.page import files as page_files

if TYPE_CHECKING:
    from fastapi import FastAPI

_PAGE_DIR: Final = Path(__file__).parents[1] / "page"
_ETAG_CHARS: Final = 16


def add(app: FastAPI, novnc_dir: Path) -> None:
    """Serve `/` and the files that it loads.

    Args:
        app: the app to add the routes to.
        novnc_dir: where noVNC is installed. Without it the page works and shows, in place of the
            live view, that noVNC is missing.
    """
    roots = {
        "page": _PAGE_DIR,
        "live": page_files.LIVE_VIEW_DIR,
        **page_files.novnc_roots(novnc_dir),
    }

    def serve(request: Request) -> Response:
        found = page_files.find(request.scope["path"], roots)
        if found is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Not found")
        etag = f'"{hashlib.sha256(found.content).hexdigest()[:_ETAG_CHARS]}"'
        headers = {**page_files.headers(found), "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)

    for path in ("/", *(f"/{root}/{{name:path}}" for root in roots)):
        app.add_api_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)
