"""What a viewer's thread does, and when: decisions about pings, slow viewers and the end."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from worker.close_codes import (
    DISPLAY_LOST,
    DISPLAY_RESTARTING,
    PROTOCOL_VIOLATION,
    VIEWER_TOO_SLOW,
    Close,
)
from worker.rfb.last_frame import ANSWERS_S, MOVING_S, LastFrame
from worker.stream.limits.pace import (
    LEAST_BYTES,
    LEAST_BYTES_PER_S,
    MESSAGE_S,
    STALLED_S,
    Arrival,
    Pace,
)
from worker.stream.policy import (
    CLOSE_S,
    FLUSH_S,
    FRAME_SENT_S,
    HOLD_BYTES,
    OUTCOME_WAIT_S,
    PING_S,
    QUEUE_MAX_BYTES,
    SILENT_S,
    TICK_S,
    AwaitLastFrame,
    Closing,
    Disconnect,
    Drain,
    Finish,
    Flushing,
    Forward,
    Limit,
    Ping,
    SendClose,
    StopForwarding,
    ViewerState,
    decide,
    holds_requests,
)

TASK_ENDED = Close(code=1000, reason="task success")
BEGAN_AT = 100.0


# Pace


def too_slow_at(read_bytes_at, *, pending=lambda _: True, until=60):
    """The second at which a viewer that has read so much at each moment is too slow."""
    pace = Pace(window_s=10.0, least_bytes=1000)
    for tick in range(until * 4):
        now = tick / 4
        pace.observe(now, pending=pending(now), read_bytes=int(read_bytes_at(now)))
        if pace.too_slow(now):
            return now
    return None


@pytest.mark.parametrize("rate", [0, 1, 50])
def test_reading_less_than_the_minimum_is_too_slow_after_the_window(rate):
    assert too_slow_at(lambda now: rate * now) == 10


def test_reading_the_minimum_is_not_too_slow():
    assert too_slow_at(lambda now: 100 * now) is None


def test_viewer_that_stops_reading_is_too_slow_one_window_later():
    assert 7.5 + 9 <= too_slow_at(lambda now: 5000 * min(now, 7.5)) <= 7.5 + 11


def test_viewer_for_which_nothing_is_pending_is_not_too_slow():
    assert too_slow_at(lambda _: 0, pending=lambda _: False) is None


def test_emptying_the_queue_restarts_the_window():
    assert too_slow_at(lambda _: 0, pending=lambda now: now % 5 != 0) is None


# Arrival


def late_at(received_bytes_at, *, partial=True, completed_at=lambda _: 0, until=60):
    """The second at which a message of which so much has been received is late."""
    arrival = Arrival(0.0)
    for tick in range(until * 4):
        now = tick / 4
        received_bytes, completed = int(received_bytes_at(now)), completed_at(now)
        arrival.observe(now, received_bytes=received_bytes, completed=completed, partial=partial)
        if arrival.is_late(now):
            return now
    return None


def test_message_that_stops_arriving_is_late():
    assert late_at(lambda now: min(now, 1)) == pytest.approx(MESSAGE_S, abs=0.25)


def test_message_that_arrives_slower_than_the_minimum_is_late():
    assert late_at(lambda now: LEAST_BYTES_PER_S / 2 * now) == 2 * MESSAGE_S


def test_message_that_arrives_at_the_minimum_rate_is_not_late():
    assert late_at(lambda now: LEAST_BYTES_PER_S * now) is None


def test_viewer_between_two_messages_is_not_late():
    assert late_at(lambda _: 0, partial=False) is None


def test_every_completed_message_restarts_the_time():
    assert late_at(lambda _: 0, completed_at=lambda now: int(now / 9)) is None


# Single decisions


def streaming(**fields):
    state = ViewerState(began_at=BEGAN_AT)
    for name, value in fields.items():
        setattr(state, name, value)
    return state


def after(seconds, state):
    return decide(BEGAN_AT + seconds, state)


@pytest.mark.parametrize("close", [DISPLAY_LOST, DISPLAY_RESTARTING, PROTOCOL_VIOLATION])
def test_other_closes_than_the_tasks_end_do_not_wait_for_the_last_frame(close):
    assert after(0, streaming(requested_close=close)) == StopForwarding(close)


def test_tasks_end_waits_for_the_last_frame():
    state = streaming(requested_close=TASK_ENDED)
    assert after(0, state) == AwaitLastFrame()
    state.last_frame = LastFrame(BEGAN_AT, request=True)
    assert isinstance(after(ANSWERS_S - 0.01, state), Forward)
    assert after(ANSWERS_S, state) == StopForwarding(TASK_ENDED)


def test_tasks_end_does_not_wait_for_a_lost_x11vnc():
    state = streaming(requested_close=TASK_ENDED, server_lost_at=BEGAN_AT)
    assert after(0, state) == StopForwarding(TASK_ENDED)


def test_tasks_end_does_not_wait_for_a_slow_viewer():
    state = streaming(requested_close=TASK_ENDED, pending_bytes=QUEUE_MAX_BYTES + 1)
    assert after(0, state) == StopForwarding(TASK_ENDED)


def test_lost_x11vnc_without_a_reason_is_a_restart():
    state = streaming(server_lost_at=BEGAN_AT)
    assert isinstance(after(OUTCOME_WAIT_S / 2, state), Forward)
    assert after(OUTCOME_WAIT_S + 0.001, state) == StopForwarding(DISPLAY_RESTARTING)


def test_queue_above_its_limit_is_too_slow():
    assert isinstance(after(0, streaming(pending_bytes=QUEUE_MAX_BYTES)), Forward)
    over = streaming(pending_bytes=QUEUE_MAX_BYTES + 1)
    assert after(0, over) == StopForwarding(VIEWER_TOO_SLOW, Limit.SEND_BACKLOG)


@pytest.mark.parametrize("in_handshake", [True, False])
def test_late_message_is_too_slow(in_handshake):
    state = streaming()
    for now in (BEGAN_AT, BEGAN_AT + MESSAGE_S):
        state.viewer_now = now
        state.observe(
            now,
            pending_bytes=0,
            read_bytes=0,
            received_bytes=0,
            completed=0,
            in_handshake=in_handshake,
            partial=not in_handshake,
        )
    assert after(MESSAGE_S, state) == StopForwarding(VIEWER_TOO_SLOW, Limit.MESSAGE_TIME)


def test_viewer_that_reads_nothing_is_too_slow():
    state = streaming()
    for second in range(int(STALLED_S) + 1):
        state.viewer_now = BEGAN_AT + second
        state.observe(
            BEGAN_AT + second,
            pending_bytes=1,
            read_bytes=0,
            received_bytes=0,
            completed=0,
            in_handshake=False,
            partial=False,
        )
    assert after(STALLED_S, state) == StopForwarding(VIEWER_TOO_SLOW, Limit.READ_RATE)


def test_a_busy_machine_delays_what_a_viewer_does():
    """By the viewer's clock it was not slow; for the rest of a message its clock does not count."""

    def exceeded(*, in_handshake, partial, pending_bytes):
        state = streaming()
        for second in range(int(STALLED_S) + 1):
            state.viewer_now = BEGAN_AT + second / 2
            state.observe(
                BEGAN_AT + second,
                pending_bytes=pending_bytes,
                read_bytes=0,
                received_bytes=0,
                completed=0,
                in_handshake=in_handshake,
                partial=partial,
            )
        action = after(STALLED_S, state)
        return action.limit if isinstance(action, StopForwarding) else None

    assert exceeded(in_handshake=False, partial=False, pending_bytes=1) is None
    assert exceeded(in_handshake=True, partial=False, pending_bytes=0) is None
    assert exceeded(in_handshake=False, partial=True, pending_bytes=0) == Limit.MESSAGE_TIME


