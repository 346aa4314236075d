"""Viewer slots, their limits, and the one-time use of tokens."""

from __future__ import annotations

import time
from http import HTTPStatus

import pytest

from worker.close_codes import DISPLAY_LOST, DISPLAY_RESTARTING, Close
from worker.stream.admission import Admission, UsedTokens, ViewerSlot
from worker.stream.messages import State, TokenUsed
from worker.stream.refusals import Refusal
from worker.stream.tokens import Grant, Role

ENDED = Close(code=1000, reason="task success")
LATER = 4_000_000_000


def admission(*, max_viewers: int = 2, state: State = State.RUNNING) -> Admission:
    return Admission(max_viewers=max_viewers, state=state, used=UsedTokens())


def grant(jti: str, role: Role = Role.VIEW) -> Grant:
    return Grant(role=role, jti=jti, expires_at=LATER)


def admit(to: Admission, jti: str, role: Role = Role.VIEW) -> ViewerSlot:
    slot = to.reserve(grant(jti, role), "192.0.2.1")
    to.confirm(slot)
    return slot


class FakeViewer:
    """Records how it was ended."""

    def __init__(self) -> None:
        self.closes: list[Close] = []
        self.sent_bytes = 0

    def end(self, close: Close) -> None:
        self.closes.append(close)


def refusal_of(to: Admission, jti: str, role: Role = Role.VIEW) -> HTTPStatus:
    with pytest.raises(Refusal) as caught:
        to.reserve(grant(jti, role), "192.0.2.1")
    return caught.value.status


def test_a_confirmed_token_is_used_up() -> None:
    viewers = admission()
    slot = viewers.reserve(grant("a"), "192.0.2.1")
    assert viewers.confirm(slot) == TokenUsed(jti="a", expires_at=LATER)
    assert viewers.is_used("a")
    viewers.release(slot)
    assert refusal_of(viewers, "a") == HTTPStatus.UNAUTHORIZED


def test_a_token_is_usable_again_after_its_reserved_slot_was_released() -> None:
    viewers = admission()
    slot = viewers.reserve(grant("a"), "192.0.2.1")
    assert refusal_of(viewers, "a") == HTTPStatus.UNAUTHORIZED  # reserved by another connection
    viewers.release(slot)
    admit(viewers, "a")


def test_a_token_is_usable_after_the_viewer_limit_refused_it() -> None:
    viewers = admission(max_viewers=1)
    first = admit(viewers, "a")
    assert refusal_of(viewers, "b") == HTTPStatus.SERVICE_UNAVAILABLE
    viewers.release(first)
    admit(viewers, "b")


def test_a_token_is_usable_after_another_controller_has_left() -> None:
    viewers = admission()
    first = admit(viewers, "a", Role.CONTROL)
    assert refusal_of(viewers, "b", Role.CONTROL) == HTTPStatus.CONFLICT
    viewers.release(first)
    admit(viewers, "b", Role.CONTROL)


def test_a_token_is_usable_after_the_task_has_started() -> None:
    viewers = admission(state=State.STARTING)
    assert refusal_of(viewers, "a") == HTTPStatus.CONFLICT
    viewers.state = State.RUNNING
    admit(viewers, "a")


def test_the_viewer_limit_refusal_names_when_to_retry() -> None:
    viewers = admission(max_viewers=0)
    with pytest.raises(Refusal) as caught:
        viewers.reserve(grant("a"), "192.0.2.1")
    assert int(caught.value.headers["Retry-After"]) > 0


def test_control_is_available_when_the_viewer_limit_is_reached() -> None:
    viewers = admission(max_viewers=1)
    admit(viewers, "a")
    admit(viewers, "b", Role.CONTROL)


def test_a_reserved_slot_counts_towards_the_limit() -> None:
    viewers = admission(max_viewers=1)
    viewers.reserve(grant("a"), "192.0.2.1")
    assert refusal_of(viewers, "b") == HTTPStatus.SERVICE_UNAVAILABLE


def test_a_task_that_ends_before_the_confirmation_refuses_the_viewer() -> None:
    viewers = admission()
    slot = viewers.reserve(grant("a"), "192.0.2.1")
    viewers.end(ENDED)
    with pytest.raises(Refusal) as caught:
        viewers.confirm(slot)
    assert caught.value.status == HTTPStatus.CONFLICT
    assert not viewers.is_used("a")


def test_a_stream_server_that_is_restarted_refuses_viewers_with_503() -> None:
    viewers = admission()
    slot = viewers.reserve(grant("a"), "192.0.2.1")
    viewers.end(DISPLAY_RESTARTING)
    with pytest.raises(Refusal) as caught:
        viewers.confirm(slot)
    assert caught.value.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert refusal_of(viewers, "b") == HTTPStatus.SERVICE_UNAVAILABLE
    assert not viewers.is_used("a")


def test_an_ended_task_does_not_run_again() -> None:
    viewers = admission()
    viewers.end(ENDED)
    viewers.state = State.RUNNING
    assert viewers.state is State.ENDING


def test_an_end_reaches_every_viewer_with_the_first_reason() -> None:
    viewers = admission()
    early, late = FakeViewer(), FakeViewer()
    slots = [admit(viewers, "a"), admit(viewers, "b")]
    slots[0].attach(early)
    viewers.end(ENDED)
    viewers.end(DISPLAY_LOST)
    slots[1].attach(late)
    assert early.closes[0] == late.closes[0] == ENDED


def test_sent_bytes_include_viewers_that_have_left() -> None:
    viewers = admission()
    sent = (3, 4)
    for jti, count in zip("ab", sent, strict=True):
        viewer = FakeViewer()
        viewer.sent_bytes = count
        slot = admit(viewers, jti)
        slot.attach(viewer)
        if jti == "a":
            viewers.release(slot)
            viewers.release(slot)  # a second release changes nothing
    assert viewers.sent_bytes == sum(sent)
    assert len(viewers.slots) == 1


def test_used_tokens_are_removed_after_they_have_expired() -> None:
    used = UsedTokens([TokenUsed(jti="kept", expires_at=LATER)])
    for number in range(1000):
        used.add(str(number), int(time.time()) - 1)
    assert len(used.all()) < 500
    assert "kept" in used
