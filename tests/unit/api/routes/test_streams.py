"""The stream endpoint: the statuses and bodies of its reference."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from worker.api.runners.protocol import TaskStatus
from worker.stream import tokens

NONE = "11111111-2222-4333-8444-555555555555"


def stream(task_id):
    return f"/api/v1/tasks/{task_id}/stream"


async def test_running_task(api):
    task_id = await api.running()
    answer = await api.client.get(stream(task_id))
    assert answer.status_code == 200
    assert list(answer.json()) == ["stream_url"]
    url = urlsplit(answer.json()["stream_url"])
    assert (url.scheme, url.netloc) == ("ws", "127.0.0.1:6080")
    assert url.path == f"/tasks/{task_id}/websockify"
    [token] = parse_qs(url.query)["token"]
    grant = tokens.verify(
        token, tokens.derive_key(b"a master secret of the unit tests", task_id), task_id
    )
    assert grant.role is tokens.Role.VIEW


@pytest.mark.parametrize("key", [None, "", "wk_unknown", "ÿ", "x" * 5000])
async def test_no_valid_key(api, key):
    task_id = await api.running()
    headers = {"x-api-key": ""} if key is None else {"x-api-key": key.encode("latin-1")}
    answer = await api.client.get(stream(task_id), headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Invalid or missing API key"}


@pytest.mark.parametrize(
    "task_id", [NONE, "cd6c519f-e5fe-4fb5-a0ab-cea27617b46c", "not-a-uuid", "%20", "1", "x" * 300]
)
async def test_missing_task(api, task_id):
    answer = await api.client.get(stream(task_id))
    assert answer.status_code == 404
    shown = " " if task_id == "%20" else task_id
    assert answer.json() == {"detail": f"Task {shown} not found"}


async def test_other_accounts_task(api):
    task_id = await api.running()
    answer = await api.client.get(stream(task_id), headers=api.key("bob"))
    assert answer.status_code == 404
    assert answer.json() == {"detail": f"Task {task_id} not found"}


@pytest.mark.parametrize("status", [status for status in TaskStatus if status != "running"])
async def test_task_that_is_not_running(api, status):
    task_id = await api.start()
    api.runner.set(task_id, status)
    answer = await api.client.get(stream(task_id))
    assert answer.status_code == 409
    assert answer.json() == {"detail": "Stream not available: task is not running"}