def test_ping_is_due_after_no_activity_and_then_once_per_interval():
    state = streaming()
    assert isinstance(after(PING_S - 0.01, state), Forward)
    assert after(PING_S, state) == Ping()
    state.pinged_at = BEGAN_AT + PING_S
    assert isinstance(after(2 * PING_S - 0.01, state), Forward)
    assert after(2 * PING_S, state) == Ping()


def test_silent_viewer_is_disconnected():
    assert after(SILENT_S, streaming()) == Disconnect(Limit.SILENT)
    assert after(SILENT_S, streaming(active_at=BEGAN_AT + 1)) == Ping()


def test_viewer_that_is_not_read_is_not_silent():
    """Its answers to pings wait behind what x11vnc does not take; it is pinged all the same."""
    state = streaming(unread_at=BEGAN_AT + SILENT_S)
    assert after(SILENT_S, state) == Ping()
    assert isinstance(after(2 * SILENT_S - 0.01, state), Ping)
    assert after(2 * SILENT_S, state) == Disconnect(Limit.SILENT)


def test_flushing_ends_when_the_queue_is_empty_or_the_viewer_closes_or_time_is_over():
    state = streaming(phase=Flushing(since=BEGAN_AT, close=TASK_ENDED), pending_bytes=1)
    assert after(0, state).timeout_s == pytest.approx(FLUSH_S)
    assert after(FLUSH_S + 0.001, state) == SendClose(TASK_ENDED)
    state.close_received = True
    assert after(0, state) == SendClose(TASK_ENDED)
    state.close_received, state.pending_bytes = False, 0
    assert after(0, state) == SendClose(TASK_ENDED)


