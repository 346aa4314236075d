"""`/docs`: Swagger UI, with its assets served from here instead of a CDN."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from worker.api.authentication import PROTECTED_PREFIX

_ASSETS: Final = Path(fastapi_offline.__file__).parent / "static"
_HEADERS: Final = {
    # Swagger UI needs inline script and styles; other origins and framing are not allowed.
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
    """Serve `/docs` and its assets."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _remove_automatic_errors(generate())
            _add_security_scheme(generate())
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
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


def _remove_automatic_errors(schema: dict[str, Any]) -> None:
    """FastAPI adds a 422 with its own body for every parameter; our routes describe theirs."""
    for methods in schema["paths"].values():
        for described in methods.values():
            automatic = described["responses"].get("422", {})
            if _AUTOMATIC in str(automatic):
                del described["responses"]["422"]
    for name in (_AUTOMATIC, "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _add_security_scheme(schema: dict[str, Any]) -> None:
    """A middleware checks the API key, so FastAPI cannot describe it."""
    scheme = {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "Created with `worker api-key ACCOUNT`.",
    }
    schema["components"]["securitySchemes"] = {_SCHEME: scheme}
    for path, methods in schema["paths"].items():
        if path.startswith(PROTECTED_PREFIX):
            for described in methods.values():
                described["security"] = [{_SCHEME: []}]
