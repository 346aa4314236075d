"""Folders are removed whatever a task left in them, and nothing beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_trees import TREES, plant

from worker.removal import remove_tree

OTHER_UID = 65534


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """As a user for whom permissions count, who owns the folder."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, OTHER_UID, OTHER_UID)
    os.seteuid(OTHER_UID)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder that another user can reach."""
    folder = tmp_path_factory.mktemp("removal")
    for each in (folder, *folder.parents):
        if each == Path("/tmp"):
            break
        each.chmod(0o755)
    with unprivileged(folder):
        yield folder


@pytest.mark.parametrize("name", TREES)
def test_hostile_trees_are_removed(place, name):
    folder = place / "task"
    folder.mkdir()
    plant(name, folder)
    descriptors = open_descriptors()
    assert remove_tree(folder) is None
    assert list(place.iterdir()) == []
    assert open_descriptors() == descriptors


def test_targets_of_links_are_kept(place):
    (place / "kept").mkdir()
    (place / "kept" / "file").touch()
    (place / "task").mkdir()
    (place / "task" / "link").symlink_to(place / "kept")
    assert remove_tree(place / "task") is None
    (place / "task").symlink_to(place / "kept")
    assert remove_tree(place / "task") is None
    assert [path.name for path in place.rglob("*")] == ["kept", "file"]


def test_a_missing_folder_is_removed(place):
    assert remove_tree(place / "none") is None
    assert remove_tree(place / "none" / "below") is None


def test_failure_has_a_reason(place):
    """What can be removed is removed; the reason is returned, not raised."""
    folder = place / "task"
    folder.mkdir()
    plant("wide", folder)
    place.chmod(0o500)
    assert remove_tree(folder) == "Permission denied"
    assert list(folder.iterdir()) == []
    place.chmod(0o700)
    assert remove_tree(folder) is None


def test_the_work_of_a_call_is_bounded(place):
    """The next call continues."""
    folder = place / "task"
    folder.mkdir()
    plant("wide", folder)
    assert remove_tree(folder, entries_max=1000) == "it has too many entries for one call"
    assert len(list(folder.iterdir())) == 2001
    assert remove_tree(folder) is None