def test_closing_ends_with_the_viewers_close_or_when_time_is_over():
    state = streaming(phase=Closing(since=BEGAN_AT), pending_bytes=1, close_received=True)
    assert after(0, state).timeout_s == pytest.approx(CLOSE_S)
    assert after(CLOSE_S + 0.001, state) == Finish()
    state.pending_bytes = 0
    assert after(0, state) == Finish()


def test_first_reason_to_close_is_kept():
    state = streaming()
    for close in (TASK_ENDED, DISPLAY_LOST):
        state.request_close(close)
    assert state.requested_close == TASK_ENDED


def test_ticks_are_finer_while_a_short_deadline_is_near():
    idle = after(0, streaming())
    for fields in (
        {"awaits_frame": True},
        {"server_lost_at": BEGAN_AT},
        {"requested_close": TASK_ENDED, "last_frame": LastFrame(BEGAN_AT, request=True)},
    ):
        assert after(0, streaming(**fields)).timeout_s < idle.timeout_s


def test_wait_ends_when_something_that_was_held_back_may_pass():
    assert after(0, streaming(due_at=BEGAN_AT + 0.1)).timeout_s == pytest.approx(0.1)
    assert 0 < after(1, streaming(due_at=BEGAN_AT)).timeout_s < 0.01


def test_full_update_is_sent_when_x11vnc_is_quiet_after_it_began():
    state = streaming(server_sent_at=BEGAN_AT)
    later = BEGAN_AT + FRAME_SENT_S + 0.001
    assert not state.frame_is_sent(later)
    state.frame_began = True
    assert state.frame_is_sent(later)
    assert not state.frame_is_sent(BEGAN_AT + FRAME_SENT_S / 2)


