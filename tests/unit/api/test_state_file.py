"""Small files of the state folder are read without waiting."""

from __future__ import annotations

import os

import pytest

from worker.api import state_file


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert state_file.read(tmp_path / "link") == b"content"


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "missing", "sparse"])
def test_anything_else_is_an_error(tmp_path, kind):
    """It neither waits nor takes memory in proportion to the size."""
    path = tmp_path / "file"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "sparse":
            with path.open("wb") as file:
                file.truncate(3 << 30)
    with pytest.raises(OSError, match=r"."):
        state_file.read(path)
