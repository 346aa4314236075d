"""Starts a program, ends everything below this process, and prints what is left."""

import asyncio
import json
import sys
import time

from worker.process.children import Children


async def main() -> None:
    children = Children()
    spared = children.spawn(["sleep", "600"], env={}, death_signal=9)
    started = children.spawn(sys.argv[1:], env={}, death_signal=9)
    await asyncio.sleep(0.2)  # let it fork
    began = time.monotonic()
    await children.sweep(spare=(spared.pid,), grace_s=0.1, limit_s=8)
    spared_runs, task_runs = spared.running, started.running
    await children.sweep(grace_s=0.1, limit_s=8)
    report = {
        "spared": spared_runs,
        "task": task_runs,
        "left": children.left(),
        "took_s": time.monotonic() - began,
    }
    print(json.dumps(report))


asyncio.run(main())
