"""Decides when a viewer is pinged, dropped and closed. Pure: no clock, no sockets, no threads.

    Streaming ── a reason to close ──▶ Flushing ── Close queued ──▶ Closing ──▶ Finish
        │ └───── the viewer's Close frame ────────────────────────────▲
        └─────── silence ──▶ Disconnect

The viewer's thread notes what it observes in a `ViewerState`, calls `decide`, and carries out the
action. The first reason to close is the one that the viewer gets.

Times are in seconds of one clock, which leaves out the time in which this process did not run
(`worker.attended.clock`), except those of the viewer's clock (`worker.stream.limits.clock`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from worker.close_codes import DISPLAY_RESTARTING, VIEWER_TOO_SLOW, CloseCode
from worker.stream.limits.pace import Arrival, Pace

if TYPE_CHECKING:
    from worker.close_codes import Close
    from worker.rfb.last_frame import LastFrame

# The connection. Proxies commonly close one that is idle for 60 s, so pings are more frequent.
PING_S: Final = 20.0
SILENT_S: Final = 60.0  # three pings without an answer: a peer without power sends no FIN

# Slow viewers. Two full updates may be under way: one that the viewer reads, and the next one that
# it has requested meanwhile. The largest is that of a noisy picture as Tight with JPEG quality 9.
QUEUE_MAX_BYTES: Final = 24 * 1024 * 1024
HOLD_BYTES: Final = 1024 * 1024  # from this queue on, the viewer's update requests are held back
FRAME_SENT_S: Final = 0.02  # a full update is complete when x11vnc has sent nothing for this time

WORK_BYTES: Final = 1024  # received bytes are work: so many count as a message
INPUT_MAX_BYTES: Final = 256 * 1024  # queued for x11vnc; above this the viewer is not read

# The end. The stream server waits 2 s for its viewers: longer than the last three in total.
OUTCOME_WAIT_S: Final = 15.0  # after x11vnc is lost: for a busy session to send the reason
FLUSH_S: Final = 0.3  # for what is queued to leave before the Close frame
CLOSE_S: Final = 1.0  # for the viewer's answering Close frame
RELEASE_S: Final = 0.5  # for x11vnc to read the events that release a controller's keys

TICK_S: Final = 1.0  # the longest wait: deadlines of seconds are met within this time
_SHORTEST_S: Final = 0.001  # poll(2) counts in milliseconds
FINE_TICK_S: Final = 0.02  # the same while a deadline of less than a second is near


class Limit(StrEnum):
    """The limits of a viewer; one that exceeds a limit is disconnected."""

    SEND_BACKLOG = "send_backlog"
    READ_RATE = "read_rate"
    MESSAGE_TIME = "message_time"
    SILENT = "silent"
    PROTOCOL = "protocol"


@dataclass(frozen=True, slots=True)
class Forward:
    """Wait for input, and forward it both ways."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Queue a ping, and note it in `ViewerState.pinged_at`."""


@dataclass(frozen=True, slots=True)
class AwaitLastFrame:
    """The task has ended: set `ViewerState.last_frame`."""


@dataclass(frozen=True, slots=True)
class StopForwarding:
    """Enter the phase `Flushing` with this reason to close; `limit` is the one exceeded, if any."""

    close: Close
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class SendClose:
    """Discard the data that is still unsent, queue a Close frame, and enter `Closing`."""

    close: Close


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait for the viewer; send what is queued, and discard what it sends."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The closing handshake is over, or took too long."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End without a Close frame: nothing reaches this viewer any more."""

    limit: Limit


Action: TypeAlias = (
    Forward | Ping | AwaitLastFrame | StopForwarding | SendClose | Drain | Finish | Disconnect
)

_FORWARD_FINE: Final = Forward(FINE_TICK_S)
_PING: Final = Ping()


@dataclass(frozen=True, slots=True)
class Streaming:
    """Bytes are forwarded both ways."""


@dataclass(frozen=True, slots=True)
class Flushing:
    """What is queued may still leave."""

    since: float
    close: Close


@dataclass(frozen=True, slots=True)
class Closing:
    """A Close frame is queued or sent, and the viewer's is awaited."""

    since: float


Phase: TypeAlias = Streaming | Flushing | Closing


