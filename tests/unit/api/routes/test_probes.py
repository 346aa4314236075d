"""The probes: liveness, and readiness while a loop of the API is down."""

from __future__ import annotations


async def test_loop_that_is_down(api):
    """`/readyz` names the loop; `/healthz` is not affected."""
    loops = api.app.state.services.loops
    loops.failed("retention", KeyError("x"))
    answer = await api.client.get("/readyz")
    assert answer.status_code == 503
    detail = "the loop retention is down: KeyError: 'x'; it is restarted"
    assert answer.json() == {"detail": detail}
    assert (await api.client.get("/healthz")).status_code == 200
    loops.passed("retention")
    assert (await api.client.get("/readyz")).status_code == 200
