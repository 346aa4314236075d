"""The bodies of requests and responses, as in the OpenAPI description."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from worker.api.runners.protocol import TaskRecord, TaskStatus

INPUTS_MAX_CHARS: Final = 100_000
"""The worker gets the inputs in one environment variable; execve(2) limits it to 128 KiB."""
INPUT_NAME_MAX_CHARS: Final = 100
TIMEOUT_MAX_S: Final = 24 * 3600.0
URL_MAX_CHARS: Final = 2000

Scalar = str | int | Annotated[float, Field(allow_inf_nan=False)] | bool | None
InputName = Annotated[str, Field(min_length=1, max_length=INPUT_NAME_MAX_CHARS)]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class InferenceRequest(BaseModel):
    """A task to start."""

    model_config = ConfigDict(extra="forbid")

    endpoint_name: str = Field(examples=["tour"])
    input_parameters: dict[InputName, Scalar | list[Scalar]] = Field(
        default_factory=dict, examples=[{"url": "https://example.com", "sizes": [1, 2]}]
    )
    timeout_s: float | None = Field(default=None, gt=0, le=TIMEOUT_MAX_S, allow_inf_nan=False)
    callback_url: str | None = Field(
        default=None,
        max_length=URL_MAX_CHARS,
        pattern=r"^https?://",
        description="Gets the ended task in a POST, as `GET /api/v1/tasks/{task_id}` returns it.",
    )

    @field_validator("input_parameters")
    @classmethod
    def _fits(cls, value: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(value, ensure_ascii=False)
        if len(json.dumps(value)) > INPUTS_MAX_CHARS:
            raise ValueError(f"must be at most {INPUTS_MAX_CHARS} characters of JSON")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("contains an unpaired surrogate") from None
        return value


class InferenceAnswer(BaseModel):
    """The task was accepted."""

    success: Literal[True] = True
    message: str
    task_id: str


class StreamAnswer(BaseModel):
    """The URL of the live view: for one connection, valid for a short time."""

    stream_url: str


class TaskFailure(BaseModel):
    """Why a task failed."""

    type: str
    message: str
    traceback: str | None = None


class TaskSummary(BaseModel):
    """A task in a list."""

    task_id: str
    endpoint_name: str
    status: TaskStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None

    @classmethod
    def of(cls, record: TaskRecord) -> TaskSummary:
        """From a runner's record."""
        return cls.model_validate(record, from_attributes=True)


class Task(TaskSummary):
    """A task with its inputs, output and error."""

    input_parameters: dict[str, Any]
    output: Any = Field(description="What the task returned; null before its end.")
    output_omitted: bool = Field(
        description="Whether the output was too large to be stored (4 KB with the kubernetes "
        "runner), or the worker left no valid result; `output` is null then."
    )
    error: TaskFailure | None

    @classmethod
    def json_of(cls, record: TaskRecord) -> bytes:
        """The JSON text of a runner's record, into which the text of its output is inserted."""
        fields = {name: getattr(record, name) for name in TaskSummary.model_fields}
        task = cls.model_validate(
            {
                **fields,
                "input_parameters": record.inputs,
                "output": None,
                "output_omitted": record.output_omitted,
                "error": record.error,
            }
        )
        others = task.model_dump_json(exclude={"output"}).encode()
        return b"".join([others.removesuffix(b"}"), b',"output":', record.output, b"}"])


class TaskPage(BaseModel):
    """One page of the list; `next_cursor` is the `cursor` of the next page, null on the last."""

    tasks: list[TaskSummary]
    next_cursor: str | None


class ArtifactFile(BaseModel):
    """A file that a task wrote."""

    name: str
    size_bytes: int


class ArtifactList(BaseModel):
    """The files that a task has written so far."""

    artifacts: list[ArtifactFile]


class EndpointList(BaseModel):
    """The values that `endpoint_name` of `POST /api/v1/inference` may have."""

    endpoints: list[str]


class Health(BaseModel):
    """The API's state."""

    status: Literal["ok"] = "ok"
