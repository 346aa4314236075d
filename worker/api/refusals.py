"""Refusals: the HTTP statuses and texts with which requests are refused."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from worker.api.models import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTIONS: Final[dict[HTTPStatus, str]] = {
    HTTPStatus.UNAUTHORIZED: "Invalid or missing API key",
    HTTPStatus.FORBIDDEN: "The account or its API key may not do this",
    HTTPStatus.NOT_FOUND: "Not found, or owned by another account",
    HTTPStatus.CONFLICT: "The task is not in a state that permits this",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request is invalid; `detail` names the invalid parts",
    HTTPStatus.TOO_MANY_REQUESTS: "The queue, or the account's part of the disk, is full; see "
    "`Retry-After`",
    HTTPStatus.SERVICE_UNAVAILABLE: "Tasks cannot be stored or started now; see `Retry-After`",
}


class Refusal(HTTPException):
    """A refused request."""


def responses_for(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """A route's refusals, for its OpenAPI description."""
    return {
        int(status): {"model": Problem, "description": _DESCRIPTIONS[status]} for status in statuses
    }


def invalid_key() -> Refusal:
    """401: the request has no valid API key."""
    return Refusal(HTTPStatus.UNAUTHORIZED, "Invalid or missing API key")


def task_not_found(task_id: str) -> Refusal:
    """404: the account has no such task."""
    return Refusal(HTTPStatus.NOT_FOUND, f"Task {task_id} not found")


def not_running() -> Refusal:
    """409: the task is queued, starting, or has ended."""
    return Refusal(HTTPStatus.CONFLICT, "Stream not available: task is not running")


def no_control(account: str) -> Refusal:
    """403: the API key allows viewing only."""
    return Refusal(
        HTTPStatus.FORBIDDEN, f"Account {account} may not control: its API key allows viewing only"
    )


def queue_full(retry_after_s: int, account_max: int | None) -> Refusal:
    """429: the queue, or the account's part of it, has reached its limit."""
    why = "The queue is full"
    if account_max is not None:
        why = f"This account has {account_max} queued tasks, which is its limit"
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{why}; try again in {retry_after_s} s",
        {"Retry-After": str(retry_after_s)},
    )


def account_full(why: str, retry_after_s: int) -> Refusal:
    """429: the files of the account's tasks have reached its limit."""
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{why[:1].upper()}{why[1:]}; delete ended tasks, or wait until they are removed after the "
        f"retention time; try again in {retry_after_s} s",
        {"Retry-After": str(retry_after_s)},
    )


def unavailable(why: str, retry_after_s: int) -> Refusal:
    """503: the engine, the cluster or the disk does not work now."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": str(retry_after_s)})


def too_large(limit_bytes: int) -> Refusal:
    """413: the body exceeds the limit."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {limit_bytes} bytes"
    )


def response(refusal: HTTPException) -> JSONResponse:
    """The response that a refusal causes."""
    return JSONResponse(
        {"detail": refusal.detail}, status_code=refusal.status_code, headers=refusal.headers
    )


def validation_detail(problems: Sequence[Any]) -> str:
    """The `detail` of invalid requests: each invalid part with its error, in one line."""
    lines = []
    for problem in problems:
        place = ".".join(str(part) for part in problem["loc"][1:]) or "body"
        line = f"{place}: {problem['msg'].removeprefix('Value error, ')}"
        if line not in lines:
            lines.append(line)
    return "; ".join(lines)
