"""The answers to a flood of probes."""

from __future__ import annotations

from worker.api.port.probe_answers import FRESH_S, ProbeAnswers


async def test_the_latest_answer_is_kept_while_it_is_fresh() -> None:
    now = [0.0]
    answers = ProbeAnswers(lambda: now[0])
    statuses = [200, 503]

    async def app(scope, receive, send):
        headers = [(b"content-length", b"2")]
        status = statuses.pop(0)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        await send({"type": "http.response.body", "body": b"}"})

    async def send(message):
        pass

    assert answers.fresh("/readyz", head=False) is None
    await answers.recording(app)({"path": "/readyz", "method": "GET"}, None, send)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
    assert answers.fresh("/readyz", head=False) == head + b"{}"
    assert answers.fresh("/readyz", head=True) == head
    assert answers.fresh("/healthz", head=False) is None
    now[0] += FRESH_S / 2
    await answers.recording(app)({"path": "/readyz", "method": "GET"}, None, send)
    assert (answers.fresh("/readyz", head=False) or b"").startswith(b"HTTP/1.1 503 ")
    now[0] += FRESH_S + 0.1
    assert answers.fresh("/readyz", head=False) is None
