"""What the requests of one stream server share: configuration, admission, counters, the session."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker.stream.admission import Admission, UsedTokens
from worker.stream.limits.shares import Shares
from worker.stream.messages import DisplayChanged, Facts, State
from worker.stream.metrics.counters import Counters, Snapshot
from worker.stream.refusals import display_unavailable
from worker.stream.token_plugin import StreamTokenPlugin
from worker.stream.tokens import Role, mint, stream_url
from worker.trusted_proxies import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.stream.admission import ViewerSlot
    from worker.stream.messages import Configure
    from worker.stream.metrics.exposition import Exposition
    from worker.stream.session_channel import SessionChannel

DISPLAY_TIMEOUT_S: Final = 5.0  # for x11vnc to be started and resumed for a viewer


class StreamService:
    """Used by every request's thread and by the main thread.

    Attributes:
        display: the state of the viewers' x11vnc.
        facts: what the session reports for `/metrics`.
        shares: how the time of the viewers' x11vnc is shared among them.
        on_reserve: called by a request's thread when it has reserved a viewer slot.
        on_release: called when a viewer slot was freed.
    """

    def __init__(self, configure: Configure, session: SessionChannel) -> None:
        config = configure.config
        self.config = config
        self.session = session
        self.admission = Admission(
            max_viewers=config.max_viewers,
            state=configure.state,
            used=UsedTokens(configure.used_tokens),
        )
        self.token_plugin = StreamTokenPlugin(
            config.task_id,
            bytes.fromhex(config.key_hex),
            {Role.VIEW: config.x11vnc_socket, Role.CONTROL: config.x11vnc_control_socket},
        )
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.counters = Counters()
        self.shares = Shares()
        self.display = DisplayChanged(up=True, settled=False)
        self.facts = Facts(stages_ms={}, restarts={}, pids={})
        self.on_reserve: Callable[[], None] = lambda: None
        self.on_release: Callable[[], None] = lambda: None
        self._exposition: Exposition | None = None
        self._exposition_lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether viewers can connect now."""
        return self.admission.state is State.RUNNING and self.display.up

    # -- viewers

    def request_display(self, slot: ViewerSlot) -> None:
        """Return when the viewer may connect to x11vnc.

        A settled x11vnc is resumed while the viewer connects, which saves it a round trip.

        Raises:
            Refusal: 409 when the task has ended, 503 when x11vnc or this server is restarted.
        """
        if slot.role is Role.VIEW and self.display.up and self.display.settled:
            self.session.announce_viewer(slot)
            return
        if self.session.request_display(slot, DISPLAY_TIMEOUT_S):
            return
        self.admission.check_running()
        raise display_unavailable()

    def confirm(self, slot: ViewerSlot) -> None:
        """Admit the viewer for good: its token is used up.

        Raises:
            Refusal: 409 when the task has ended, 503 when this server is restarted.
        """
        self.session.send(self.admission.confirm(slot))
        self.counters.admitted(str(slot.role))

    def release(self, slot: ViewerSlot) -> None:
        """The viewer has left, or was refused after it had reserved its slot."""
        self.session.release_display(slot)  # before the next controller can request it
        self.admission.release(slot)
        self.on_release()

    def refused(self, address: str, status: int, role: Role | None = None) -> None:
        """Count and report a refused request; `role` is that of its token, if it is valid."""
        self.counters.refused(status)
        known = {} if role is None else {"role": str(role)}
        self.session.emit("viewer.refused", address=address, **known, status=status)

    def report_refused(self, address: str, status: int, count: int) -> None:
        """Report requests that were refused, and counted, before they were served."""
        several = {} if count == 1 else {"count": count}
        self.session.emit("viewer.refused", address=address, status=int(status), **several)

    # -- probes

    def probe(self, path: str) -> tuple[HTTPStatus, Mapping[str, object]]:
        """The status and body of the answer to `/healthz` or `/readyz`."""
        if path == "/healthz":
            return HTTPStatus.OK, {"status": "ok"}
        status = HTTPStatus.OK if self.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return status, {"ready": self.ready, "state": str(self.admission.state)}

    # -- the debug page and metrics

    def debug_stream_url(self, host: str, role: Role) -> str | None:
        """A new stream URL for the debug page; None while the task is not running."""
        if self.admission.state is not State.RUNNING:
            return None
        token = mint(bytes.fromhex(self.config.key_hex), self.config.task_id, role)
        return stream_url(f"ws://{host}", self.config.task_id, token)

    def debug_state(self) -> dict[str, Any]:
        """What the debug page's header shows."""
        roles = [slot.role for slot in self.admission.slots]
        return {
            "task_id": self.config.task_id,
            "target": self.config.target,
            "state": str(self.admission.state),
            "started_at": self.config.started_at,
            "controller": Role.CONTROL in roles,
            "viewers": len(roles),
        }

    def metrics(self) -> tuple[bytes, str]:
        """The metrics as Prometheus text, and its media type."""
        # Imported on first use: 20 ms and 2 MB that a viewer's start need not wait for.
        from worker.stream.metrics import exposition  # noqa: PLC0415

        with self._exposition_lock:
            if self._exposition is None:
                self._exposition = exposition.Exposition(self._snapshot)
        return self._exposition.text(), exposition.MEDIA_TYPE

    def _snapshot(self) -> Snapshot:
        roles = [str(slot.role) for slot in self.admission.slots]
        return self.counters.snapshot(
            state=str(self.admission.state),
            viewers={role: roles.count(role) for role in roles},
            sent_bytes=self.admission.sent_bytes,
            facts=self.facts,
        )
