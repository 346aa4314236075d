"""The dashboard's files: served to anyone, with a policy under which nothing foreign runs."""

from __future__ import annotations

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
    """Each file goes out under the strict policy, without a key and without a cookie."""
    answer = await api.client.get(path, headers={"x-api-key": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


async def test_nothing_inline(api):
    """The page has no script, style or handler of its own: the policy would stop them."""
    page = (await api.client.get("/")).text
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", page) == []


async def test_not_sent_twice(api):
    """A file that the browser has is not sent again."""
    first = await api.client.get("/live/live-view.js")
    again = await api.client.get(
        "/live/live-view.js", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/page/", "/page/..%2fapp.py", "/live/%2e%2e/%2e%2e/cli.py", "/novnc/%00"]
)
async def test_no_other_file(api, path):
    """Nothing outside of the page's folders, and no folder."""
    assert (await api.client.get(path)).status_code == 404


async def test_other_origins(api):
    """An allowed origin's page may import the live view; another may not."""
    good = {"Origin": "https://dashboard.example.com"}
    allowed = await api.client.get("/live/live-view.js", headers=good)
    assert allowed.headers["access-control-allow-origin"] == good["Origin"]
    refused = await api.client.get("/live/live-view.js", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
