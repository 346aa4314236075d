"""The display: one screen of one size, which every window fills."""

from __future__ import annotations

from worker_run import PROGRAMS, eventually
from x_client import Observer

TASKS = str(PROGRAMS / "tasks.py")
GREEN = (30, 200, 30)


def test_the_screen_is_1920_by_1080_at_24_bits(run):
    worker = run(
        "--", "sh", "-c", 'xdpyinfo -display "$DISPLAY" | grep -E "dimensions|depth of root"'
    )
    worker.event("task.started")
    assert worker.wait() == 0
    assert "1920x1080 pixels" in worker.stderr
    assert "24 planes" in worker.stderr


def test_windows_fill_the_screen(run, tmp_path):
    """A window, a second tab and a popup are 1920×1080, with no black edge."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:windows", "--input", f"file={file}")
    worker.event("task.started")
    with Observer(worker.display, worker.xauthority) as observer:
        assert observer.screen_size() == (1920, 1080)

        def popup_is_shown():
            picture = observer.screenshot()
            return picture.pixel(960, 900) == GREEN and picture

        picture = eventually(popup_is_shown, timeout_s=20)
    edge = [(x, y) for x in (0, 1919) for y in range(1080)]
    edge += [(x, y) for y in (0, 1079) for x in range(1920)]
    assert not [place for place in edge if picture.pixel(*place) == (0, 0, 0)]
    assert picture.pixel(1919, 1079) == GREEN
    file.write_text("end")
    assert worker.wait() == 0
    assert worker.result["output"] == [[1920, 1080]] * 3
