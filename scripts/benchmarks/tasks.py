"""The task that is measured: a puppet that does what the bench says over a Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any


async def puppet(page: Any, inputs: dict[str, Any]) -> None:
    """Say when it began, then show pages and answer questions until told to return."""
    began_s = time.monotonic()
    reader, writer = await asyncio.open_unix_connection(inputs["socket"])

    def say(**fields: Any) -> None:
        writer.write(json.dumps(fields).encode() + b"\n")

    say(began_s=began_s, pid=os.getpid())
    while line := await reader.readline():
        order = json.loads(line)
        if "show" in order:
            await page.goto(Path(order["show"]).as_uri())
            await page.evaluate(
                "() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))"
            )
            say(value=None)
        elif "evaluate" in order:
            say(value=await page.evaluate(order["evaluate"]))
        else:
            break
    say(returned_s=time.monotonic())
