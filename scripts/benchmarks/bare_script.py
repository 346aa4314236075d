"""The bare script: the shortest program that opens a headed page, as a baseline.

python bare_script.py SOCKET [DISPLAY]    without DISPLAY it starts an Xvfb of its own
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

from playwright.async_api import async_playwright

from benchmarks.measured_task import follow_commands

SCREEN = "1920x1080x24"


def start_xvfb() -> subprocess.Popen[bytes]:
    """Start Xvfb, wait until it has written its display's number, and set DISPLAY."""
    xvfb = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", SCREEN, "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    if xvfb.stdout is None:
        raise RuntimeError("no pipe")
    os.environ["DISPLAY"] = f":{int(xvfb.stdout.readline())}"
    return xvfb


async def run(inputs: dict[str, Any]) -> None:
    """Open a page and call the task."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ["BENCH_CHROMIUM"],
            headless=False,
            args=[
                "--window-size=1920,1080",
                "--window-position=0,0",
                "--no-first-run",
                "--disable-background-networking",
                "--test-type",
            ],
            ignore_default_args=["--disable-dev-shm-usage"],
        )
        context = await browser.new_context(no_viewport=True)
        await follow_commands(await context.new_page(), inputs)
        await browser.close()


def main() -> None:
    xvfb = None
    if len(sys.argv) > 2:  # noqa: PLR2004
        os.environ["DISPLAY"] = sys.argv[2]
    else:
        xvfb = start_xvfb()
    asyncio.run(run({"socket": sys.argv[1]}))
    if xvfb is not None:
        xvfb.terminate()
        xvfb.wait()


if __name__ == "__main__":
    main()
