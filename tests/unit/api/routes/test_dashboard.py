"""The dashboard's files: served without a key, with a strict Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/dashboard.js", "text/javascript; charset=utf-8"),
        ("/page/dashboard.css", "text/css; charset=utf-8"),
        ("/live/live-view.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_files(api, path, media_type):
    """Each file has the strict policy and needs no key and no cookie."""
    answer = await api.client.get(path, headers={"x-api-key": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


async def test_one_script_inline(api):
    """The policy allows exactly one inline script, by its hash."""
    answer = await api.client.get("/")
    [script] = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    rest = answer.text.replace(script, "")
    assert (
        re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?!>|[^>]*\ssrc=)", rest) == []
    )
    module = await api.client.get("/page/dashboard.js")
    assert "script-src 'self';" in module.headers["content-security-policy"]


async def test_panel(api):
    """The page has the live view's markup, as the debug page does."""
    page = (await api.client.get("/")).text
    assert "<!-- panel -->" not in page
    for name in ("stage", "status-title", "retry", "notice"):
        assert page.count(f'id="{name}"') == 1


async def test_unchanged_file_is_not_sent_again(api):
    """A request with the file's ETag gets 304."""
    first = await api.client.get("/live/live-view.js")
    again = await api.client.get(
        "/live/live-view.js", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/..%2fapp.py",
        "/page/%252e%252e%252fapp.py",
        "/live/%2e%2e/%2e%2e/cli.py",
        "/novnc/%00",
        "/novnc/core/%00",
        "/novnc/vnc.html",
        "/novnc/app/ui.js",
        "/novnc/core/..%2fvnc.html",
    ],
)
async def test_no_other_file(api, path):
    """No file outside of the page's folders and no folder is served."""
    assert (await api.client.get(path)).status_code == 404


async def test_other_origins(api):
    """An allowed origin's page may import the live view; another may not."""
    good = {"Origin": "https://dashboard.example.com"}
    allowed = await api.client.get("/live/live-view.js", headers=good)
    assert allowed.headers["access-control-allow-origin"] == good["Origin"]
    refused = await api.client.get("/live/live-view.js", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
