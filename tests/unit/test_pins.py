"""One version of everything: the extras, the constraints and the images agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(lines):
    found = (re.match(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines)
    return {canonical(match[1]): match[2] for match in found if match}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def read(name):
    return pins((ROOT / name).read_text().splitlines())


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = read("scripts/constraints.txt")


@pytest.mark.parametrize("file", ["docker/requirements.txt", "docker/requirements-api.txt"])
def test_an_image_has_the_versions_of_the_constraints(file):
    held = read(file)
    assert held == {name: CONSTRAINTS[name] for name in held}


def test_the_image_of_the_api_has_the_versions_of_its_extra():
    wanted = pins(PROJECT["optional-dependencies"]["api"])
    held = read("docker/requirements-api.txt")
    assert {name: held.get(name) for name in wanted} == wanted


def test_every_direct_dependency_has_the_version_of_the_constraints():
    for extra in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        wanted = pins(extra)
        assert {name: CONSTRAINTS.get(name) for name in wanted} == wanted
