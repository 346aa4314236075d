"""The READMEs of this repository: their files, and what is between their markers."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("docker", "scripts", "tests", "worker")
FILES = (
    ROOT / "README.md",
    *(file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("README.md"))),
)
_BLOCK = re.compile(r"<!-- run: ([\w-]+) -->\n```sh\n(.*?)```\n<!-- /run -->", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Name and script of every block of commands that a test runs."""
    return [found for file in FILES for found in _BLOCK.findall(file.read_text())]


def block(name: str) -> str:
    """The one script of this name."""
    (script,) = [script for each, script in blocks() if each == name]
    return script


def commands(name: str) -> list[str]:
    """The lines of a script, without its comments."""
    return [line for line in block(name).splitlines() if line and not line.startswith("#")]


def section(file: Path, name: str) -> str | None:
    """The text between a file's markers of this name; None if it has none."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", file.read_text(), re.DOTALL)
    return found[1] if found else None


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line.strip().strip("|") for line in table.strip().splitlines()]
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]