def test_requests_are_held_until_half_of_the_queue_has_left():
    assert not holds_requests(HOLD_BYTES, held=False)
    assert holds_requests(HOLD_BYTES + 1, held=False)
    assert holds_requests(HOLD_BYTES // 2, held=True)
    assert not holds_requests(HOLD_BYTES // 2 - 1, held=True)


# Any order of events


class Conversation(RuleBasedStateMachine):
    """A viewer's thread as it carries out the policy, with a clock that only the rules advance.

    Time passes in steps of at most TICK_S, as `Forward.timeout_s` ensures in the thread itself.
    """

    @initialize(answers=st.booleans(), reads=st.booleans(), sends_close=st.booleans())
    def start_task(self, *, answers, reads, sends_close):
        self.now = BEGAN_AT
        self.state = ViewerState(began_at=BEGAN_AT)
        self.answers, self.reads, self.sends_close = answers, reads, sends_close
        self.pending = self.sent = self.received = self.completed = 0
        self.partial = False
        self.close_queued = False
        self.partial_since = self.pending_since = None
        self.pings = []
        self.first_close = self.first_close_at = None
        self.ended = None  # the last action
        self.closed_with = None
        self.lost_at = None
        self.act()

    # -- the thread

    def act(self):
        for _ in range(10):
            if self.ended is not None:
                return
            state = self.state
            state.viewer_now = self.now
            state.observe(
                self.now,
                pending_bytes=self.pending,
                read_bytes=self.sent,
                received_bytes=self.received,
                completed=self.completed,
                in_handshake=False,
                partial=self.partial,
            )
            if self.carry_out(decide(self.now, state)):
                return
        pytest.fail("the policy does not come to rest")

    def carry_out(self, action):
        """Carry out one action; True if the thread would wait now."""
        state = self.state
        match action:
            case Forward() | Drain():
                assert 0 < action.timeout_s < TICK_S + 0.001  # rounding of the sum of two times
                return True
            case Ping():
                self.pings.append(self.now)
                state.pinged_at = self.now
                if self.answers:
                    self.receive(2)
            case AwaitLastFrame():
                state.last_frame = LastFrame(self.now, request=not self.pending)
            case StopForwarding(close=close):
                self.closed_with = close
                if close == VIEWER_TOO_SLOW:  # not one that reads and sends complete messages
                    assert self.partial or not self.reads
                state.phase = Flushing(since=self.now, close=close)
            case SendClose(close=close):
                assert close == self.closed_with
                self.close_queued = True
                self.pending = 2
                state.phase = Closing(since=self.now)
                if self.sends_close:
                    state.close_received = True
            case Finish() | Disconnect():
                self.ended = action
        return False

    def receive(self, size):
        self.received += size
        self.state.active_at = self.now

    def read(self, size):
        size = min(size, self.pending)
        self.pending -= size
        self.sent += size
        if size and self.pending:
            self.state.active_at = self.now
        if not self.pending:
            self.pending_since = None

    # -- what happens

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 1.0]), times=st.integers(1, 40))
    def time_passes(self, seconds, times):
        for _ in range(times):
            self.now += seconds
            if self.reads:  # the minimum, rounded up
                self.read(int(LEAST_BYTES / STALLED_S * seconds) + 1)
            if self.ended is None and self.pending and self.pending_since is None:
                self.pending_since = self.now
            self.act()
            self.check_bounds()

    @rule(size=st.sampled_from([1, 1000, 100_000, HOLD_BYTES]))
    def server_sends(self, size):
        if self.lost_at is None and isinstance(decide(self.now, self.state), Forward):
            self.pending += min(size, QUEUE_MAX_BYTES - self.pending)
            self.pending_since = self.pending_since or self.now
            self.state.server_sent_at = self.now
            if self.state.last_frame is not None:
                self.state.last_frame.server_sent(self.now)
        self.act()

    @rule(size=st.sampled_from([1, 1000]), completes=st.booleans())
    def viewer_sends(self, size, *, completes):
        if self.answers:
            self.receive(size)
            self.completed += completes
            self.partial = not completes
            self.partial_since = None if completes else self.now
        self.act()

    @rule(event=st.sampled_from([None] * 5 + ["lost", TASK_ENDED, DISPLAY_LOST]))
    def stream_may_end(self, event):
        if event == "lost" and self.lost_at is None:
            self.lost_at = self.state.server_lost_at = self.now
        elif isinstance(event, Close):
            if self.first_close is None and self.closed_with is None and self.ended is None:
                self.first_close, self.first_close_at = event, self.now
            self.state.request_close(event)
        self.act()

    # -- what always holds

    def check_bounds(self):
        """The deadlines that hold whatever the viewer does."""
        if self.ended is not None:
            return
        step_s = TICK_S
        if self.first_close_at is not None:
            wait_s = ANSWERS_S + MOVING_S if self.first_close == TASK_ENDED else 0
            assert self.now - self.first_close_at <= wait_s + FLUSH_S + CLOSE_S + 3 * step_s
        if self.lost_at is not None:
            bound_s = OUTCOME_WAIT_S + FLUSH_S + CLOSE_S + 3 * step_s
            assert self.closed_with is not None or self.now - self.lost_at <= bound_s
        if self.closed_with is None:
            if self.pending_since is not None and not self.reads:
                assert self.now - self.pending_since < STALLED_S + STALLED_S / 10 + step_s
            if not self.answers and not self.reads:
                assert self.now - self.state.active_at < SILENT_S + step_s

    @invariant()
    def pings_are_never_more_frequent_than_the_interval(self):
        for earlier, later in zip(self.pings, self.pings[1:], strict=False):
            assert later - earlier >= PING_S

    @invariant()
    def viewer_that_answers_is_never_silent(self):
        if self.answers:
            assert not isinstance(self.ended, Disconnect)

    @invariant()
    def first_reason_to_close_is_the_one_that_the_viewer_gets(self):
        if self.first_close is not None and self.closed_with is not None:
            assert self.closed_with == self.first_close

    @invariant()
    def end_is_preceded_by_a_close_frame_or_silence(self):
        if isinstance(self.ended, Finish):
            assert self.close_queued
            assert self.closed_with is not None


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_any_order_of_events = Conversation.TestCase
