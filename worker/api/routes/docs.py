"""`/docs`: the OpenAPI page, with assets of our own origin instead of a CDN's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from worker.api.authentication import GUARDED

_ASSETS: Final = Path(fastapi_offline.__file__).parent / "static"
_HEADERS: Final = {
    # The page's own script and styles stand inline; nothing foreign loads, and nobody frames it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS_URL: Final = "/docs-assets"
_SCHEME: Final = "ApiKey"
_AUTOMATIC: Final = "HTTPValidationError"


def add(app: FastAPI) -> None:
    """Serve `/docs` and what it needs."""
    generate = app.openapi

    def exact() -> dict[str, Any]:
        if app.openapi_schema is None:
            _drop_automatic_refusals(generate())
            _say_what_opens(generate())
        return generate()

    app.openapi = exact  # type: ignore[method-assign]  # FastAPI's documented way
    app.mount(_ASSETS_URL, StaticFiles(directory=_ASSETS))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title="worker: the API",
            swagger_js_url=f"{_ASSETS_URL}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS_URL}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS_URL}/favicon.png",
        )
        page.headers.update(_HEADERS)
        return page


def _drop_automatic_refusals(schema: dict[str, Any]) -> None:
    """FastAPI describes a 422 of its own shape for every parameter; ours are described by hand."""
    for methods in schema["paths"].values():
        for described in methods.values():
            refused = described["responses"].get("422", {})
            if _AUTOMATIC in str(refused):
                del described["responses"]["422"]
    for name in (_AUTOMATIC, "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _say_what_opens(schema: dict[str, Any]) -> None:
    """The gate asks for the key, before FastAPI knows of the request; so it is described here."""
    scheme = {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "Made by `worker api-key ACCOUNT`.",
    }
    schema["components"]["securitySchemes"] = {_SCHEME: scheme}
    for path, methods in schema["paths"].items():
        if path.startswith(GUARDED):
            for described in methods.values():
                described["security"] = [{_SCHEME: []}]
