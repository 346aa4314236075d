"""Endpoints: the task files of a folder."""

from __future__ import annotations

import os

import pytest

from worker.api.endpoints import Endpoints
from worker.errors import SettingError, TargetError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "good.py").write_text("def run(inputs): ...\n")
    (tmp_path / "bad.py").write_text("def run(:\n")
    (tmp_path / "no_run.py").write_text("def walk(): ...\n")
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder.py").mkdir()
    return tmp_path


def test_names_are_stems(folder):
    assert Endpoints(folder).names() == ["bad", "good", "no_run"]


def test_find_returns_the_file(folder):
    assert Endpoints(folder).find("good") == folder / "good.py"


@pytest.mark.parametrize(
    "name", ["", "none", "good.py", "../good", "/etc/passwd", "__init__", "go\0od", "a" * 500]
)
def test_other_names_are_not_found(folder, name):
    assert Endpoints(folder).find(name) is None


@pytest.mark.parametrize("name", ["bad", "no_run", "folder"])
def test_error_of_a_broken_endpoint_has_no_paths(folder, name):
    with pytest.raises(TargetError, match=f"endpoint {name} cannot be run") as refused:
        Endpoints(folder).find(name)
    assert str(folder) not in str(refused.value)


def test_changed_file_is_checked_again(folder):
    endpoints = Endpoints(folder)
    assert endpoints.find("good")
    (folder / "good.py").write_text("def run(:\n")
    os.utime(folder / "good.py", ns=(1, 1))
    with pytest.raises(TargetError):
        endpoints.find("good")


def test_missing_folder(tmp_path):
    with pytest.raises(SettingError, match="WORKER_ENDPOINTS_DIR"):
        Endpoints(tmp_path / "none")
