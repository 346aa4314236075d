"""The task's browser: Debian's Chromium, headed, filling the display."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from worker.errors import ProgramMissing, SettingError

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_WIDTH_PX: Final = 1920
_HEIGHT_PX: Final = 1080
SHM_MIN_BYTES: Final = 512 * 1024 * 1024  # a few heavy pages; with too little, tabs die of SIGBUS


def find(configured: Path | None) -> Path:
    """The browser's path.

    Args:
        configured: what the settings say; None to look on PATH, then for Playwright's own.

    Raises:
        SettingError: the configured path is no program.
        ProgramMissing: there is none.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK) or configured.is_dir():
            raise SettingError(f"WORKER_CHROMIUM: {configured} is not an executable file")
        return configured
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    home = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache/ms-playwright"))
    for found_path in sorted(home.glob("chromium-*/chrome-linux*/chrome"), reverse=True):
        return found_path
    raise ProgramMissing("chromium")


def sandboxed(setting: str, refusal: str | None) -> bool:
    """Whether Chromium's own sandbox is used.

    Args:
        setting: `auto`, `on` or `off`.
        refusal: why it cannot work here; None when it can.

    Raises:
        SettingError: it must be on, and cannot.
    """
    if setting == "on" and refusal is not None:
        raise SettingError(f"WORKER_CHROMIUM_SANDBOX=on: {refusal}")
    return setting != "off" and refusal is None


def shm_free_bytes() -> int:
    """What is free in the shared memory that Chromium would like to keep its pictures in."""
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - the place, not a file in it
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def launch_options(executable: str, *, sandbox: bool, shm: bool) -> dict[str, Any]:
    """What Playwright's `launch` gets.

    Args:
        executable: the browser's path.
        sandbox: use Chromium's own sandbox.
        shm: use /dev/shm; Playwright by itself always has Chromium use files in /tmp instead.
    """
    arguments = [
        f"--window-size={_WIDTH_PX},{_HEIGHT_PX}",
        "--window-position=0,0",
        "--no-first-run",
        "--disable-background-networking",
    ]
    if not sandbox:
        arguments.append("--test-type")  # else a yellow bar about --no-sandbox covers the page
    return {
        "executable_path": executable,
        "headless": False,
        "chromium_sandbox": sandbox,
        "args": arguments,
        "ignore_default_args": ["--disable-dev-shm-usage"] if shm else [],
        # Signals are the session's business: it ends the browser when the viewers were told.
        "handle_sigint": False,
        "handle_sigterm": False,
        "handle_sighup": False,
    }


CONTEXT_OPTIONS: Final[dict[str, Any]] = {"no_viewport": True}  # the page is as large as its window
