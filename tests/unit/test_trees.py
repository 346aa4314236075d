"""Trees of files are removed, whatever is in them; what is left is reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile_trees import TREES, plant

from worker import trees

LIMIT_S = 60


def deepen(folder, levels):
    """Nest folders with a file each; their path is longer than the kernel accepts."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=below))
        at = below
    os.close(at)


def fill(root):
    """What a task may leave."""
    (root / "links").mkdir()
    (root / "links" / "out").symlink_to(root.parent / "kept")
    (root / "links" / "up").symlink_to("..")
    (root / "broken").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    (root / ("n" * 255)).mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\n")).write_text("odd name")
    for number in range(50):
        (root / "wide" / str(number)).mkdir(parents=True)
    (root / "locked" / "inner").mkdir(parents=True)
    (root / "locked" / "inner" / "file").touch()
    (root / "locked" / "inner").chmod(0)
    (root / "locked").chmod(0)
    deepen(root, 1200)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    made = tmp_path / "root"
    made.mkdir()
    return made


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_every_kind_of_file_is_removed(root, tmp_path):
    before = descriptors()
    fill(root)
    assert trees.remove(root, limit_s=LIMIT_S) == []
    assert not root.exists()
    assert (tmp_path / "kept" / "file").exists()
    assert descriptors() == before


def test_a_missing_tree_is_ignored(tmp_path):
    assert trees.remove(tmp_path / "none", limit_s=LIMIT_S) == []


@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_is_no_folder_is_not_followed(root, tmp_path, kind):
    path = tmp_path / kind
    if kind == "link":
        path.symlink_to(root)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
    assert trees.remove(path, limit_s=LIMIT_S) == [".: Not a directory"]
    assert root.exists()


def failing(names, number):
    """Calls of the operating system that fail for some names."""
    originals = {call: getattr(os, call) for call in ("unlink", "rmdir", "open")}

    def replaced(call):
        def act(name, *rest, **options):
            if name in names:
                raise OSError(number, os.strerror(number))
            return originals[call](name, *rest, **options)

        return act

    return {call: replaced(call) for call in originals}


@pytest.mark.parametrize("number", [1, 5, 16, 28, 30])  # EPERM, EIO, EBUSY, ENOSPC, EROFS
@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_cannot_be_removed_is_reported_and_the_rest_is_removed(
    root, monkeypatch, number, name
):
    (root / "a" / "folder").mkdir(parents=True)
    (root / "a" / "file").touch()
    (root / "b" / "c").mkdir(parents=True)
    (root / "lock").touch()
    for call, act in failing({name}, number).items():
        monkeypatch.setattr(os, call, act)
    assert trees.remove(root, limit_s=LIMIT_S, last="lock") == [f"a/{name}: {os.strerror(number)}"]
    assert sorted(path.name for path in root.rglob("*")) == sorted(["a", name, "lock"])
    monkeypatch.undo()
    assert trees.remove(root, limit_s=LIMIT_S, last="lock") == []
    assert not root.exists()


def test_a_mount_is_not_entered(root, monkeypatch):
    (root / "mount").mkdir()
    (root / "mount" / "file").touch()
    inode = (root / "mount").stat().st_ino
    original = trees._mount_of
    monkeypatch.setattr(
        trees, "_mount_of", lambda at: "x" if os.fstat(at).st_ino == inode else original(at)
    )
    assert trees.remove(root, limit_s=LIMIT_S) == ["mount: it is a mount"]
    assert (root / "mount" / "file").exists()


def test_a_folder_that_is_filled_again_and_again_is_reported(root, monkeypatch):
    (root / "busy").mkdir()
    (root / "busy" / "file").touch()
    original = os.unlink

    def unlink(name, **options):
        original(name, **options)
        (root / "busy" / "file").touch()

    monkeypatch.setattr(os, "unlink", unlink)
    assert trees.remove(root, limit_s=LIMIT_S) == ["busy/file: it is created again and again"]


def test_a_tree_whose_folders_are_moved_is_reported(root, tmp_path, monkeypatch):
    (root / "a" / "b").mkdir(parents=True)
    original = trees._Removal._ascend

    def ascend(self):
        if (root / "a" / "b").exists():
            (root / "a" / "b").rename(tmp_path / "kept" / "b")
        original(self)

    monkeypatch.setattr(trees._Removal, "_ascend", ascend)
    (left,) = trees.remove(root, limit_s=LIMIT_S)
    assert left == ".: its directories were moved while it was removed"
    assert (tmp_path / "kept" / "file").exists()


def test_the_limits_of_time_and_of_the_report(root, monkeypatch):
    for number in range(100):
        (root / str(number)).touch()
    assert trees.remove(root, limit_s=-1) == [".: it was not removed in time"]
    for call, act in failing({str(number) for number in range(100)}, 1).items():
        monkeypatch.setattr(os, call, act)
    assert len(trees.remove(root, limit_s=LIMIT_S)) == trees.LEFT_MAX


@pytest.mark.parametrize("name", TREES)
def test_hostile_tree_is_removed(root, name):
    """What a task can leave in its artifacts folder is removed, and nothing beside it."""
    plant(name, root)
    assert trees.remove(root, limit_s=LIMIT_S) == []
    assert not root.exists()
