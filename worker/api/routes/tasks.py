"""The routes of tasks: start, list, get, cancel, delete."""

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

from fastapi import APIRouter, Header, Query, Response

from worker.api.callbacks.addresses import is_public, literal
from worker.api.dependencies import Caller, OwnTask, ServicesDep, WholeTask
from worker.api.models import (
    EndpointList,
    InferenceAnswer,
    InferenceRequest,
    Task,
    TaskPage,
    TaskSummary,
)
from worker.api.refusals import Refusal, responses_for
from worker.api.runners.protocol import Cursor, TaskRecord, TaskRequest, TaskStatus
from worker.errors import TargetError

router: Final = APIRouter(prefix="/api/v1", tags=["tasks"])

_IDEMPOTENT_IDS: Final = uuid.UUID("9b0e7e0c-5a53-5c1c-9d55-0f7b6f2d7a11")
_IDEMPOTENCY_KEY_MAX_CHARS: Final = 255
_PAGE_MAX: Final = 100
_PAGE_DEFAULT: Final = 50


@router.get("/endpoints", summary="List endpoints")
async def endpoints(services: ServicesDep) -> EndpointList:
    """The values that `endpoint_name` of `POST /api/v1/inference` may have."""
    return EndpointList(endpoints=services.endpoints.names())


@router.post(
    "/inference",
    status_code=HTTPStatus.ACCEPTED,
    summary="Start a task",
    responses=responses_for(
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
    ),
)
async def inference(
    body: InferenceRequest,
    services: ServicesDep,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=_IDEMPOTENCY_KEY_MAX_CHARS,
            description="A repeated request with the same key does not start another task; it "
            "returns the same one.",
        ),
    ] = None,
) -> InferenceAnswer:
    """Start a task; it is queued while the limit of running tasks is reached."""
    if body.callback_url is not None:
        _check_callback(body.callback_url, private=services.private_callbacks)
    try:
        body.endpoint_name.encode()
        file = services.endpoints.find(body.endpoint_name)
    except UnicodeEncodeError:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, "endpoint_name: contains an unpaired surrogate"
        ) from None
    except TargetError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"endpoint_name: {error}") from error
    if file is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"Endpoint {body.endpoint_name} not found")
    request = TaskRequest(
        task_id=_task_id(caller.name, idempotency_key),
        account=caller.name,
        endpoint_name=body.endpoint_name,
        file=file,
        inputs=body.input_parameters,
        timeout_s=body.timeout_s or services.default_timeout_s,
        callback_url=body.callback_url,
        digest=_digest(body),
        created_at=datetime.now(UTC),
    )
    record = await services.runner.start(request)
    if record.digest != request.digest:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Idempotency-Key: already used with another body; use a new key",
        )
    return InferenceAnswer(message=f"Task {record.status}", task_id=record.task_id)


@router.get(
    "/tasks", summary="List tasks", responses=responses_for(HTTPStatus.UNPROCESSABLE_ENTITY)
)
async def tasks(
    services: ServicesDep,
    caller: Caller,
    status: Annotated[TaskStatus | None, Query(description="Only tasks in this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE_DEFAULT,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the previous page; it does not expire.")
    ] = None,
) -> TaskPage:
    """The account's tasks, newest first."""
    before = None if cursor is None else _read_cursor(cursor)
    found = await services.runner.list(caller.name, status=status, before=before, limit=limit + 1)
    page = found[:limit]
    more = len(found) > limit
    return TaskPage(
        tasks=[TaskSummary.of(record) for record in page],
        next_cursor=_write_cursor(page[-1].cursor) if more else None,
    )


@router.get(
    "/tasks/{task_id}",
    summary="Get a task",
    response_model=Task,
    responses=responses_for(HTTPStatus.NOT_FOUND),
)
async def task(found: WholeTask) -> Response:
    """A task with its inputs, output and error."""
    return _answer(found)


@router.post(
    "/tasks/{task_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    summary="Cancel a task",
    response_model=Task,
    responses=responses_for(HTTPStatus.NOT_FOUND),
)
async def cancel(found: OwnTask, services: ServicesDep, caller: Caller) -> Response:
    """Request a task's end, which may take seconds; without effect if the task has ended."""
    await services.runner.cancel(found)
    current = await services.runner.find(caller.name, found.task_id)
    return _answer(current or found, HTTPStatus.ACCEPTED)


def _answer(found: TaskRecord, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(Task.json_of(found), status, media_type="application/json")


@router.delete(
    "/tasks/{task_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a task",
    responses=responses_for(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def delete(found: OwnTask, services: ServicesDep) -> None:
    """Delete an ended task with its files; a callback that is pending is not delivered any more."""
    await services.runner.remove(found)


def _check_callback(url: str, *, private: bool) -> None:
    """Refuse an invalid URL; its host name is resolved only when the callback is sent."""
    why = None
    try:
        split = urlsplit(url)
        host = split.hostname
        _ = split.port
    except ValueError as error:
        host, why = "", str(error)
    if not host or not url.isascii():
        why = why or "it needs a host, and ASCII characters only"
    elif (address := literal(host)) is not None and not private and not is_public(address):
        why = f"{host} is not a public address"
    if why is not None:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"callback_url: {why}")


def _task_id(account: str, idempotency_key: str | None) -> str:
    """A new id; with a key, always the same one for the account and key (RFC 9562, version 5)."""
    if idempotency_key is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(_IDEMPOTENT_IDS, f"{account}\0{idempotency_key}"))


def _digest(body: InferenceRequest) -> str:
    text = json.dumps(body.model_dump(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_cursor(cursor: Cursor) -> str:
    text = f"{cursor.created_at.isoformat()} {cursor.task_id}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_cursor(text: str) -> Cursor:
    try:
        raw = base64.b64decode(text.encode(), b"-_", validate=True).decode()
        moment, _, task_id = raw.partition(" ")
        return Cursor(created_at=datetime.fromisoformat(moment).astimezone(UTC), task_id=task_id)
    except (ValueError, binascii.Error, OverflowError) as error:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid cursor; omit it for the first page"
        ) from error
