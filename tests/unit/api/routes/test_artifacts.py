"""Artifacts: downloads of a task's own files, and of nothing else."""

from __future__ import annotations

import os
from urllib.parse import quote

import pytest

from worker.api.runners import files
from worker.api.runners.protocol import Artifact


def path(task_id, name=""):
    return f"/api/v1/tasks/{task_id}/artifacts" + (f"/{name}" if name else "")


async def test_listed_and_downloaded(api):
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
async def test_no_file_runs_as_a_page_of_ours(api, name):
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
async def test_what_is_listed_can_be_downloaded(api, name):
    """Percent-encoded, whatever a name holds; and nothing of it becomes a header."""
    task_id = await api.start()
    api.runner.files[task_id] = {name: b"this one", "ends with": b"another", "": b"none"}
    listed = (await api.client.get(path(task_id))).json()["artifacts"]
    assert name in [each["name"] for each in listed]
    got = await api.client.get(path(task_id, quote(name, safe="/")))
    assert (got.status_code, got.content) == (200, b"this one")
    assert not any(ord(each) < 0x20 for each in "".join(got.headers.values()))


async def test_one_that_is_not_there(api):
    task_id = await api.start()
    got = await api.client.get(path(task_id, "none.txt"))
    assert got.status_code == 404
    assert got.json() == {"detail": f"Artifact none.txt of task {task_id} not found"}


# -- files of this machine


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "artifacts"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "deeper" / "b.txt").write_text("bb")
    (folder / ".draft").write_text("")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "deep" / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "fifo")
    (folder / "\udcff").write_text("a name that is no text")
    return folder


def test_only_regular_files_are_listed(folder):
    assert files.listed(folder) == [
        Artifact(name="a.txt", size_bytes=1),
        Artifact(name="deep/deeper/b.txt", size_bytes=2),
    ]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_what_is_listed_can_be_opened(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(b"content")
    [listed] = files.listed(tmp_path)
    assert listed.name == name
    assert b"".join([piece async for piece in files.opened(tmp_path, name)]) == b"content"


def test_no_folder_has_no_files(tmp_path):
    assert files.listed(tmp_path / "none") == []
    assert files.opened(tmp_path / "none", "a.txt") is None


async def test_a_file_comes_whole(folder):
    content = b"x" * 700_001
    (folder / "large").write_bytes(content)
    pieces = files.opened(folder, "large")
    assert b"".join([piece async for piece in pieces]) == content


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret",
        "deep/../../secret",
        "/etc/passwd",
        "deep//deeper/b.txt",
        "link",
        "deep/up/secret",
        "fifo",
        "deep",
        "deep/",
        "a.txt/",
        ".draft",
        "a\0b",
        "a.txt\0",
        "x" * 5000,
        "\ud800",
    ],
)
def test_nothing_else_is_opened(folder, name):
    assert files.opened(folder, name) is None
