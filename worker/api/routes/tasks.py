"""The routes of tasks: start one, list them, look at one, cancel it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Query

from worker.api.callbacks.addresses import is_public, literal
from worker.api.dependencies import Caller, OwnTask, Parts
from worker.api.models import (
    EndpointList,
    InferenceAnswer,
    InferenceRequest,
    Task,
    TaskPage,
    TaskSummary,
)
from worker.api.refusals import Refusal, described
from worker.api.runners.protocol import Cursor, TaskRequest, TaskStatus
from worker.errors import TargetError

router: Final = APIRouter(prefix="/api/v1", tags=["tasks"])

_IDEMPOTENT_IDS: Final = uuid.UUID("9b0e7e0c-5a53-5c1c-9d55-0f7b6f2d7a11")
_IDEMPOTENCY_KEY_MAX_CHARS: Final = 255
_PAGE_MAX: Final = 100
_PAGE_DEFAULT: Final = 50


@router.get("/endpoints", summary="What can be started")
async def endpoints(parts: Parts) -> EndpointList:
    """The names that `POST /api/v1/inference` takes as `endpoint_name`."""
    return EndpointList(endpoints=parts.endpoints.names())


@router.post(
    "/inference",
    status_code=HTTPStatus.ACCEPTED,
    summary="Start a task",
    responses=described(
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
    ),
)
async def inference(
    wanted: InferenceRequest,
    parts: Parts,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=_IDEMPOTENCY_KEY_MAX_CHARS,
            description="A request that is sent again with the same key starts nothing new: it "
            "gets the same task.",
        ),
    ] = None,
) -> InferenceAnswer:
    """Start a task; it is queued until there is room for it."""
    if wanted.callback_url is not None:
        _check_callback(wanted.callback_url, private=parts.private_callbacks)
    try:
        file = parts.endpoints.find(wanted.endpoint_name)
    except TargetError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"endpoint_name: {error}") from error
    if file is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"Endpoint {wanted.endpoint_name} not found")
    request = TaskRequest(
        task_id=_task_id(caller.name, idempotency_key),
        account=caller.name,
        endpoint_name=wanted.endpoint_name,
        file=file,
        inputs=wanted.input_parameters,
        timeout_s=wanted.timeout_s or parts.default_timeout_s,
        callback_url=wanted.callback_url,
        digest=_digest(wanted),
        created_at=datetime.now(UTC),
    )
    record = await parts.runner.start(request)
    if record.digest != request.digest:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Idempotency-Key: it was used before, with another body",
        )
    return InferenceAnswer(message=f"Task {record.status}", task_id=record.task_id)


@router.get("/tasks", summary="List tasks", responses=described(HTTPStatus.UNPROCESSABLE_ENTITY))
async def tasks(
    parts: Parts,
    caller: Caller,
    status: Annotated[TaskStatus | None, Query(description="Only these.")] = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE_DEFAULT,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before; it never expires.")
    ] = None,
) -> TaskPage:
    """The account's tasks, newest first."""
    before = None if cursor is None else _read_cursor(cursor)
    found = await parts.runner.list(caller.name, status=status, before=before, limit=limit + 1)
    page = found[:limit]
    more = len(found) > limit
    return TaskPage(
        tasks=[TaskSummary.of(record) for record in page],
        next_cursor=_write_cursor(page[-1].created_at, page[-1].task_id) if more else None,
    )


@router.get("/tasks/{task_id}", summary="Look at a task", responses=described(HTTPStatus.NOT_FOUND))
async def task(found: OwnTask) -> Task:
    """All that is known of a task."""
    return Task.of(found)


@router.post(
    "/tasks/{task_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    summary="Cancel a task",
    responses=described(HTTPStatus.NOT_FOUND),
)
async def cancel(found: OwnTask, parts: Parts, caller: Caller) -> Task:
    """Ask for a task's end; nothing happens to one that has ended. It may take some seconds."""
    await parts.runner.cancel(found.task_id)
    now = await parts.runner.find(caller.name, found.task_id)
    return Task.of(now or found)


def _check_callback(url: str, *, private: bool) -> None:
    """Refuse at once what can be seen to be wrong; names are looked up when it is sent."""
    why = None
    try:
        split = urlsplit(url)
        host = split.hostname
        _ = split.port
    except ValueError as error:
        host, why = "", str(error)
    if not host or not url.isascii():
        why = why or "it has no host, or other characters than ASCII"
    elif (address := literal(host)) is not None and not private and not is_public(address):
        why = f"{host} is not a public address"
    if why is not None:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"callback_url: {why}")


def _task_id(account: str, idempotency_key: str | None) -> str:
    """A new id; or the same one each time that the account uses this key (RFC 9562, version 5)."""
    if idempotency_key is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(_IDEMPOTENT_IDS, f"{account}\0{idempotency_key}"))


def _digest(wanted: InferenceRequest) -> str:
    text = json.dumps(wanted.model_dump(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_cursor(created_at: datetime, task_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {task_id}".encode()).decode()


def _read_cursor(text: str) -> Cursor:
    try:
        raw = base64.b64decode(text.encode(), b"-_", validate=True).decode()
        moment, _, task_id = raw.partition(" ")
        return Cursor(created_at=datetime.fromisoformat(moment).astimezone(UTC), task_id=task_id)
    except (ValueError, binascii.Error, OverflowError) as error:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, "cursor: it is none of ours; leave it out to begin"
        ) from error
