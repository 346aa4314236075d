"""The whole API: CORS, probes, metrics, docs, unknown paths."""

from __future__ import annotations

import pytest

ORIGIN = "https://dashboard.example.com"


async def preflight(api, origin, headers="x-api-key,content-type,idempotency-key"):
    return await api.client.options(
        "/api/v1/tasks",
        headers={
            "origin": origin,
            "access-control-request-method": "GET",
            "access-control-request-headers": headers,
            "x-api-key": "",
        },
    )


async def test_preflight_of_an_allowed_origin_needs_no_key(api):
    answer = await preflight(api, ORIGIN)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "x-api-key" in answer.headers["access-control-allow-headers"].lower()


async def test_other_origin_gets_no_cors_headers(api):
    answer = await preflight(api, "https://evil.example.com")
    assert "access-control-allow-origin" not in answer.headers
    answer = await api.client.get("/api/v1/tasks", headers={"origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("key", ["", None])
async def test_allowed_origin_can_read_refusals(api, key):
    headers = {"origin": ORIGIN} | ({} if key is None else {"x-api-key": key})
    answer = await api.client.get("/api/v1/tasks", headers=headers)
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_responses_are_not_cached(api):
    answer = await api.client.get("/api/v1/tasks")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
async def test_probes_and_docs_need_no_key(api, path):
    answer = await api.client.get(path, headers={"x-api-key": ""})
    assert answer.status_code == 200


async def test_docs_load_no_other_origin(api):
    page = (await api.client.get("/docs")).text
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert asset in page
        assert (await api.client.get(f"/docs-assets/{asset}")).status_code == 200


async def test_requests_and_tasks_are_counted(api):
    task_id = await api.running()
    await api.client.get(f"/api/v1/tasks/{task_id}/stream")
    text = (await api.client.get("/metrics")).text
    assert 'worker_api_tasks{status="running"} 1.0' in text
    assert (
        'worker_api_requests_total{method="GET",route="/api/v1/tasks/{task_id}/stream",'
        'status="200"} 1.0' in text
    )
    assert task_id not in text


async def test_unknown_path(api):
    answer = await api.client.get("/api/v1/nothing")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    answer = await api.client.get("/api/v1/nothing", headers={"x-api-key": ""})
    assert answer.status_code == 401


async def test_other_method(api):
    answer = await api.client.delete("/api/v1/tasks")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


async def test_every_status_is_described(api):
    paths = (await api.client.get("/openapi.json")).json()["paths"]
    stream = paths["/api/v1/tasks/{task_id}/stream"]["get"]
    assert set(stream["responses"]) >= {"200", "401", "403", "404", "409", "422"}
    assert stream["security"] == [{"ApiKey": []}]
    problem = {"$ref": "#/components/schemas/Problem"}
    for path, methods in paths.items():
        for described in methods.values():
            for status, response in described["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == problem, (path, status)
