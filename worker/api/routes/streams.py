"""The route of the live view: a short-lived URL that goes straight into noVNC."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request

from worker.api import refusals
from worker.api.dependencies import OwnTask, caller_of, parts_of
from worker.api.models import StreamAnswer
from worker.api.refusals import described
from worker.net import netloc
from worker.stream import tokens
from worker.stream.tokens import Role

router: Final = APIRouter(prefix="/api/v1", tags=["stream"])

_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not listened on


@router.get(
    "/tasks/{task_id}/stream",
    summary="Watch a task",
    responses=described(
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    ),
)
async def stream(
    request: Request,
    found: OwnTask,
    role: Annotated[
        Role, Query(description="`control` may type and click; a key must have been made for it.")
    ] = Role.VIEW,
) -> StreamAnswer:
    """A URL for noVNC: good for one connection, within a minute, while the task runs.

    Fetch a fresh one each time that you connect.
    """
    parts, caller = parts_of(request), caller_of(request)
    if role is Role.CONTROL and not caller.control:
        raise refusals.no_control(caller.name)
    address = await parts.runner.stream_address(found.task_id)
    if address is None:
        raise refusals.not_running()
    base_url = parts.stream_base_url or _reachable(address, request.url.hostname)
    token = tokens.mint(parts.stream_key(found.task_id), found.task_id, role)
    return StreamAnswer(stream_url=tokens.stream_url(base_url, found.task_id, token))


def _reachable(address: str, asked_host: str | None) -> str:
    """A worker that listens on every address is reached by the name that the API was."""
    split = urlsplit(address)
    if split.hostname not in _ANY_ADDRESS or split.port is None or not asked_host:
        return address
    return f"{split.scheme}://{netloc(asked_host, split.port)}"
