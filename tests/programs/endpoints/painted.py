"""Paints the screen, waits for a file, and leaves artifacts."""

import os
from pathlib import Path


async def run(page, inputs):
    await page.set_content("<body style='background: rgb(20, 120, 220)'>")
    gate = Path(inputs["gate"])
    while not gate.exists():
        await page.wait_for_timeout(50)
    folder = Path(os.environ["WORKER_ARTIFACTS_DIR"])
    await page.screenshot(path=folder / "screen.png")
    (folder / "evil.html").write_text("<script>alert(1)</script>")
    (folder / "two\nlines").write_text("of a name")
    return {"title": "painted"}
