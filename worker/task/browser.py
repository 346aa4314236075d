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


def sandboxed(setting: str) -> bool:
    """Whether Chromium's own sandbox is used.

    Args:
        setting: `auto`, `on` or `off`.
    """
    if setting == "auto":
        return os.geteuid() != 0  # Chromium refuses to use it as root
    return setting == "on"


def launch_options(executable: str, *, sandbox: bool) -> dict[str, Any]:
    """What Playwright's `launch` gets."""
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
        # Signals are the session's business: it ends the browser when the viewers were told.
        "handle_sigint": False,
        "handle_sigterm": False,
        "handle_sighup": False,
    }


CONTEXT_OPTIONS: Final[dict[str, Any]] = {"no_viewport": True}  # the page is as large as its window
