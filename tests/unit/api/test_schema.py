"""Every response is one that the OpenAPI description has, and none is a 5xx."""

from __future__ import annotations

import uuid
import zlib
from datetime import UTC, datetime
from typing import cast

import schemathesis
from fakes import FakeAccounts, FakeRunner
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from worker_serve import ENDPOINTS

from worker.api import app as api_app
from worker.api.accounts import Account, Accounts
from worker.api.dependencies import Services
from worker.api.endpoints import Endpoints
from worker.api.runners.protocol import TaskRecord, TaskStatus

MAX_EXAMPLES = 40
KEY = "wk_alice"


def _known():
    """A runner with a task in each status."""
    runner = FakeRunner(queue_max=20)
    for number, status in enumerate(TaskStatus):
        record = TaskRecord(
            task_id=str(uuid.UUID(int=number)),
            account="alice",
            endpoint_name="echo",
            status=status,
            created_at=datetime.now(UTC),
            digest="",
            output=b'{"a": [1, null]}',
            error={"type": "E", "message": "m"},
        )
        runner.records[record.task_id] = record
        runner.set(record.task_id, status)
        runner.files[record.task_id] = {"task.log": b"said", "deep/page.html": b"<p>"}
    return runner


APP = api_app.make(
    Services(
        runner=_known(),
        accounts=cast("Accounts", FakeAccounts({KEY: Account(name="alice", control=False)})),
        endpoints=Endpoints(ENDPOINTS),
        stream_key=lambda _: b"k" * 32,
    )
)
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@SCHEMA.parametrize()
@settings(max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_response_is_described(case):
    made_up = str((case.path_parameters or {}).get("task_id", ""))
    number = zlib.crc32(made_up.encode(errors="replace")) % (len(TaskStatus) + 1)
    if made_up and number < len(TaskStatus):
        case.path_parameters["task_id"] = str(uuid.UUID(int=number))  # one that exists
    # Some refusals cannot be described (a host that is not public, an invalid cursor).
    case.call_and_validate(
        headers={"x-api-key": KEY},
        excluded_checks=[positive_data_acceptance, negative_data_rejection],
    )
