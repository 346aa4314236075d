"""The folder for temporary files."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import SettingError
from worker.surroundings import temporary

TMP = Path("/tmp")


@pytest.fixture
def below_tmp():
    """Create a folder directly in /tmp, whose path is short."""
    made = []

    def make(name):
        folder = TMP / f"t-{name}"
        folder.mkdir()
        made.append(folder)
        return folder

    yield make
    for folder in made:
        folder.rmdir()


@pytest.mark.parametrize("name", ["plain", "a b;c", "100% 'x' \"y\" #z é"])
def test_tmpdir_is_used(below_tmp, name):
    folder = below_tmp(name)
    assert temporary.parent({"TMPDIR": str(folder)}) == folder


@pytest.mark.parametrize("name", ["x" * 100, "é" * 30, "a\nb", "a\x7fb", "\udce9"])
def test_a_tmpdir_that_sockets_or_config_files_cannot_have_is_not_used(below_tmp, name):
    """It is too long in bytes, has control characters, or is not UTF-8."""
    assert temporary.parent({"TMPDIR": str(below_tmp(name))}) == TMP


@pytest.mark.parametrize("environ", [{}, {"TMPDIR": ""}])
def test_without_tmpdir(environ):
    assert temporary.parent(environ) == TMP


def test_the_longest_path_of_a_socket_fits():
    folder = "x" * temporary.TMPDIR_MAX_BYTES
    longest = f"{folder}/worker-12345678/tmp/.org.chromium.Chromium.123456/SingletonSocket"
    assert len(longest) == 107  # unix(7): sun_path has 108 bytes, one of which ends it


def test_a_relative_tmpdir_is_made_absolute(below_tmp, monkeypatch):
    folder = below_tmp("relative")
    monkeypatch.chdir(TMP)
    assert temporary.parent({"TMPDIR": folder.name}) == folder


def test_a_tmpdir_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"TMPDIR: '.*/none' is not a folder"):
        temporary.parent({"TMPDIR": str(tmp_path / "none")})


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"cannot create a temporary folder in .*No such file"):
        temporary.make(tmp_path / "none")
