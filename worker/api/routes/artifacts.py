"""The routes of artifacts: a task's files, as downloads that a browser does not render."""

from __future__ import annotations

import mimetypes
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.convertors import Convertor, register_url_convertor

from worker.api.dependencies import OwnTask, ServicesDep
from worker.api.models import ArtifactFile, ArtifactList
from worker.api.refusals import Refusal, responses_for

router: Final = APIRouter(prefix="/api/v1", tags=["artifacts"])


class _AnyName(Convertor[str]):
    """The rest of a path; Starlette's `path` convertor does not match line breaks."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_name", _AnyName())

_UNKNOWN_TYPE: Final = "application/octet-stream"
_PLAIN_TYPES: Final = {".log": "text/plain; charset=utf-8", ".jsonl": "application/x-ndjson"}


@router.get(
    "/tasks/{task_id}/artifacts",
    summary="List a task's files",
    responses=responses_for(HTTPStatus.NOT_FOUND),
)
async def artifacts(task: OwnTask, services: ServicesDep) -> ArtifactList:
    """The files that a task has written so far."""
    files = await services.runner.artifacts(task)
    return ArtifactList(
        artifacts=[ArtifactFile(name=file.name, size_bytes=file.size_bytes) for file in files]
    )


@router.get(
    "/tasks/{task_id}/artifacts/{name:any_name}",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        **responses_for(HTTPStatus.NOT_FOUND),
    },
)
async def artifact(task: OwnTask, name: str, services: ServicesDep) -> StreamingResponse:
    """One file, always as a download, so that none can run as a page of this origin."""
    content = await services.runner.open_artifact(task, name)
    if content is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"Artifact {name} of task {task.task_id} not found")
    return StreamingResponse(
        content,
        media_type=_media_type(name),
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.rpartition('/')[2])}",
            "Content-Security-Policy": "sandbox",
        },
    )


def _media_type(name: str) -> str:
    suffix = "." + name.rpartition(".")[2]
    # Only the suffix: from a name that begins with `data:`, `guess_type` returns any text as type.
    return _PLAIN_TYPES.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or _UNKNOWN_TYPE
