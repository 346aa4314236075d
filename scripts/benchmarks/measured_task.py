"""The task that is measured: it follows the benchmark's commands, which arrive on a Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any


async def follow_commands(page: Any, inputs: dict[str, Any]) -> None:
    """Report the start, then show pages and evaluate scripts until an empty command.

    Each command and each answer is one JSON object per line; `inputs["socket"]` is the socket.
    """
    began_s = time.monotonic()
    reader, writer = await asyncio.open_unix_connection(inputs["socket"])

    def answer(**fields: Any) -> None:
        writer.write(json.dumps(fields).encode() + b"\n")

    answer(began_s=began_s, pid=os.getpid())
    while line := await reader.readline():
        command = json.loads(line)
        if "show" in command:
            await page.goto(Path(command["show"]).as_uri())
            await page.evaluate(
                "() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))"
            )
            answer(value=None)
        elif "evaluate" in command:
            answer(value=await page.evaluate(command["evaluate"]))
        else:
            break
    answer(returned_s=time.monotonic())
