"""Files of this machine: only regular files below the folder are listed and opened."""

from __future__ import annotations

import os

import pytest

from worker.api.runners import files
from worker.api.runners.protocol import Artifact

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
    (folder / "\udcff").write_text("not text")
    return folder


def test_list_has_only_regular_files(folder):
    assert files.list_files(folder) == [
        Artifact(name="a.txt", size_bytes=1),
        Artifact(name="deep/deeper/b.txt", size_bytes=2),
    ]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_listed_names_can_be_opened(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(b"content")
    [listed] = files.list_files(tmp_path)
    assert listed.name == name
    assert b"".join([piece async for piece in files.open_file(tmp_path, name)]) == b"content"


def test_missing_folder_has_no_files(tmp_path):
    assert files.list_files(tmp_path / "none") == []
    assert files.open_file(tmp_path / "none", "a.txt") is None


async def test_large_file_is_read_completely(folder):
    content = b"x" * 700_001
    (folder / "large").write_bytes(content)
    pieces = files.open_file(folder, "large")
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
def test_other_names_are_refused(folder, name):
    assert files.open_file(folder, name) is None


@pytest.mark.parametrize("name", ["a", "a.txt", "sub/a.txt", "ü/日本", "a b", "a\nb", "a\x01"])
def test_valid_names(name):
    assert files.is_valid_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a/", "..", "../a", "a/../b", "a//b", ".", ".a", "a/.b", "a\0b", "\udcff"],
)
def test_invalid_names(name):
    """A name cannot leave the folder, be hidden, or contain what is not text."""
    assert not files.is_valid_name(name)
