"""The API in memory: the app over a fake runner, with keys and endpoints in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import FakeRunner
from fastapi import FastAPI

from worker.api import accounts
from worker.api import app as api_app
from worker.api.accounts import Accounts
from worker.api.dependencies import Services
from worker.api.endpoints import Endpoints
from worker.api.runners import results
from worker.api.runners.protocol import TaskStatus
from worker.stream import tokens

MASTER = b"a master secret of the unit tests"


@pytest.fixture(autouse=True)
def parsed_in_this_process(monkeypatch):
    """Unit tests start no process; the contract test parses large results in one."""
    monkeypatch.setattr(results, "_SMALL_MAX_BYTES", results.RESULT_MAX_BYTES)


@dataclass(kw_only=True)
class Api:
    """A client with alice's key, and the objects behind the API."""

    client: httpx.AsyncClient
    app: FastAPI
    runner: FakeRunner
    keys: Path
    endpoints: Path

    def key(self, account: str, *, control: bool = False) -> dict[str, str]:
        """A new key, as the header that carries it."""
        return {"x-api-key": accounts.create(self.keys, account, control=control)}

    async def start(self, **more: Any) -> str:
        """The id of a queued task of alice's."""
        body = {"endpoint_name": "tour", **more}
        answer = await self.client.post("/api/v1/inference", json=body)
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    async def running(self) -> str:
        """The id of a running task of alice's."""
        task_id = await self.start()
        self.runner.set(task_id, TaskStatus.RUNNING)
        return task_id


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The API, open."""
    endpoints = tmp_path / "endpoints"
    endpoints.mkdir()
    (endpoints / "tour.py").write_text("async def run(page, inputs):\n    return inputs\n")
    keys = tmp_path / "state" / "api-keys.json"
    runner = FakeRunner()
    app = api_app.make(
        Services(
            runner=runner,
            accounts=Accounts(keys),
            endpoints=Endpoints(endpoints),
            stream_key=lambda task_id: tokens.derive_key(MASTER, task_id),
            allowed_origins=("https://dashboard.example.com",),
        )
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    key = accounts.create(keys, "alice", control=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api.test", headers={"x-api-key": key}
    ) as client:
        yield Api(client=client, app=app, runner=runner, keys=keys, endpoints=endpoints)
