"""The local runner removes what killed workers left."""

from __future__ import annotations

import os

from worker.api.runners.local import stale
from worker.process import session_folder


async def test_sessions_of_ended_workers_are_removed_and_reported(tmp_path):
    ended, alive = tmp_path / "worker-1", tmp_path / "worker-2"
    for folder in (ended, alive):
        folder.mkdir()
    os.close(session_folder.lock(ended))
    lock = session_folder.lock(alive)
    reported = []
    await stale.remove_once(tmp_path, lambda event, **fields: reported.append((event, fields)))
    os.close(lock)
    assert reported == [("session.removed", {"folder": str(ended)})]
    assert list(tmp_path.iterdir()) == [alive]
