"""What is installed: the programs of the display stack, Python packages, fonts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Final

from worker.doctor.finding import failure, ok, warning
from worker.errors import DEBIAN_PACKAGES, UsageError
from worker.task import browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.doctor.finding import Finding

_PROGRAMS: Final = ("Xvfb", "x11vnc", "matchbox-window-manager")
_PACKAGES: Final = (
    "playwright",
    "psutil",
    "pydantic-settings",
    "PyJWT",
    "python-xlib",
    "supervisor",
    "websockify",
)
_FONTS: Final = {  # fontconfig's language, and a Debian package that speaks it
    "Latin": ("en", "fonts-liberation"),
    "Chinese": ("zh-cn", "fonts-noto-cjk"),
    "Japanese": ("ja", "fonts-noto-cjk"),
    "Korean": ("ko", "fonts-noto-cjk"),
    "Arabic": ("ar", "fonts-noto-core"),
    "emoji": ("und-zsye", "fonts-noto-color-emoji"),
}
_ANSWER_TIMEOUT_S: Final = 10.0
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+\S*")


def programs() -> Iterator[Finding]:
    """The programs of the display stack, with the versions of their Debian packages."""
    for name in _PROGRAMS:
        path = shutil.which(name)
        package = DEBIAN_PACKAGES[name]
        if path is None:
            yield failure(f"{name} is not installed", f"run `apt-get install {package}`")
        else:
            yield ok(f"{name} {_package_version(package)} ({path})")


def chromium(configured: Path | None) -> Iterator[Finding]:
    """The browser, which is asked for its version.

    Args:
        configured: what the settings say.
    """
    try:
        path = browser.find(configured)
    except UsageError as error:
        yield failure("no browser", str(error))
        return
    said = _said([str(path), "--version"])
    if version := _VERSION.search(said):
        yield ok(f"Chromium {version[0]} ({path})")
    else:
        yield failure(f"{path} does not say its version", f"run `{path} --version` and see why")


def novnc(folder: Path, *, wanted: bool) -> Iterator[Finding]:
    """The files of noVNC.

    Args:
        folder: where they should be.
        wanted: a debug page is to be served.
    """
    if (folder / "core/rfb.js").is_file():
        yield ok(f"noVNC {_novnc_version(folder)} ({folder})")
        return
    found = failure if wanted else warning
    yield found(f"no noVNC in {folder}", "run `apt-get install novnc`, or set WORKER_NOVNC_DIR")


def packages() -> Iterator[Finding]:
    """The Python packages that every task needs."""
    for name in _PACKAGES:
        try:
            yield ok(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield failure(f"no Python package {name}", "run `make setup`, or `pip install worker`")


def fonts() -> Iterator[Finding]:
    """Whether fontconfig knows a font for each of the scripts that pages are written in."""
    if shutil.which("fc-list") is None:
        yield warning("fonts cannot be looked at", "run `apt-get install fontconfig`")
        return
    for script, (language, package) in _FONTS.items():
        families = _said(["fc-list", f":lang={language}", "family"]).splitlines()
        if families:
            yield ok(f"{script} font: {min(families, key=len)}")
        else:
            mend = f"pages show boxes; run `apt-get install {package}`"
            yield warning(f"no {script} font", mend)


def _novnc_version(folder: Path) -> str:
    try:
        return str(json.loads((folder / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return _package_version(DEBIAN_PACKAGES["noVNC"])


def _package_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return "of unknown version"
    said = _said(["dpkg-query", "--show", "--showformat=${Version}", package])
    return said if _VERSION.match(said.partition(":")[2] or said) else "of unknown version"


def _said(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
