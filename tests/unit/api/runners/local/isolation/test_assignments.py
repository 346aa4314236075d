"""What a worker is assigned is available again if it is not started, or cannot be cleaned up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from worker import linux
from worker.api.runners.local.isolation.assignments import Assignments, address, assigned
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.isolation.uids import NoFreeUid, Uids
from worker.api.runners.local.stored_task import StoredTask

UIDS = range(4_000_000_000, 4_000_000_001)
TASK = StoredTask(
    task_id="t",
    file=Path("t.py"),
    inputs={"n": 1},
    timeout_s=5,
    phase="starting",
    cancel=False,
    pid=None,
    pid_started=None,
)


class Store:
    """Records what would be stored of the one task."""

    def __init__(self):
        self.stored = {}
        self.error = None

    def uids(self):
        return [uid for uid in [self.stored.get("uid")] if uid is not None]

    async def save_start(self, _task_id, **values):
        if self.error is not None:
            raise self.error
        self.stored = values

    async def mark_cleaned_up(self, _task_id):
        self.stored["uid"] = None


class Uncleanable(Isolation):
    """A process of the user cannot be killed, at first."""

    attempts: ClassVar[int] = 0

    def clean_up(self, _folder, uid):
        type(self).attempts += 1
        if self.attempts < 3:
            return False
        self.release(uid)
        return True


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def events():
    return []


@pytest.fixture
def make(store, events, tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "uids_in_use", set)
    made = []

    def create(kind=Isolation):
        isolation = kind(uids=Uids(UIDS, tmp_path), assigns_uids=True)
        assignments = Assignments(
            store,
            isolation,
            environ={"A": "b"},
            stream_key=lambda _: b"\1",
            report=lambda event, **fields: events.append((event, fields)),
        )
        made.append((assignments, isolation))
        return assignments

    yield create
    for assignments, isolation in made:
        assignments.close()
        isolation.release(UIDS[0])


def descriptors():
    return set(Path("/proc/self/fd").iterdir())


async def test_address_is_that_of_the_socket(make, store):
    """It is stored before the worker is started."""
    launch = await make().assign(TASK)
    with launch.listener:
        assert store.stored == {"port": launch.port, "uid": UIDS[0]}
        assert address(assigned(TASK, launch)) == f"ws://127.0.0.1:{launch.port}"
        assert launch.environ == {"A": "b", "WORKER_STREAM_KEY": "01", "WORKER_INPUTS": '{"n": 1}'}


def test_worker_of_an_older_version_has_no_address():
    assert address(TASK) is None


async def test_failed_assignment(make, store):
    """Neither the uid nor the socket is kept."""
    assignments = make()
    before = descriptors()
    store.error = OSError("x")
    for _ in range(2):
        with pytest.raises(OSError, match="x"):
            await assignments.assign(TASK)
    assert descriptors() == before
    store.error = None
    launch = await assignments.assign(TASK)
    launch.listener.close()


async def test_worker_that_is_not_started(make, store):
    """Its uid, the only one, and its socket are given back, however often its start fails."""
    assignments = make()
    before = descriptors()
    for _ in range(2):
        launch = await assignments.assign(TASK)
        with pytest.raises(NoFreeUid):
            await assignments.assign(TASK)
        await assignments.take_back(TASK, launch)
        assert store.uids() == []
    assert descriptors() == before


async def test_user_that_cannot_be_cleaned_up(make, store, events, tmp_path):
    """It is reported once, and its uid is not used until a later attempt succeeds."""
    assignments = make(Uncleanable)
    launch = await assignments.assign(TASK)
    with launch.listener:
        task = assigned(TASK, launch)
    assert not await assignments.clean_up(task, tmp_path)
    assert not await assignments.clean_up(task, tmp_path, attempt=2)
    assert events == [("isolation.blocked", {"task_id": "t", "uid": UIDS[0]})]
    assert store.uids() == [UIDS[0]]
    with pytest.raises(NoFreeUid):
        await assignments.assign(replace(TASK, task_id="other"))
    assert await assignments.clean_up(task, tmp_path, attempt=3)
    (await assignments.assign(replace(TASK, task_id="other"))).listener.close()
