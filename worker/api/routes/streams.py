"""The route of the live view: a short-lived URL for noVNC."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request

from worker.api import refusals
from worker.api.dependencies import OwnTask, caller_of, services_of
from worker.api.models import StreamAnswer
from worker.api.refusals import responses_for
from worker.net import netloc
from worker.stream import tokens
from worker.stream.tokens import Role

router: Final = APIRouter(prefix="/api/v1", tags=["stream"])

_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not listened on


@router.get(
    "/tasks/{task_id}/stream",
    summary="Get a stream URL",
    responses=responses_for(
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    ),
)
async def stream(
    request: Request,
    task: OwnTask,
    role: Annotated[
        Role,
        Query(description="`control` allows input; the API key must have been created for it."),
    ] = Role.VIEW,
) -> StreamAnswer:
    """A URL for noVNC, valid for one connection, for a minute, while the task runs.

    Fetch a new one for each connection.
    """
    services, caller = services_of(request), caller_of(request)
    if role is Role.CONTROL and not caller.control:
        raise refusals.no_control(caller.name)
    address = await services.runner.stream_address(task)
    if address is None:
        raise refusals.not_running()
    base_url = services.stream_base_url or _reachable(address, request.url.hostname)
    token = tokens.mint(services.stream_key(task.task_id), task.task_id, role)
    return StreamAnswer(stream_url=tokens.stream_url(base_url, task.task_id, token))


def _reachable(address: str, requested_host: str | None) -> str:
    """The address for the client: of a worker on every address, with the host of its request."""
    split = urlsplit(address)
    if split.hostname not in _ANY_ADDRESS or split.port is None or not requested_host:
        return address
    return f"{split.scheme}://{netloc(requested_host, split.port)}"
