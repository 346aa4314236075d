"""Admission: viewer slots, their limits, and the one-time use of tokens.

A viewer reserves a slot, is connected to the display, and then confirms the slot, which uses its
token up. A refusal at any of these steps leaves the token usable for a retry.
"""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from worker.close_codes import DISPLAY_RESTARTING
from worker.stream.messages import State, TokenUsed
from worker.stream.refusals import (
    BAD_TOKEN,
    CONTROL_TAKEN,
    NOT_RUNNING,
    TOO_MANY_VIEWERS,
    Refusal,
    display_unavailable,
)
from worker.stream.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from worker.close_codes import Close
    from worker.stream.tokens import Grant
    from worker.stream.viewer import Viewer

RETRY_AFTER_S: Final = 5
_EXPIRE_AT_COUNT: Final = 256


class ViewerSlot:
    """One viewer's slot, from its reservation until it is released.

    Attributes:
        number: counts the slots of this stream server.
        grant: what the viewer's token grants.
        address: the viewer's address.
    """

    def __init__(self, number: int, grant: Grant, address: str) -> None:
        self.number, self.grant, self.address = number, grant, address
        self._lock = threading.Lock()
        self._viewer: Viewer | None = None
        self._close: Close | None = None

    @property
    def role(self) -> Role:
        """The viewer's role."""
        return self.grant.role

    @property
    def sent_bytes(self) -> int:
        """How many bytes the viewer was sent so far."""
        return self._viewer.sent_bytes if self._viewer is not None else 0

    def attach(self, viewer: Viewer) -> None:
        """Set the viewer after its handshake; an end that came before reaches it now."""
        with self._lock:
            self._viewer = viewer
            if self._close is not None:
                viewer.end(self._close)

    def end(self, close: Close) -> None:
        """Close the viewer's stream; the first reason is kept."""
        with self._lock:
            self._close = self._close or close
            if self._viewer is not None:
                self._viewer.end(close)


class UsedTokens:
    """The `jti`s of used tokens, each kept until its token has expired."""

    def __init__(self, tokens: Iterable[TokenUsed] = ()) -> None:
        self._expiries = {token.jti: token.expires_at for token in tokens}
        self._expire_at_count = _EXPIRE_AT_COUNT

    def __contains__(self, jti: object) -> bool:
        return jti in self._expiries

    def add(self, jti: str, expires_at: int) -> None:
        """Add one; `expires_at` is in seconds since 1970."""
        if len(self._expiries) >= self._expire_at_count:
            now = time.time()
            self._expiries = {key: at for key, at in self._expiries.items() if at >= now}
            self._expire_at_count = max(_EXPIRE_AT_COUNT, 2 * len(self._expiries))
        self._expiries[jti] = expires_at

    def all(self) -> tuple[TokenUsed, ...]:
        """All of them, for the next stream server."""
        return tuple(TokenUsed(jti=jti, expires_at=at) for jti, at in self._expiries.items())


class Admission:
    """The viewer slots of one stream server. Its methods may be called from any thread."""

    def __init__(self, *, max_viewers: int, state: State, used: UsedTokens) -> None:
        self._max_viewers = max_viewers
        self._state = state
        self._used = used
        self._lock = threading.Lock()
        self._slots: dict[int, ViewerSlot] = {}
        self._reserved: set[str] = set()  # the tokens of slots that are not confirmed yet
        self._count = 0
        self._released_sent_bytes = 0
        self._close: Close | None = None

    @property
    def state(self) -> State:
        """The task's state."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        with self._lock:
            if self._state is not State.ENDING:
                self._state = state

    def reserve(self, grant: Grant, address: str) -> ViewerSlot:
        """Reserve a slot for a valid token; the token stays usable until `confirm`.

        Control has a slot of its own, so it is available when the viewer limit is reached.

        Raises:
            Refusal: 401 used token, 409 not running or control taken, 503 viewer limit or restart
                of the stream server.
        """
        with self._lock:
            self.check_running()
            taken = sum(slot.role is grant.role for slot in self._slots.values())
            if grant.role is Role.CONTROL and taken:
                raise Refusal(HTTPStatus.CONFLICT, CONTROL_TAKEN)
            if taken >= self._max_viewers:
                retry = {"Retry-After": str(RETRY_AFTER_S)}
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_VIEWERS, retry)
            if grant.jti in self._used or grant.jti in self._reserved:
                raise Refusal(HTTPStatus.UNAUTHORIZED, BAD_TOKEN)
            self._reserved.add(grant.jti)
            self._count += 1
            slot = ViewerSlot(self._count, grant, address)
            self._slots[slot.number] = slot
        return slot

    def confirm(self, slot: ViewerSlot) -> TokenUsed:
        """Use the token of a reserved slot up: the viewer is admitted.

        Raises:
            Refusal: as for `check_running`.
        """
        with self._lock:
            self.check_running()
            grant = slot.grant
            self._reserved.discard(grant.jti)
            self._used.add(grant.jti, grant.expires_at)
        return TokenUsed(jti=grant.jti, expires_at=grant.expires_at)

    def release(self, slot: ViewerSlot) -> None:
        """Free a slot; the token of one that was not confirmed is usable again."""
        with self._lock:
            if self._slots.pop(slot.number, None) is not None:
                self._reserved.discard(slot.grant.jti)
                self._released_sent_bytes += slot.sent_bytes

    def end(self, close: Close) -> None:
        """Admit no more viewers, and close the stream of each."""
        with self._lock:
            self._state = State.ENDING
            self._close = self._close or close
            slots = list(self._slots.values())
        for slot in slots:
            slot.end(close)

    def end_some(self, numbers: Container[int], close: Close) -> None:
        """Close the streams of these slots; others are still admitted."""
        for slot in self.slots:
            if slot.number in numbers:
                slot.end(close)

    def is_used(self, jti: str) -> bool:
        """Whether a token was used."""
        return jti in self._used

    @property
    def slots(self) -> Sequence[ViewerSlot]:
        """The slots that are taken."""
        with self._lock:
            return list(self._slots.values())

    @property
    def sent_bytes(self) -> int:
        """How many bytes all viewers were sent, those that have left included."""
        with self._lock:
            return self._released_sent_bytes + sum(slot.sent_bytes for slot in self._slots.values())

    def check_running(self) -> None:
        """Check that viewers are admitted now.

        Raises:
            Refusal: 503 when this stream server is being restarted, 409 when the task does not run.
        """
        if self._close == DISPLAY_RESTARTING:
            raise display_unavailable()
        if self._state is not State.RUNNING:
            raise Refusal(HTTPStatus.CONFLICT, NOT_RUNNING)
