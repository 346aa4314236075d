"""The task's browser: Chromium, headed, with windows as large as the screen."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from worker.display.screen import HEIGHT_PX, WIDTH_PX
from worker.errors import ProgramMissing, SettingError

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Enough for a few heavy pages; a tab that finds none left is killed by SIGBUS.
SHM_MIN_BYTES: Final = 512 * 1024 * 1024


def find(configured: Path | None) -> Path:
    """Find the browser's executable.

    Args:
        configured: WORKER_CHROMIUM; None to search PATH, then Playwright's own browsers.

    Raises:
        SettingError: the configured path is not an executable file.
        ProgramMissing: no browser was found.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK) or configured.is_dir():
            raise SettingError(
                f"WORKER_CHROMIUM: {configured} is not an executable file; "
                "give the browser's path, or unset it to search PATH"
            )
        return configured
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    # Not Path.home(), which fails without HOME for a user that is not in /etc/passwd.
    cache = os.path.expanduser("~/.cache/ms-playwright")  # noqa: PTH111
    browsers = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", cache))
    for found_path in sorted(browsers.glob("chromium-*/chrome-linux*/chrome"), reverse=True):
        return found_path
    raise ProgramMissing("chromium")


def sandboxed(setting: str, refusal: str | None) -> bool:
    """Whether Chromium's own sandbox is used.

    Args:
        setting: `auto`, `on` or `off`.
        refusal: the result of `sandbox.refusal()`.

    Raises:
        SettingError: the setting is `on`, and there is a refusal.
    """
    if setting == "on" and refusal is not None:
        raise SettingError(f"WORKER_CHROMIUM_SANDBOX=on: {refusal}")
    return setting != "off" and refusal is None


def shm_free_bytes() -> int:
    """The free space of /dev/shm, where Chromium keeps the pages' bitmaps."""
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - the mount, not a file in it
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def launch_options(executable: str, *, sandbox: bool, shm: bool) -> dict[str, Any]:
    """The arguments of Playwright's `launch`, JSON values.

    Args:
        executable: the browser's path.
        sandbox: use Chromium's own sandbox.
        shm: use /dev/shm; Playwright's default makes Chromium use files in /tmp.
    """
    arguments = [
        f"--window-size={WIDTH_PX},{HEIGHT_PX}",
        "--window-position=0,0",
        "--no-first-run",
        "--disable-background-networking",
    ]
    if not sandbox:
        arguments.append("--test-type")  # else a bar about --no-sandbox covers the page
    return {
        "executable_path": executable,
        "headless": False,
        "chromium_sandbox": sandbox,
        "args": arguments,
        "ignore_default_args": ["--disable-dev-shm-usage"] if shm else [],
        # The session ends the browser, after the viewers' connections are closed.
        "handle_sigint": False,
        "handle_sigterm": False,
        "handle_sighup": False,
    }


CONTEXT_OPTIONS: Final[dict[str, Any]] = {"no_viewport": True}  # the page is as large as its window
