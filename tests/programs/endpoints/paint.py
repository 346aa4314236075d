"""A page in one colour, until a file says how to end."""

import os
from pathlib import Path


async def run(page, inputs):
    await page.set_content(
        f"<body style='background: {inputs.get('colour', 'rgb(20, 120, 220)')}'>"
    )
    folder = Path(os.environ["WORKER_ARTIFACTS_DIR"])
    (folder / "note.txt").write_text("a note of the task's")
    file = Path(inputs["file"])
    while not (file.exists() and (word := file.read_text())):
        await page.wait_for_timeout(50)
    if word == "fail":
        raise RuntimeError("failure requested")
    return {"word": word}
