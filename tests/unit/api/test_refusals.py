"""The statuses, texts and headers of refusals."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from worker.api import refusals

REFERENCE = [
    (refusals.invalid_key(), 401, "Invalid or missing API key"),
    (refusals.task_not_found("t1"), 404, "Task t1 not found"),
    (refusals.not_running(), 409, "Stream not available: task is not running"),
]


@pytest.mark.parametrize(("refusal", "status", "detail"), REFERENCE)
def test_reference(refusal, status, detail):
    """The texts of the stream endpoint's reference."""
    response = refusals.response(refusal)
    assert (response.status_code, json.loads(response.body)) == (status, {"detail": detail})


@pytest.mark.parametrize(
    ("refusal", "status", "seconds"),
    [
        (refusals.queue_full(7, None), 429, "7"),
        (refusals.queue_full(7, 3), 429, "7"),
        (refusals.unavailable("no answer", 5), 503, "5"),
    ],
)
def test_retry_after(refusal, status, seconds):
    response = refusals.response(refusal)
    assert (response.status_code, response.headers["retry-after"]) == (status, seconds)


@pytest.mark.parametrize(
    ("errors", "detail"),
    [
        ([], ""),
        ([{"loc": ("body", "a"), "msg": "too long"}], "a: too long"),
        ([{"loc": ("body", "a", 0, "b"), "msg": "wrong"}], "a.0.b: wrong"),
        ([{"loc": ("body",), "msg": "Field required"}], "body: Field required"),
        ([{"loc": ("query", "a"), "msg": "Value error, bad"}], "a: bad"),
        ([{"loc": ("body", "a"), "msg": "x"}, {"loc": ("body", "b"), "msg": "y"}], "a: x; b: y"),
        ([{"loc": ("body", "a"), "msg": "x"}] * 2, "a: x"),
    ],
)
def test_validation_detail(errors, detail):
    """Each invalid part is named once."""
    assert refusals.validation_detail(errors) == detail


def test_descriptions():
    """Every refusal of a route has a description and the same body."""
    described = refusals.responses_for(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
    assert set(described) == {404, 409}
    assert all(each["description"] for each in described.values())
