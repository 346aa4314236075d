"""The outcome in brief: what fits into a pod's termination message."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from worker.artifacts import BRIEF_MAX_BYTES, brief, write_brief

TEXT = st.text(max_size=30) | st.text(min_size=2000, max_size=3000)


def result(**more):
    return {
        "task_id": "t",
        "status": "success",
        "exit_code": 0,
        "output": None,
        "error": None,
    } | more


def test_whole():
    """A small outcome is there whole."""
    told = json.loads(brief(result(output={"title": "日本"})))
    assert told == {"status": "success", "exit_code": 0, "output": {"title": "日本"}, "error": None}


def test_long_traceback():
    """A long traceback goes before anything else does."""
    error = {"type": "E", "message": "m", "traceback": "x" * 5000}
    told = json.loads(brief(result(status="failed", exit_code=1, output=1, error=error)))
    assert told["error"] == {"type": "E", "message": "m", "traceback": None}
    assert told["output"] == 1


def test_long_output():
    """Output that is too long is left out, and said to be."""
    told = json.loads(brief(result(output="x" * 5000)))
    assert told["output"] is None
    assert told["output_omitted"] is True


@given(TEXT, TEXT, TEXT)
def test_fits(output, message, traceback):
    """Whatever the outcome is, it fits, and is JSON with the same status."""
    error = {"type": "E", "message": message, "traceback": traceback}
    text = brief(result(status="failed", exit_code=7, output=output, error=error))
    assert len(text) <= BRIEF_MAX_BYTES
    assert json.loads(text)["exit_code"] == 7


def test_only_where_it_is_there(tmp_path):
    """A file that nobody made is not made: there is no kubelet to read it."""
    write_brief(tmp_path / "log", result())
    assert not (tmp_path / "log").exists()
    (tmp_path / "log").touch()
    write_brief(tmp_path / "log", result())
    assert json.loads((tmp_path / "log").read_bytes())["status"] == "success"
