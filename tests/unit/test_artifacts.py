"""A task's artifacts: `result.json` and the pod's termination message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import artifacts
from worker.artifacts import (
    TERMINATION_MESSAGE_MAX_BYTES,
    termination_message,
    write_termination_message,
)
from worker.errors import SettingError

TEXT = st.text(max_size=30) | st.text(min_size=2000, max_size=3000)


def result(**fields):
    return {
        "task_id": "t",
        "status": "success",
        "exit_code": 0,
        "output": None,
        "error": None,
    } | fields


def test_a_small_outcome_is_complete():
    message = json.loads(termination_message(result(output={"title": "日本"})))
    assert message == {
        "status": "success",
        "exit_code": 0,
        "output": {"title": "日本"},
        "error": None,
    }


def test_a_long_traceback_is_left_out_first():
    error = {"type": "E", "message": "m", "traceback": "x" * 5000}
    failed = result(status="failed", exit_code=1, output=1, error=error)
    message = json.loads(termination_message(failed))
    assert message["error"] == {"type": "E", "message": "m", "traceback": None}
    assert message["output"] == 1


def test_a_long_output_is_left_out_and_reported():
    message = json.loads(termination_message(result(output="x" * 5000)))
    assert message["output"] is None
    assert message["output_omitted"] is True


@given(TEXT, TEXT, TEXT)
def test_every_outcome_fits_and_keeps_its_exit_code(output, message, traceback):
    error = {"type": "E", "message": message, "traceback": traceback}
    failed = result(status="failed", exit_code=7, output=output, error=error)
    content = termination_message(failed)
    assert len(content) <= TERMINATION_MESSAGE_MAX_BYTES
    assert json.loads(content)["exit_code"] == 7


def test_a_termination_message_is_written_only_to_an_existing_file(tmp_path):
    write_termination_message(tmp_path / "log", result())
    assert not (tmp_path / "log").exists()
    (tmp_path / "log").touch()
    write_termination_message(tmp_path / "log", result())
    assert json.loads((tmp_path / "log").read_bytes())["status"] == "success"


def test_prepare_removes_an_earlier_result_and_log(tmp_path):
    first = artifacts.prepare(tmp_path / "a" / "b")
    first.write_result("{}")
    first.log.write_text("output")
    second = artifacts.prepare(tmp_path / "a" / "b")
    assert not second.result.exists()
    assert second.log.read_bytes() == b""


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="give another --artifacts-dir"):
        artifacts.prepare(tmp_path / "file")


def test_a_failed_write_leaves_no_draft(tmp_path):
    prepared = artifacts.prepare(tmp_path)
    prepared.result.mkdir()  # the draft cannot replace it
    with pytest.raises(OSError, match=r"result\.json"):
        prepared.write_result("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "task.log"]


def test_half_a_surrogate_pair_is_written_as_its_json_escape(tmp_path):
    prepared = artifacts.prepare(tmp_path)
    prepared.write_result(json.dumps({"output": "naïve \ud83d"}, ensure_ascii=False))
    text = prepared.result.read_text(encoding="utf-8")
    assert "naïve \\ud83d" in text
    assert json.loads(text)["output"] == "naïve \ud83d"
