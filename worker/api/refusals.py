"""Refusals: every way in which a request is turned down, with its status and its exact words."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from worker.api.models import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEANINGS: Final[dict[HTTPStatus, str]] = {
    HTTPStatus.UNAUTHORIZED: "No `x-api-key`, or one that is not known",
    HTTPStatus.FORBIDDEN: "The account may not do this",
    HTTPStatus.NOT_FOUND: "There is none, or it belongs to another account",
    HTTPStatus.CONFLICT: "The task is not running",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request is wrong; `detail` names what",
    HTTPStatus.TOO_MANY_REQUESTS: "The queue is full; `Retry-After` says in how many seconds",
    HTTPStatus.SERVICE_UNAVAILABLE: "What runs the tasks does not answer; `Retry-After` follows",
}


class Refusal(HTTPException):
    """A request that is turned down."""


def described(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI description."""
    return {
        int(status): {"model": Problem, "description": _MEANINGS[status]} for status in statuses
    }


def invalid_key() -> Refusal:
    """No key, or one that is not known."""
    return Refusal(HTTPStatus.UNAUTHORIZED, "Invalid or missing API key")


def task_not_found(task_id: str) -> Refusal:
    """No such task, or another account's."""
    return Refusal(HTTPStatus.NOT_FOUND, f"Task {task_id} not found")


def not_running() -> Refusal:
    """Queued, starting, or ended."""
    return Refusal(HTTPStatus.CONFLICT, "Stream not available: task is not running")


def no_control(account: str) -> Refusal:
    """The account may only watch."""
    return Refusal(
        HTTPStatus.FORBIDDEN, f"Account {account} may not control: its API key allows viewing only"
    )


def queue_full(retry_after_s: int) -> Refusal:
    """Too many tasks wait already."""
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"The queue is full; try again in {retry_after_s} s",
        {"Retry-After": str(retry_after_s)},
    )


def unavailable(why: str, retry_after_s: int) -> Refusal:
    """What runs the tasks does not answer."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": str(retry_after_s)})


def too_large(limit_bytes: int) -> Refusal:
    """The body is larger than any that is taken."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {limit_bytes} bytes"
    )


def answer(refusal: HTTPException) -> JSONResponse:
    """A refusal as it is sent."""
    return JSONResponse(
        {"detail": refusal.detail}, status_code=refusal.status_code, headers=refusal.headers
    )


def sentence(problems: Sequence[Any]) -> str:
    """What is wrong with a request, in one line that names each bad part."""
    said = []
    for problem in problems:
        place = ".".join(str(part) for part in problem["loc"][1:]) or "body"
        line = f"{place}: {problem['msg'].removeprefix('Value error, ')}"
        if line not in said:
            said.append(line)
    return "; ".join(said)
