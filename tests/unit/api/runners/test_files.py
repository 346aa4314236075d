"""Files of this machine: only regular files below the folder are listed and opened."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest
from hostile_trees import FILE, TREES, plant

from worker import trees
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


# -- hostile trees


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    yield folder
    if not folder.is_symlink():
        assert trees.remove(folder, limit_s=60) == []  # pytest cannot remove all of them


@pytest.mark.parametrize("name", TREES)
async def test_hostile_trees(tree, name):
    """Valid files are listed and can be opened; nothing raises or blocks, nothing stays open."""
    tree.mkdir()
    plant(name, tree)
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    listed = {each.name for each in files.list_files(tree)}
    assert FILE in listed
    assert not listed & {"file", "fifo", "socket", "device", "bottom", ".hidden"}
    for each in (FILE, "fifo", "socket", "device", "loop", "self/" + FILE, "folder/passwd"):
        content = files.open_file(tree, each)
        assert (content is not None) == (each == FILE), each
        if content is not None:
            assert b"".join([piece async for piece in content]) == b"a note"
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


def test_depth_is_limited(tree):
    """Files below more than 16 folders are no artifacts, for the list and for opening."""
    inner = tree.joinpath(*"abcdefghijklmnop")
    (inner / "q").mkdir(parents=True)
    (inner / "in").touch()
    (inner / "q" / "out").touch()
    assert [each.name for each in files.list_files(tree)] == ["a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/in"]
    assert files.open_file(tree, "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/out") is None


def test_entries_are_limited(tree, monkeypatch):
    """Entries count that are no artifacts, too."""
    tree.mkdir()
    monkeypatch.setattr(files, "ENTRIES_MAX", 100)
    for number in range(150):
        (tree / f".{number}").touch()
        (tree / f"{number}").touch()
    assert len(files.list_files(tree)) <= 100


def test_files_are_limited(tree, monkeypatch):
    tree.mkdir()
    monkeypatch.setattr(files, "FILES_MAX", 10)
    for number in range(20):
        (tree / f"{number}").touch()
    assert len(files.list_files(tree)) == 10


def test_tree_that_changes_while_it_is_listed(tree):
    """Folders that are removed or replaced by links, and files that vanish, are left out."""
    for name in ("a", "b", "c"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    found = files._files(tree)
    next(found)
    for name in ("a", "b", "c"):
        shutil.rmtree(tree / name)
        (tree / name).symlink_to("/etc")
    assert list(itertools.islice(found, 10)) == []


async def test_growing_file_is_read_to_its_size(tree):
    """What is appended while a file is read is left out, so that the answer ends."""
    tree.mkdir()
    (tree / "log").write_bytes(b"1" * 300_000)
    pieces = files.open_file(tree, "log")
    read = 0
    async for piece in pieces:
        read += len(piece)
        with (tree / "log").open("ab") as log:
            log.write(b"2" * 300_000)
    assert read == 300_000


def test_link_in_place_of_the_folder(tree):
    """A task can replace its artifacts folder by a link."""
    tree.symlink_to("/etc")
    assert files.list_files(tree) == []
    assert files.open_file(tree, "passwd") is None


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
        "/".join("x" * 18),
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
