"""What a worker is assigned is available again if it is not started, or cannot be cleaned up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from worker import linux
from worker.api.runners.local.isolation.assignments import Assignments, address, assigned
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.isolation.reservations import NoNames
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


class Reservations:
    """Has the names of one worker."""

    def __init__(self):
        self.free = [SimpleNamespace(port=6080, leave=lambda: None)]

    def take(self):
        if not self.free:
            raise NoNames
        return self.free.pop()

    def give_back(self, names):
        self.free.append(names)


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
def reservations():
    return Reservations()


@pytest.fixture
def make(store, reservations, events, tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "uids_in_use", set)
    made = []

    def create(kind=Isolation):
        isolation = kind(uids=Uids(UIDS, tmp_path), assigns_uids=True)
        assignments = Assignments(
            store,
            isolation,
            reservations,
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


async def test_address_is_that_of_the_socket(make, store):
    """It is stored before the worker is started."""
    launch = await make().assign(TASK)
    assert store.stored == {"port": launch.port, "uid": UIDS[0]}
    assert address(assigned(TASK, launch)) == f"ws://127.0.0.1:{launch.port}"
    assert launch.environ == {"A": "b", "WORKER_STREAM_KEY": "01", "WORKER_INPUTS": '{"n": 1}'}


def test_worker_of_an_older_version_has_no_address():
    assert address(TASK) is None


async def test_failed_assignment(make, store, reservations):
    """Neither the uid nor the names are kept."""
    assignments = make()
    store.error = OSError("x")
    for _ in range(2):
        with pytest.raises(OSError, match="x"):
            await assignments.assign(TASK)
        assert reservations.free
    store.error = None
    await assignments.assign(TASK)


async def test_worker_that_is_not_started(make, store, reservations):
    """Its uid, the only one, and its names are given back, however often its start fails."""
    assignments = make()
    for _ in range(2):
        launch = await assignments.assign(TASK)
        with pytest.raises(NoFreeUid):
            await assignments.assign(TASK)
        await assignments.take_back(TASK, launch)
        assert store.uids() == []
        assert reservations.free


async def test_names_of_a_worker_that_has_ended(make, reservations):
    """They are given back once, and only when that is requested."""
    assignments = make()
    launch = await assignments.assign(TASK)
    assert not reservations.free
    for _ in range(2):
        assignments.give_back(TASK.task_id)
        assert reservations.free == [launch.names]


async def test_no_names(make, store, reservations):
    """The uid is not kept."""
    assignments = make()
    reservations.free.clear()
    for _ in range(2):
        with pytest.raises(NoNames):
            await assignments.assign(TASK)
    assert store.uids() == []


async def test_user_that_cannot_be_cleaned_up(make, store, events, tmp_path):
    """It is reported once, and its uid is not used until a later attempt succeeds."""
    assignments = make(Uncleanable)
    launch = await assignments.assign(TASK)
    task = assigned(TASK, launch)
    assignments.give_back(TASK.task_id)
    assert not await assignments.clean_up(task, tmp_path)
    assert not await assignments.clean_up(task, tmp_path, attempt=2)
    assert events == [("isolation.blocked", {"task_id": "t", "uid": UIDS[0]})]
    assert store.uids() == [UIDS[0]]
    with pytest.raises(NoFreeUid):
        await assignments.assign(replace(TASK, task_id="other"))
    assert await assignments.clean_up(task, tmp_path, attempt=3)
    await assignments.assign(replace(TASK, task_id="other"))
