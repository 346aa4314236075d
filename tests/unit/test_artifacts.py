"""A task's artifacts: `result.json` and the pod's termination message."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hostile_results import SPECIAL
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
    with pytest.raises(TypeError):
        prepared.write_result(Unwritable())  # as a full disk fails, after the draft was created
    assert [path.name for path in tmp_path.iterdir()] == ["task.log"]


class Unwritable(str):
    """Text without bytes."""

    __slots__ = ()
    __format__ = None


# -- names that a task can replace


@pytest.fixture
def outside(tmp_path):
    """A file outside the folder, and links to it."""
    file = tmp_path / "outside"
    file.write_text("outside")
    yield file
    assert file.read_text() == "outside"


def replaced_by(kind, path, outside):
    path.unlink(missing_ok=True)
    if kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "link":
        path.symlink_to(outside)
    else:
        SPECIAL[kind](path)


KINDS = ["hard link", "link", *SPECIAL]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["result.json", "task.log"])
def test_prepare_replaces_what_a_former_task_left(tmp_path, outside, name, kind):
    folder = tmp_path / "artifacts"
    folder.mkdir()
    replaced_by(kind, folder / name, outside)
    prepared = artifacts.prepare(folder)
    prepared.write_result("{}")
    with artifacts.open_log(prepared.log) as log:
        log.write(b"output")
    assert prepared.result.read_text() == "{}\n"
    assert prepared.log.read_text() == "output"


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "sparse file"])
@pytest.mark.parametrize("name", ["result.json", "task.log"])
def test_what_a_running_task_replaces(tmp_path, outside, name, kind):
    prepared = artifacts.prepare(tmp_path / "artifacts")
    replaced_by(kind, tmp_path / "artifacts" / name, outside)
    with artifacts.open_log(prepared.log) as log:
        log.write(b"output")
    prepared.write_result("{}")
    assert prepared.result.read_text() == "{}\n"
    assert prepared.log.read_bytes().endswith(b"output")
    assert not prepared.log.is_symlink()


def test_log_that_has_a_reader(tmp_path):
    """A FIFO with a reader can be opened, and is replaced as well."""
    os.mkfifo(tmp_path / "task.log")
    reader = os.open(tmp_path / "task.log", os.O_RDONLY | os.O_NONBLOCK)
    with artifacts.open_log(tmp_path / "task.log") as log:
        log.write(b"output")
    assert os.read(reader, 100) == b""
    os.close(reader)
    assert (tmp_path / "task.log").read_bytes() == b"output"


def test_folder_that_the_task_replaced(tmp_path, outside):
    """The result is written to the folder that was prepared, and not to where its path leads."""
    prepared = artifacts.prepare(tmp_path / "artifacts")
    (tmp_path / "artifacts").rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    (tmp_path / "artifacts").symlink_to("other")
    prepared.write_result("{}")
    assert (tmp_path / "moved" / "result.json").exists()
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("kind", ["link", *(each for each in SPECIAL if each != "sparse file")])
def test_termination_message_that_the_task_replaced(tmp_path, outside, kind):
    """It is not written, which is reported; nothing blocks."""
    replaced_by(kind, tmp_path / "log", outside)
    with pytest.raises(OSError, match="log"):
        write_termination_message(tmp_path / "log", result())


def test_termination_message_replaces_longer_content(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 10_000)
    write_termination_message(tmp_path / "log", result())
    assert json.loads((tmp_path / "log").read_bytes())["status"] == "success"


def test_result_text_is_not_larger_than_its_parts():
    """Indentation of a nested output would multiply its size."""
    output: list[Any] = [0] * 1000
    for _ in range(190):
        output = [output]
    whole = result(output=output)
    text = artifacts.result_text(whole)
    assert json.loads(text) == whole
    assert len(text) < len(json.dumps(output)) + 200
    assert text.splitlines()[:3] == ["{", '  "task_id": "t",', '  "status": "success",']


def test_half_a_surrogate_pair_is_written_as_its_json_escape(tmp_path):
    prepared = artifacts.prepare(tmp_path)
    prepared.write_result(json.dumps({"output": "naïve \ud83d"}, ensure_ascii=False))
    text = prepared.result.read_text(encoding="utf-8")
    assert "naïve \\ud83d" in text
    assert json.loads(text)["output"] == "naïve \ud83d"


def test_device_in_place_of_the_log_is_kept():
    """It is neither removed nor written to."""
    device = Path("/dev/full")
    with pytest.raises(OSError, match="device"):
        artifacts.open_log(device)
    assert device.is_char_device()
