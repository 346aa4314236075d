"""The answers to a flood of probes."""

from __future__ import annotations

from worker.api.port.probe_answers import FRESH_S, STALE_MAX_S, ProbeAnswers

SCOPE = {"path": "/readyz", "method": "GET"}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"


async def ignore(message):
    """Send nothing."""


def answering(status, meanwhile=lambda: None):
    """An app that answers with `{}`."""

    async def app(scope, receive, send):
        meanwhile()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        await send({"type": "http.response.body", "body": b"}"})

    return app


async def test_the_latest_answer_is_repeated_while_it_is_fresh() -> None:
    now = [0.0]
    answers = ProbeAnswers(lambda: now[0])
    assert answers.latest("/readyz") is None
    await answers.recording(answering(200))(SCOPE, None, ignore)
    assert answers.latest("/readyz") == HEAD + b"{}"
    assert answers.latest("/healthz") is None
    now[0] += FRESH_S / 2
    await answers.recording(answering(503))(SCOPE, None, ignore)
    assert (answers.latest("/readyz") or b"").startswith(b"HTTP/1.1 503 ")
    now[0] += FRESH_S + 0.1
    assert answers.latest("/readyz") is None


async def test_an_older_answer_is_repeated_while_another_is_made() -> None:
    now = [0.0]
    answers = ProbeAnswers(lambda: now[0])
    await answers.recording(answering(200))(SCOPE, None, ignore)
    now[0] += FRESH_S + 0.1
    seen: list[bytes | None] = []
    app = answering(200, lambda: seen.append(answers.latest("/readyz")))
    await answers.recording(app)(SCOPE, None, ignore)
    now[0] += STALE_MAX_S + 0.1
    await answers.recording(app)(SCOPE, None, ignore)
    assert seen == [HEAD + b"{}", None]
