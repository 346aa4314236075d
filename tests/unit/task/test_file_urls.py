"""The exception from the image's policy that blocks `file://` URLs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.task import file_urls

DOCKERFILE = Path(__file__).parents[3] / "docker/Dockerfile"
POLICY = DOCKERFILE.with_name("chromium-policy.json")


@pytest.fixture
def link(tmp_path):
    made = tmp_path / "link"
    made.symlink_to(tmp_path / "folder/exception.json")
    return made


def test_exception(link):
    """It allows what the image's policy blocks; a worker that does not allow it removes it."""
    file = file_urls.apply(allowed=True, link=link)
    assert json.loads(file.read_text()) == {
        "URLAllowlist": json.loads(POLICY.read_text())["URLBlocklist"]
    }
    assert file_urls.apply(allowed=True, link=link) == file
    assert file_urls.apply(allowed=False, link=link) is None
    assert not file.exists()


@pytest.mark.parametrize("allowed", [True, False])
def test_without_the_link_nothing_is_changed(tmp_path, allowed):
    (tmp_path / "link").write_text("a policy of the machine's")
    assert file_urls.apply(allowed=allowed, link=tmp_path / "link") is None
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_the_image_has_the_link():
    assert f" {file_urls.LINK}" in DOCKERFILE.read_text()
