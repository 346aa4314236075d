"""The routes of tasks: every status and body."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime

import pytest
from hostile_results import ACCEPTED

from worker.api.runners import results
from worker.api.runners.protocol import NOT_ENDED, RunnerUnavailable, TaskStatus

TASKS = "/api/v1/tasks"
INFERENCE = "/api/v1/inference"
TOUR = {"endpoint_name": "tour"}


# -- start


async def test_start(api):
    body = {
        "endpoint_name": "tour",
        "input_parameters": {"text": "a", "number": 1.5, "yes": True, "no": None, "many": [1, "b"]},
        "timeout_s": 12.5,
        "callback_url": "https://example.com/done",
    }
    answer = await api.client.post(INFERENCE, json=body)
    assert answer.status_code == 202
    said = answer.json()
    assert said == {"success": True, "message": "Task queued", "task_id": said["task_id"]}
    [request] = api.runner.requests
    assert request.task_id == str(uuid.UUID(said["task_id"]))
    assert request.account == "alice"
    assert request.file == api.endpoints / "tour.py"
    assert request.inputs == body["input_parameters"]
    assert request.timeout_s == 12.5
    assert request.callback_url == "https://example.com/done"


async def test_int_and_bool_keep_their_type(api):
    await api.start(input_parameters={"one": 1, "yes": True, "text": "1"})
    [request] = api.runner.requests
    assert [type(value) for value in request.inputs.values()] == [int, bool, str]


async def test_unknown_endpoint(api):
    answer = await api.client.post(INFERENCE, json={"endpoint_name": "../tour"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Endpoint ../tour not found"})


async def test_broken_endpoint(api):
    (api.endpoints / "broken.py").write_text("def run(:\n")
    answer = await api.client.post(INFERENCE, json={"endpoint_name": "broken"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("endpoint_name: endpoint broken cannot be run")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "endpoint_name"),
        ({**TOUR, "input_parameters": {"good": 1, "bad": {"deep": 1}}}, "input_parameters.bad"),
        ({**TOUR, "input_parameters": {"worse": [[1]]}}, "input_parameters.worse"),
        ({**TOUR, "input_parameters": {"": 1}}, "input_parameters"),
        ({**TOUR, "input_parameters": []}, "input_parameters"),
        ({**TOUR, "input_parameters": {"long": "x" * 100_001}}, "input_parameters"),
        ({**TOUR, "timeout_s": 0}, "timeout_s"),
        ({**TOUR, "timeout_s": -1}, "timeout_s"),
        ({**TOUR, "timeout_s": 1e9}, "timeout_s"),
        ({**TOUR, "callback_url": "ftp://example.com"}, "callback_url"),
        ({**TOUR, "callback_url": "https://"}, "callback_url"),
        ({**TOUR, "callback_url": "https://exämple.com"}, "callback_url"),
        ({**TOUR, "callback_url": "http://[::1"}, "callback_url"),
        ({**TOUR, "callback_url": "http://example.com:99999/"}, "callback_url"),
        ({**TOUR, "callback_url": "http://127.0.0.1/"}, "callback_url"),
        ({**TOUR, "callback_url": "http://[::ffff:10.0.0.1]/"}, "callback_url"),
        ({**TOUR, "callback_url": "http://169.254.169.254/latest"}, "callback_url"),
        ({**TOUR, "extra": 1}, "extra"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_invalid_part_is_named(api, body, named):
    answer = await api.client.post(INFERENCE, json=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]
    assert named in answer.json()["detail"]
    assert not api.runner.requests


async def test_endpoint_name_that_is_not_unicode(api):
    answer = await api.client.post(
        INFERENCE,
        content=rb'{"endpoint_name": "\ud800"}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 422
    assert "endpoint_name" in answer.json()["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"endpoint_name": "tour", "timeout_s": NaN}', b"[" * 50_000]
)
async def test_invalid_json(api, content):
    headers = {"content-type": "application/json"}
    answer = await api.client.post(INFERENCE, content=content, headers=headers)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_unpaired_surrogate(api):
    content = rb'{"endpoint_name": "tour", "input_parameters": {"a": "\ud800"}}'
    answer = await api.client.post(
        INFERENCE, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422


async def test_body_too_large(api):
    for content in (b"x" * 300_000, chunks()):
        answer = await api.client.post(INFERENCE, content=content)
        assert answer.status_code == 413
        assert answer.json() == {"detail": "The body is larger than 262144 bytes"}


async def chunks():
    for _ in range(300):
        yield b"x" * 1000


async def test_key_is_checked_before_the_body(api):
    answer = await api.client.post(INFERENCE, content=b"{", headers={"x-api-key": "wk_wrong"})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid or missing API key"})


async def test_full_queue(api):
    api.runner.queue_max = 1
    await api.start()
    answer = await api.client.post(INFERENCE, json=TOUR)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json() == {"detail": "The queue is full; try again in 7 s"}


async def test_full_disk(api):
    """Only the account whose files have reached its limit is refused."""
    api.runner.full["alice"] = "the files occupy 2.0 MiB, and the limit is 1.0 MiB"
    answer = await api.client.post(INFERENCE, json=TOUR)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json() == {
        "detail": "The files occupy 2.0 MiB, and the limit is 1.0 MiB; delete ended tasks, or wait "
        "until they are removed after the retention time; try again in 7 s"
    }
    answer = await api.client.post(INFERENCE, json=TOUR, headers=api.key("bob"))
    assert answer.status_code == 202


# -- idempotency


async def test_repeated_request_returns_the_same_task(api):
    headers = {"idempotency-key": "request 7"}
    answers = [await api.client.post(INFERENCE, json=TOUR, headers=headers) for _ in range(3)]
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert len(api.runner.requests) == 1


async def test_other_body_with_the_same_key_is_refused(api):
    headers = {"idempotency-key": "request 7"}
    await api.client.post(INFERENCE, json=TOUR, headers=headers)
    answer = await api.client.post(INFERENCE, json={**TOUR, "timeout_s": 5}, headers=headers)
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": "Idempotency-Key: already used with another body; use a new key"
    }


async def test_idempotency_keys_are_per_account(api):
    bob = api.key("bob")
    headers = {"idempotency-key": "1"}
    first = await api.client.post(INFERENCE, json=TOUR, headers=headers)
    second = await api.client.post(INFERENCE, json=TOUR, headers={**headers, **bob})
    assert first.json()["task_id"] != second.json()["task_id"]


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_invalid_idempotency_key(api, key):
    answer = await api.client.post(INFERENCE, json=TOUR, headers={"idempotency-key": key})
    assert answer.status_code == 422


# -- get


async def test_get(api):
    task_id = await api.start(input_parameters={"a": [1]})
    moment = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    api.runner.set(
        task_id,
        TaskStatus.FAILED,
        started_at=moment,
        finished_at=moment,
        exit_code=1,
        error={"type": "LookupError", "message": "nothing there", "traceback": "…"},
    )
    answer = await api.client.get(f"{TASKS}/{task_id}")
    assert answer.status_code == 200
    said = answer.json()
    assert said.pop("created_at")
    assert said == {
        "task_id": task_id,
        "endpoint_name": "tour",
        "status": "failed",
        "started_at": "2026-05-04T03:02:01Z",
        "finished_at": "2026-05-04T03:02:01Z",
        "exit_code": 1,
        "input_parameters": {"a": [1]},
        "output": None,
        "output_omitted": False,
        "error": {"type": "LookupError", "message": "nothing there", "traceback": "…"},
    }


@pytest.mark.parametrize("name", ACCEPTED)
async def test_outputs_that_a_worker_can_write(api, name):
    """GET and lists answer with every output that the parser of results accepts."""
    task_id = await api.start()
    found = results.parse(ACCEPTED[name][0])
    assert isinstance(found, results.Result)
    now = datetime.now(UTC)
    fields = {"exit_code": 1, "output": found.output, "error": found.error, "finished_at": now}
    api.runner.set(task_id, TaskStatus.FAILED, **fields)
    answer = await api.client.get(f"{TASKS}/{task_id}")
    assert answer.status_code == 200
    assert answer.json()["output"] == ACCEPTED[name][1]
    assert (await api.client.get(TASKS)).status_code == 200


async def test_omitted_output(api):
    task_id = await api.start()
    api.runner.set(task_id, TaskStatus.SUCCESS, exit_code=0, output_omitted=True)
    said = (await api.client.get(f"{TASKS}/{task_id}")).json()
    assert (said["output"], said["output_omitted"]) == (None, True)
    described = (await api.client.get("/openapi.json")).json()["components"]["schemas"]["Task"]
    assert "too large to be stored" in described["properties"]["output_omitted"]["description"]


@pytest.mark.parametrize("path", ["", "/stream", "/artifacts", "/artifacts/task.log"])
async def test_other_accounts_task(api, path):
    task_id = await api.running()
    theirs = await api.client.get(f"{TASKS}/{task_id}{path}", headers=api.key("bob"))
    none = str(uuid.uuid4())
    missing = await api.client.get(f"{TASKS}/{none}{path}")
    assert theirs.status_code == missing.status_code == 404
    assert theirs.text.replace(task_id, none) == missing.text
    assert theirs.headers == missing.headers


async def test_upper_case_task_id(api):
    task_id = await api.start()
    answer = await api.client.get(f"{TASKS}/{task_id.upper()}")
    assert answer.json()["task_id"] == task_id


# -- cancel


async def test_cancel_twice(api):
    task_id = await api.start()
    for _ in range(2):
        answer = await api.client.post(f"{TASKS}/{task_id}/cancel")
        assert answer.status_code == 202
        assert answer.json()["status"] == "cancelled"


async def test_cancel_other_accounts_task(api):
    task_id = await api.start()
    answer = await api.client.post(f"{TASKS}/{task_id}/cancel", headers=api.key("bob"))
    assert (answer.status_code, answer.json()) == (404, {"detail": f"Task {task_id} not found"})
    assert api.runner.cancelled == []


# -- delete


async def test_delete(api):
    """Only a task that has ended, and only once."""
    task_id = await api.start()
    answer = await api.client.delete(f"{TASKS}/{task_id}")
    assert (answer.status_code, answer.json()) == (409, {"detail": NOT_ENDED})
    api.runner.set(task_id, TaskStatus.SUCCESS)
    answer = await api.client.delete(f"{TASKS}/{task_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    for request in (api.client.get, api.client.delete):
        assert (await request(f"{TASKS}/{task_id}")).status_code == 404


async def test_delete_other_accounts_task(api):
    task_id = await api.start()
    api.runner.set(task_id, TaskStatus.SUCCESS)
    answer = await api.client.delete(f"{TASKS}/{task_id}", headers=api.key("bob"))
    assert (answer.status_code, answer.json()) == (404, {"detail": f"Task {task_id} not found"})
    assert task_id in api.runner.records


# -- list


async def test_list_in_pages(api):
    made = [await api.start() for _ in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await api.client.get(TASKS, params=query)).json()
        seen += [task["task_id"] for task in page["tasks"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_list_by_status_and_account(api):
    first, second = await api.start(), await api.start()
    api.runner.set(first, TaskStatus.SUCCESS)
    page = (await api.client.get(TASKS, params={"status": "queued"})).json()
    assert [task["task_id"] for task in page["tasks"]] == [second]
    assert (await api.client.get(TASKS, headers=api.key("bob"))).json()["tasks"] == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"status": "done"}, "status"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": base64.urlsafe_b64encode(b"0001-01-01T00:00:00+23:00 a").decode()}, "cursor"),
    ],
)
async def test_invalid_query_is_named(api, query, named):
    answer = await api.client.get(TASKS, params=query)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


async def test_list_endpoints(api):
    answer = await api.client.get("/api/v1/endpoints")
    assert answer.json() == {"endpoints": ["tour"]}


# -- when the runner does not answer


async def test_runner_does_not_answer(api):
    task_id = await api.start()
    api.runner.unavailable = RunnerUnavailable("the cluster does not answer")
    for answer in (
        await api.client.get(f"{TASKS}/{task_id}"),
        await api.client.get(f"{TASKS}/{task_id}/stream"),
        await api.client.get(TASKS),
        await api.client.post(INFERENCE, json=TOUR),
        await api.client.get("/readyz"),
    ):
        assert answer.status_code == 503
        assert list(answer.json()) == ["detail"]


async def test_internal_error_is_json(api):
    api.runner.unavailable = ZeroDivisionError()
    answer = await api.client.get(TASKS)
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal server error"})