@dataclass(slots=True, kw_only=True)
class ViewerState:
    """What has been observed of one viewer.

    It is owned by the viewer's thread; only `request_close` may be called from another one, under
    the caller's lock.

    Attributes:
        began_at: When the stream began.
        ping_s: After so long without activity the viewer is pinged.
        silent_s: After so long without activity it is disconnected.
        active_at: When it last sent or read something.
        pinged_at: When it was last pinged.
        pending_bytes: How much is queued for it.
        due_at: When something that was held back may pass; None if that does not depend on time.
        viewer_now: The time of the viewer's clock, to be set before `observe`.
        unread_at: When it was last not read, since what it had sent could not be passed on.
        awaits_frame: Whether a full update was requested and is not yet sent.
        frame_began: Whether a part of that update has arrived from x11vnc.
        server_sent_at: When x11vnc last sent something.
        server_lost_at: When the connection to x11vnc ended; None until then.
        last_frame: What has arrived since the task's end; None until then.
        requested_close: The first reason to close that was given; None until then.
        close_received: Whether the viewer's Close frame has arrived.
        phase: See the diagram above.
        pace: How fast the viewer reads.
        handshake: Whether the steps of the handshake arrive in time, by the viewer's clock.
        arrival: How fast its messages arrive.
    """

    began_at: float
    ping_s: float = PING_S
    silent_s: float = SILENT_S
    active_at: float = field(init=False)
    pinged_at: float = field(init=False)
    pending_bytes: int = 0
    due_at: float | None = None
    viewer_now: float = field(init=False)
    unread_at: float = field(init=False)
    awaits_frame: bool = False
    frame_began: bool = False
    server_sent_at: float = 0.0
    server_lost_at: float | None = None
    last_frame: LastFrame | None = None
    requested_close: Close | None = None
    close_received: bool = False
    phase: Phase = Streaming()
    pace: Pace = field(default_factory=Pace)
    handshake: Arrival = field(init=False)
    arrival: Arrival = field(init=False)

    def __post_init__(self) -> None:
        self.active_at = self.pinged_at = self.began_at
        self.viewer_now = self.unread_at = self.began_at
        self.handshake, self.arrival = Arrival(self.began_at), Arrival(self.began_at)

    def observe(
        self,
        now: float,
        *,
        pending_bytes: int,
        read_bytes: int,
        received_bytes: int,
        completed: int,
        in_handshake: bool,
        partial: bool,
    ) -> None:
        """Note the state of the viewer's connection.

        Args:
            now: The time.
            pending_bytes: How much is queued for the viewer.
            read_bytes: How much it has acknowledged in total.
            received_bytes: How much was received from it in total.
            completed: How many of its messages have arrived in total.
            in_handshake: Whether a step of the handshake is to be received now.
            partial: Whether the rest of a message is to be received now.
        """
        self.pending_bytes, viewer_now = pending_bytes, self.viewer_now
        self.pace.observe(viewer_now, pending=pending_bytes > 0, read_bytes=read_bytes)
        self.handshake.observe(
            viewer_now, received_bytes=received_bytes, completed=completed, partial=in_handshake
        )
        self.arrival.observe(
            now,
            received_bytes=received_bytes,
            completed=completed,
            partial=partial and not in_handshake,
        )

    def request_close(self, close: Close) -> None:
        """Ask for the end of the stream; the first reason is kept."""
        if self.requested_close is None:
            self.requested_close = close

    def frame_is_sent(self, now: float) -> bool:
        """Whether the full update that was requested has arrived completely from x11vnc."""
        return self.frame_began and now - self.server_sent_at >= FRAME_SENT_S


def decide(now: float, state: ViewerState) -> Action:
    """Return what to do now. It changes nothing: the caller notes in `state` what it has done."""
    match state.phase:
        case Streaming():
            return _while_streaming(now, state)
        case Flushing(since=since, close=close):
            left_s = since + FLUSH_S - now
            if left_s <= 0 or not state.pending_bytes or state.close_received:
                return SendClose(close)
            return Drain(left_s)
        case Closing(since=since):
            left_s = since + CLOSE_S - now
            if left_s <= 0 or (state.close_received and not state.pending_bytes):
                return Finish()
            return Drain(left_s)
        case _:
            assert_never(state.phase)


def _while_streaming(now: float, state: ViewerState) -> Action:
    stop = _stop_due(now, state)
    if stop is not None:
        return stop
    if state.requested_close is not None and state.last_frame is None:
        return AwaitLastFrame()
    if now - max(state.active_at, state.unread_at) >= state.silent_s:
        return Disconnect(Limit.SILENT)
    if now - max(state.active_at, state.pinged_at) >= state.ping_s:
        return _PING
    if state.requested_close or state.server_lost_at is not None or state.awaits_frame:
        return _FORWARD_FINE
    timeout_s = min(TICK_S, state.ping_s)
    if state.due_at is not None:
        timeout_s = min(timeout_s, max(_SHORTEST_S, state.due_at - now))
    return Forward(timeout_s)


def _stop_due(now: float, state: ViewerState) -> StopForwarding | None:
    """Return the reason to stop forwarding now, if any."""
    limit = _exceeded(now, state)
    close, lost_at = state.requested_close, state.server_lost_at
    if close is None:
        if lost_at is not None and now - lost_at >= OUTCOME_WAIT_S:
            return StopForwarding(DISPLAY_RESTARTING)
        return None if limit is None else StopForwarding(VIEWER_TOO_SLOW, limit)
    if close.code != CloseCode.TASK_ENDED or lost_at is not None or limit is not None:
        return StopForwarding(close)
    complete = state.last_frame is not None and state.last_frame.is_complete(now)
    return StopForwarding(close) if complete else None


def _exceeded(now: float, state: ViewerState) -> Limit | None:
    if state.pending_bytes > QUEUE_MAX_BYTES:
        return Limit.SEND_BACKLOG
    if state.pace.too_slow(state.viewer_now):
        return Limit.READ_RATE
    late = state.arrival.is_late(now) or state.handshake.is_late(state.viewer_now)
    return Limit.MESSAGE_TIME if late else None


def holds_requests(pending_bytes: int, *, held: bool) -> bool:
    """Whether to hold a viewer's update requests back, so that x11vnc sends nothing more.

    Args:
        pending_bytes: How much is queued for the viewer.
        held: Whether they are held back already: then until half of the limit has left.
    """
    return pending_bytes >= HOLD_BYTES // 2 if held else pending_bytes > HOLD_BYTES
