"""What trees of files occupy is counted, whatever is in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hostile_trees import TREES, plant

from worker.api.runners.local.disk import folders, tree
from worker.api.runners.local.disk.usage import Usage

BLOCK = 512


def occupied(*paths):
    """Of single files or folders, as the kernel states it."""
    return sum(path.lstat().st_blocks for path in paths) * BLOCK


def write(path, size_bytes):
    """Allocated blocks, on the disk of the file system."""
    with path.open("wb") as file:
        file.write(os.urandom(size_bytes))
        file.flush()
        os.fsync(file.fileno())


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    return made


def nest(root, levels):
    """Nest folders; the innermost one has a file, whose path is longer than the kernel accepts."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    file = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=at)
    os.write(file, os.urandom(1 << 20))
    os.fsync(file)
    os.close(file)
    os.close(at)


def test_missing_root(tmp_path):
    assert tree.count([tmp_path / "none"]) == Usage()


def test_allocated_blocks_and_inodes(root):
    write(root / "a", 300_000)
    (root / "empty").touch()
    (root / "folder").mkdir()
    used = tree.count([root])
    assert used.files == 4
    assert used.size_bytes == occupied(root, root / "a", root / "empty", root / "folder")
    assert used.size_bytes >= 300_000


def test_sparse_file(root):
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert tree.count([root]).size_bytes < 1 << 20


def test_blocks_of_hard_links_are_counted_once(root):
    """Also if the names are in several trees. Each name is one of the files: it takes time."""
    write(root / "a", 1 << 20)
    other = root.parent / "other"
    other.mkdir()
    for place in (root / "b", other / "c"):
        os.link(root / "a", place)
    used = tree.count([root, other])
    assert used.size_bytes == occupied(root, root / "a", other)
    assert used.files == 5


def test_links_are_not_followed(root, tmp_path):
    """Links to files and folders outside, and a root that is a link, count as links."""
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside / "big", 1 << 20)
    (root / "file").symlink_to(outside / "big")
    (root / "folder").symlink_to(outside)
    (root / "up").symlink_to("..")
    used = tree.count([root])
    assert (used.files, used.size_bytes < 1 << 20) == (4, True)
    (tmp_path / "link").symlink_to(outside)
    assert tree.count([tmp_path / "link"]).files == 1


def test_special_files_are_not_opened(root):
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    assert tree.count([root]).files == 3


def test_deep_tree(root):
    """With two descriptors, and the innermost file is counted."""
    before = descriptors()
    nest(root, 1500)
    used = tree.count([root])
    assert used.files == 1502
    assert used.size_bytes >= 1 << 20
    assert used.why_incomplete == ""
    assert descriptors() == before


@pytest.mark.parametrize("mode", [0, 0o400, 0o100])
def test_unreadable_folders_are_counted_and_keep_their_mode(root, mode):
    """The owner took its own access: what is inside takes room all the same."""
    (root / "closed" / "inner").mkdir(parents=True)
    write(root / "closed" / "inner" / "a", 1 << 20)
    (root / "closed" / "inner").chmod(mode)
    (root / "closed").chmod(mode)
    used = tree.count([root])
    assert (used.files, used.size_bytes >= 1 << 20) == (4, True)
    assert stat.S_IMODE((root / "closed").stat().st_mode) == mode
    (root / "closed").chmod(0o700)
    assert stat.S_IMODE((root / "closed" / "inner").stat().st_mode) == mode
    (root / "closed" / "inner").chmod(0o700)


@pytest.mark.parametrize("name", TREES)
def test_hostile_trees(root, name):
    """Counting returns, with all descriptors closed."""
    plant(name, root)
    before = descriptors()
    assert tree.count([root]).files >= 1
    assert descriptors() == before
    tree_of_root = tree.count([root])
    assert tree_of_root.why_incomplete == ""


def test_too_many_entries(root):
    for number in range(20):
        (root / str(number)).touch()
    used = tree.count([root], entries_max=10)
    assert (used.files, used.why_incomplete) == (10, "it has too many files")


def test_too_many_pending_folders(root, monkeypatch):
    monkeypatch.setattr(tree, "PENDING_MAX_BYTES", 1500)
    for number in range(20):
        (root / str(number)).mkdir()
    assert "folders" in tree.count([root]).why_incomplete


def test_too_slow(root):
    for number in range(600):
        (root / str(number)).touch()
    assert tree.count([root], limit_s=0).why_incomplete == "it takes too long"


def test_many_inodes_with_several_names_take_limited_memory(root, monkeypatch):
    """The blocks of those that are not remembered count for each name: never less than there is."""
    monkeypatch.setattr(tree, "SEVERAL_NAMES_MAX", 2)
    for number in range(4):
        write(root / str(number), 1 << 20)
        os.link(root / str(number), root / f"again-{number}")
    used = tree.count([root])
    assert used.files == 1 + 4 * 2
    assert used.size_bytes == occupied(root) + occupied(root / "0") * (2 + 2 * 2)


class Change:
    """Changes the tree once, when the count has reached a file of this name."""

    def __init__(self, monkeypatch, name, change):
        self.name, self.change, self.changed = name, change, False
        self.entries = folders.entries
        monkeypatch.setattr(folders, "entries", self)

    def __call__(self, folder):
        for entry in self.entries(folder):
            if entry.name == self.name and not self.changed:
                self.changed = True
                self.change()
            yield entry


def test_folder_is_moved_while_it_is_counted(root, monkeypatch):
    """The way back leads through the other parent; the rest of the tree is counted."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "mark").touch()
    (root / "z").mkdir()
    write(root / "z" / "big", 1 << 20)
    Change(monkeypatch, "mark", lambda: (root / "a" / "b").rename(root / "z" / "b"))
    used = tree.count([root])
    assert used.why_incomplete == ""
    assert used.size_bytes >= 1 << 20


def test_folder_is_removed_while_it_is_counted(root, monkeypatch):
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "mark").touch()
    write(root / "big", 1 << 20)

    def remove():
        (root / "a" / "b" / "mark").unlink()
        (root / "a" / "b").rmdir()
        (root / "a").rmdir()

    Change(monkeypatch, "mark", remove)
    used = tree.count([root])
    assert used.size_bytes >= 1 << 20
    assert used.why_incomplete == ""


def test_root_is_replaced_while_it_is_counted(root, monkeypatch):
    """By a link, for example: what the link refers to is not counted."""
    (root / "a").mkdir()
    (root / "a" / "mark").touch()
    outside = root.parent / "outside"
    outside.mkdir()
    write(outside / "big", 1 << 20)

    def replace():
        root.rename(root.parent / "moved")
        root.symlink_to(outside)

    Change(monkeypatch, "mark", replace)
    assert tree.count([root]).size_bytes < 1 << 20


def test_deleted_files_that_are_open(root):
    """They take room until they are closed; those of another file system are not counted."""
    before = tree.count([root]).size_bytes
    with (root / "big").open("wb") as file, Path("/dev/shm/none").open("wb") as elsewhere:
        for each in (file, elsewhere):
            each.write(bytes(1 << 20))
            each.flush()
            os.fsync(each.fileno())
            Path(each.name).unlink()
        assert tree.count([root]).size_bytes == before
        used = tree.count([root], [os.getpid()])
        assert 1 << 20 <= used.size_bytes - before < 2 << 20
    assert tree.count([root], [os.getpid()]).size_bytes == before
