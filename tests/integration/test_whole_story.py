"""One task, watched to its end, by `worker run` on this machine; tests/image runs it elsewhere."""

from __future__ import annotations

from whole_story import TARGET, watched_to_its_end
from worker_run import PROGRAMS


def test_whole_story(run, tmp_path):
    """A task is watched to its end."""
    file = tmp_path / "end"
    worker = run(str(PROGRAMS / TARGET), "--input", f"file={file}")
    worker.tell = file.write_text
    watched_to_its_end(worker)
