"""Kills every process of a user: `python -I -S kill_all.py UID`, executed by its path, as root.

kill(-1) of that user reaches all its processes at once, also those that left their process tree:
the kernel lets none of them fork before it is killed. The exit code is 1 if one still exists after
LIMIT_S.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[5]))

from worker import linux

LIMIT_S: Final = 10.0
_PAUSE_S: Final = 0.01


def main() -> int:
    """Become the user, and kill until no process is left; returns the exit code."""
    uid = int(sys.argv[1])
    if uid <= 0:
        raise ValueError(uid)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    give_up_at = time.monotonic() + LIMIT_S
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return 0
        if not linux.running_processes_of(uid, but=os.getpid()):
            return 0  # what is left are zombies, which their parents have not reaped yet
        if time.monotonic() > give_up_at:
            return 1
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    sys.exit(main())
