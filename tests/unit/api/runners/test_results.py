"""Results are hostile input: the parser never raises, blocks, or accepts what no worker writes."""

from __future__ import annotations

import json
import os
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from hostile_results import ACCEPTED, HOSTILE, RESULT, SPECIAL, result
from hypothesis import given
from hypothesis import strategies as st

from worker.api.runners import ends, results
from worker.api.runners.ends import End
from worker.api.runners.protocol import NULL, TaskStatus
from worker.api.runners.results import Invalid, Result

FAILED = End(status=TaskStatus.FAILED, exit_code=1, error={"type": "WorkerLost", "message": "m"})
CONTRADICTS_CODE_1 = ("success", "cancelled", "browser failed")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def settled(content: bytes) -> End:
    return ends.settle(FAILED, results.parse(content))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_results(name):
    """The status follows from the exit code, the output is omitted, and the error has a reason."""
    found = results.parse(HOSTILE[name])
    assert isinstance(found, Result) == (name in CONTRADICTS_CODE_1)
    end = settled(HOSTILE[name])
    assert (end.status, end.exit_code, end.output) == (TaskStatus.FAILED, 1, NULL)
    assert end.output_omitted
    assert end.error["message"].startswith("result.json ")
    assert len(end.error["message"]) < 300
    assert end.error["type"] == "WorkerLost" if name in CONTRADICTS_CODE_1 else "InvalidResult"


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_results(name):
    """All that a worker can write is reported, and can be sent."""
    content, output = ACCEPTED[name]
    end = settled(content)
    assert (end.status, end.exit_code, end.output_omitted) == (TaskStatus.FAILED, 1, False)
    assert json.loads(end.output) == output
    json.dumps([json.loads(end.output), end.error], ensure_ascii=False, allow_nan=False).encode()


def test_fields():
    found = results.parse(result(output=[1], output_omitted=True))
    assert found == Result(
        status=TaskStatus.FAILED,
        exit_code=1,
        output=b"[1]",
        output_omitted=True,
        error={"type": "RuntimeError", "message": "failed on purpose"},
        started_at=datetime(2026, 5, 4, tzinfo=UTC),
        finished_at=datetime(2026, 5, 4, 0, 1, tzinfo=UTC),
    )


def test_termination_message():
    """It has the first four fields only."""
    found = results.parse(result(started_at=..., finished_at=..., duration_s=..., stages_ms=...))
    assert isinstance(found, Result)
    assert (found.started_at, found.finished_at) == (None, None)


def test_long_error_is_cut():
    long = {"type": "T" * 10_000, "message": "m" * 600_000, "traceback": "t" * 600_000}
    found = results.parse(result(error=long))
    assert isinstance(found, Result)
    assert [len(found.error[name]) for name in long] == [200, 500_000, 500_000]


@given(st.binary(max_size=200))
def test_any_bytes(content):
    assert isinstance(results.parse(content), Result | Invalid)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*RESULT, "output_omitted"], JSON)))
def test_any_fields(fields):
    """Whatever the fields are, the end can be sent as JSON."""
    end = settled(json.dumps(RESULT | fields).encode())
    assert end.exit_code == 1
    json.dumps([json.loads(end.output), end.error], ensure_ascii=False, allow_nan=False).encode()


# -- files


@pytest.mark.parametrize("name", SPECIAL)
def test_special_files(tmp_path, name):
    """What is no regular file, or too large, is refused without being read, and nothing is left."""
    SPECIAL[name](tmp_path / "result.json")
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    tracemalloc.start()
    found = results.read_file(tmp_path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, Invalid)
    assert peak_bytes < 1 << 20
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


def test_link_in_place_of_the_folder(tmp_path):
    """A folder that is a link is not followed."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_bytes(result())
    (tmp_path / "artifacts").symlink_to("other")
    assert isinstance(results.read_file(tmp_path / "artifacts"), Invalid)


def test_missing_result(tmp_path):
    assert results.read_file(tmp_path) is None
    assert results.read_file(tmp_path / "none") is None


def test_file(tmp_path):
    (tmp_path / "result.json").write_bytes(result())
    assert isinstance(results.read_file(tmp_path), Result)


# -- comparing with what is known


def known(status: str, code: int | None, error: Any = None) -> End:
    return End(status=TaskStatus(status), exit_code=code, error=error)


SUCCESS = results.parse(result(status="success", exit_code=0, output=1, error=None))


@pytest.mark.parametrize(
    ("end", "status", "omitted"),
    [
        (known("success", 0), "success", True),
        (known("failed", 1, {"type": "E", "message": "m"}), "failed", False),
        (known("cancelled", 143), "cancelled", False),
    ],
)
def test_no_result(end, status, omitted):
    """Only a successful task's missing output is reported."""
    settled = ends.settle(end, None)
    assert (settled.status, settled.output_omitted, settled.error) == (status, omitted, end.error)


def test_matching_result():
    end = ends.settle(known("success", 0), SUCCESS)
    assert (end.status, end.output, end.error) == ("success", b"1", None)


def test_command_that_exits_like_a_cancelled_one():
    """Exit code 143 may be the task's own: the worker's status decides."""
    end = ends.settle(known("cancelled", 143), results.parse(result(exit_code=143)))
    assert (end.status, end.exit_code, end.error["type"]) == ("failed", 143, "RuntimeError")


def test_result_of_an_unknown_exit_code_is_reported():
    assert ends.settle(known("failed", None), SUCCESS).status == "success"


def test_contradicted_result_of_a_cancelled_task():
    """A worker that was killed while it cleaned up: the task is cancelled, without an error."""
    end = known("cancelled", 137)
    assert ends.settle(end, SUCCESS) == end


def test_reason_of_the_platform_is_kept():
    """It is more specific than that the result is not credible."""
    end = ends.settle(known("failed", 137, {"type": "OOMKilled", "message": "no memory"}), SUCCESS)
    assert end.error == {
        "type": "OOMKilled",
        "message": "result.json has exit_code 0, and the worker ended with 137; no memory",
    }


def test_success_without_a_credible_result():
    """A result that claims a failure of a worker with exit code 0."""
    end = ends.settle(known("success", 0), results.parse(result()))
    assert (end.status, end.exit_code, end.error["type"]) == ("success", 0, "InvalidResult")
