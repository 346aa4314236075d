"""The routes of artifacts: every file is a download and no header is injected."""

from __future__ import annotations

from urllib.parse import quote

import pytest


def path(task_id, name=""):
    return f"/api/v1/tasks/{task_id}/artifacts" + (f"/{name}" if name else "")


async def test_list_and_download(api):
    task_id = await api.start()
    api.runner.files[task_id] = {"result.json": b"{}", "shots/a b.png": b"\x89PNG"}
    listed = await api.client.get(path(task_id))
    assert listed.json() == {
        "artifacts": [
            {"name": "result.json", "size_bytes": 2},
            {"name": "shots/a b.png", "size_bytes": 4},
        ]
    }
    got = await api.client.get(path(task_id, "shots/a b.png"))
    assert got.content == b"\x89PNG"
    assert got.headers["content-type"] == "image/png"


@pytest.mark.parametrize("name", ["page.html", "image.svg", "script.js", "no-suffix", 'q"uote.txt'])
async def test_files_cannot_run_as_pages(api, name):
    task_id = await api.start()
    api.runner.files[task_id] = {name: b"<script>alert(1)</script>"}
    got = await api.client.get(path(task_id, name))
    assert got.status_code == 200
    assert got.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"] == "sandbox"


ODD_NAMES = [
    "two\nlines.txt",
    "ends with\n",
    "\n",
    "a\r\nb/c\u2028d",
    "q?a=b#c%2Fd%0A.png",
    "back\\slash \x7f\x01",
    "data:text/html\r\nset-cookie: a=b,",
    "ü/日本",
]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_listed_names_can_be_downloaded(api, name):
    """Any listed name works percent-encoded, and no part of it becomes a header."""
    task_id = await api.start()
    api.runner.files[task_id] = {name: b"this one", "ends with": b"another", "": b"none"}
    listed = (await api.client.get(path(task_id))).json()["artifacts"]
    assert name in [each["name"] for each in listed]
    got = await api.client.get(path(task_id, quote(name, safe="/")))
    assert (got.status_code, got.content) == (200, b"this one")
    assert not any(ord(each) < 0x20 for each in "".join(got.headers.values()))


async def test_missing_file(api):
    task_id = await api.start()
    got = await api.client.get(path(task_id, "none.txt"))
    assert got.status_code == 404
    assert got.json() == {"detail": f"Artifact none.txt of task {task_id} not found"}
