"""One task, watched to its end, by `worker run` on this machine; tests/image runs it elsewhere."""

from __future__ import annotations

from end_to_end import TARGET, assert_watched_to_the_end
from worker_run import PROGRAMS


def test_end_to_end(run, tmp_path):
    """A task is watched to its end."""
    file = tmp_path / "end"
    worker = run(str(PROGRAMS / TARGET), "--input", f"file={file}")
    worker.end_task = file.write_text
    assert_watched_to_the_end(worker)
