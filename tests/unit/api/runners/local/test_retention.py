"""Expired tasks are removed; one whose folder cannot be removed delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker.api.runners.background import Loops
from worker.api.runners.fairness import Capacity
from worker.api.runners.local import retention, task_end
from worker.api.runners.local.retention import Retention
from worker.api.runners.local.store import Store
from worker.api.runners.protocol import TaskRequest


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[Store]:
    made = Store(tmp_path / "tasks.sqlite3", Capacity(max_running=1, queue_max=1000))
    yield made
    await made.close()


async def add_ended(store: Store, count: int) -> list[str]:
    ids = [f"task{number:03}" for number in range(count)]
    for task_id in ids:
        await add(store, task_id)
        await store.mark_ended(task_id, task_end.cancelled())
    return ids


async def add(store: Store, task_id: str) -> None:
    request = TaskRequest(
        task_id=task_id,
        account="alice",
        endpoint_name="echo",
        file=Path("echo.py"),
        inputs={},
        timeout_s=1,
        callback_url=None,
        digest="d",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    await store.add(request)


async def test_id_that_is_used_again_meanwhile(store):
    """What a client has removed, and then started again under its id, is not removed."""
    [task_id] = await add_ended(store, 1)
    removed = []

    def remove():
        removed.append(task_id)

    async with store.removal(task_id):
        swept = asyncio.ensure_future(
            Retention(kept_s=1e-6).sweep(store, lambda _: remove, Loops(lambda *_, **__: None))
        )
        await asyncio.sleep(0)
        await store.remove([task_id])
        await add(store, task_id)
    await swept
    assert removed == []
    assert store.summary(task_id) is not None


async def test_unremovable_folders(store, monkeypatch):
    """They are kept and reported once, the other tasks are removed, and the sweep ends."""
    monkeypatch.setattr(retention, "_BATCH", 3)
    ids = await add_ended(store, 12)
    stuck = {ids[0], ids[1], ids[2], ids[3], ids[7]}
    reported: list[dict[str, Any]] = []
    tried: list[str] = []

    def folder_of(task_id):
        def remove():
            tried.append(task_id)
            return "Operation not permitted" if task_id in stuck else None

        return remove

    swept = Retention(kept_s=0.001, report=lambda event, **more: reported.append(more))
    for _ in range(2):
        await swept.sweep(store, folder_of, Loops(lambda *_, **__: None))
    assert sorted(tried) == sorted([*ids, *stuck])
    left = store.list("alice", None, None, 100)
    assert {each.task_id for each in left} == stuck
    assert reported == [
        {"task_id": each, "why": "Operation not permitted"} for each in sorted(stuck)
    ]

    stuck.clear()
    await swept.sweep(store, folder_of, Loops(lambda *_, **__: None))
    assert list(store.list("alice", None, None, 100)) == []
