"""Checks of what is installed: display programs, browser, noVNC, Python packages, fonts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Final

from worker.doctor.finding import failure, ok, warning
from worker.errors import UsageError
from worker.programs import DEBIAN_PACKAGES, DISPLAY_PROGRAMS
from worker.task import browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.doctor.finding import Finding

_PACKAGES: Final = (
    "playwright",
    "psutil",
    "pydantic-settings",
    "PyJWT",
    "python-xlib",
    "supervisor",
    "websockify",
)
_FONTS: Final = {  # script: fontconfig's language, a Debian package with a font for it
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
    """The display programs, with the versions of their Debian packages."""
    for name in DISPLAY_PROGRAMS:
        package = DEBIAN_PACKAGES[name]
        if path := shutil.which(name):
            yield ok(f"{name} {_package_version(package)} ({path})")
        else:
            yield failure(f"{name} is not installed", f"run `apt-get install {package}`")


def chromium(configured: Path | None) -> Iterator[Finding]:
    """The browser and its version.

    Args:
        configured: WORKER_CHROMIUM.
    """
    try:
        path = browser.find(configured)
    except UsageError as error:
        yield failure("no browser", str(error))
        return
    if version := _VERSION.search(_output([str(path), "--version"])):
        yield ok(f"Chromium {version[0]} ({path})")
    else:
        yield failure(f"{path} prints no version", f"run `{path} --version` to see why")


def novnc(folder: Path, *, wanted: bool) -> Iterator[Finding]:
    """The files of noVNC.

    Args:
        folder: WORKER_NOVNC_DIR.
        wanted: the debug page is on, which needs them.
    """
    if (folder / "core/rfb.js").is_file():
        yield ok(f"noVNC {_novnc_version(folder)} ({folder})")
        return
    found = failure if wanted else warning
    yield found(
        f"no noVNC in {folder}",
        f"run `apt-get install {DEBIAN_PACKAGES['noVNC']}`, or set WORKER_NOVNC_DIR",
    )


def packages() -> Iterator[Finding]:
    """The Python packages that every task needs."""
    for name in _PACKAGES:
        try:
            yield ok(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield failure(f"no Python package {name}", "run `make setup` in the project's folder")


def fonts() -> Iterator[Finding]:
    """Whether fontconfig finds a font for common scripts."""
    if shutil.which("fc-list") is None:
        yield warning("fonts are not checked: no fc-list", "run `apt-get install fontconfig`")
        return
    for script, (language, package) in _FONTS.items():
        families = _output(["fc-list", f":lang={language}", "family"]).splitlines()
        if families:
            yield ok(f"{script} font: {min(families, key=len)}")
        else:
            remedy = f"pages show boxes instead; run `apt-get install {package}`"
            yield warning(f"no {script} font", remedy)


def _novnc_version(folder: Path) -> str:
    try:
        return str(json.loads((folder / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return _package_version(DEBIAN_PACKAGES["noVNC"])


def _package_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return "of unknown version"
    version = _output(["dpkg-query", "--show", "--showformat=${Version}", package])
    without_epoch = version.partition(":")[2] or version
    return version if _VERSION.match(without_epoch) else "of unknown version"


def _output(argv: list[str]) -> str:
    """The stdout of a program; empty if it fails or does not end in time."""
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
