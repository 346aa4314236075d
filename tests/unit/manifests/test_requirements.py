"""What the image installs is what the package needs, all of it and nothing else."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PYTHON = "3.13"  # Debian trixie's
# What only plugins that we do not use import.
UNUSED = {"websockify": {"numpy", "redis", "requests", "jwcrypto"}}


def pins(path):
    """Name to version of a file of `name==version` lines."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    matches = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines]
    assert all(matches), lines
    return {canonicalize_name(match[1]): match[2] for match in matches}


def needed(name):
    """The direct needs of an installed package, without its extras, on the image's Python."""
    environment = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found = canonicalize_name(requirement.name)
            if found not in UNUSED.get(name, ()):
                yield found


def test_closure():
    """docker/requirements.txt holds what the package needs at run time, exactly."""
    closure = set()
    ahead = set(needed("worker"))
    while ahead:
        closure |= ahead
        ahead = {below for name in ahead for below in needed(name)} - closure
    assert set(pins(ROOT / "docker" / "requirements.txt")) == closure


def test_one_version():
    """The image holds the versions that the tests run with."""
    tested = pins(ROOT / "scripts" / "constraints.txt")
    image = pins(ROOT / "docker" / "requirements.txt")
    assert {name: tested.get(name) for name in image} == image
