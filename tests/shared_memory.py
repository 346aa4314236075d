"""System V shared memory segments that no living process uses."""

from __future__ import annotations

from pathlib import Path

_ID, _CREATOR, _ATTACHED = 1, 4, 6  # columns of /proc/sysvipc/shm, proc_sysvipc_shm(5)


def abandoned_segments() -> list[int]:
    """The identifiers of segments that are not attached and whose creator has ended."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    rows = [[int(field) for field in line.split()] for line in lines]
    return [
        row[_ID]
        for row in rows
        if row[_ATTACHED] == 0 and not Path(f"/proc/{row[_CREATOR]}").exists()
    ]
