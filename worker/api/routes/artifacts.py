"""The routes of artifacts: what a task left, as downloads that no browser runs."""

from __future__ import annotations

import mimetypes
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.convertors import Convertor, register_url_convertor

from worker.api.dependencies import OwnTask, Parts
from worker.api.models import ArtifactFile, ArtifactList
from worker.api.refusals import Refusal, described

router: Final = APIRouter(prefix="/api/v1", tags=["artifacts"])


class _AnyName(Convertor[str]):
    """The whole rest of a path: Starlette's own `path` stops at a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """It is text already."""
        return value

    def to_string(self, value: str) -> str:
        """The same."""
        return value


register_url_convertor("any_name", _AnyName())

_UNKNOWN_TYPE: Final = "application/octet-stream"
_PLAIN_TYPES: Final = {".log": "text/plain; charset=utf-8", ".jsonl": "application/x-ndjson"}


@router.get(
    "/tasks/{task_id}/artifacts",
    summary="List a task's files",
    responses=described(HTTPStatus.NOT_FOUND),
)
async def artifacts(found: OwnTask, parts: Parts) -> ArtifactList:
    """The files that a task has left so far."""
    files = await parts.runner.artifacts(found.task_id)
    return ArtifactList(
        artifacts=[ArtifactFile(name=file.name, size_bytes=file.size_bytes) for file in files]
    )


@router.get(
    "/tasks/{task_id}/artifacts/{name:any_name}",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        **described(HTTPStatus.NOT_FOUND),
    },
)
async def artifact(found: OwnTask, name: str, parts: Parts) -> StreamingResponse:
    """One file; always a download, so that no file can run as a page of this origin."""
    content = await parts.runner.open_artifact(found.task_id, name)
    if content is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"Artifact {name} of task {found.task_id} not found")
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
    # Of the suffix alone: a name that begins with `data:` could else say any type, line breaks too.
    return _PLAIN_TYPES.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or _UNKNOWN_TYPE
