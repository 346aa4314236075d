"""The API's port: what its connections share."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.api.port.lanes import Lanes
from worker.api.port.probe_answers import ProbeAnswers
from worker.api.port.table import ConnectionTable
from worker.api.port.triage import Triage
from worker.attended.clock import AttendedClock
from worker.stream.acceptor import HEAD_TIMEOUT_S
from worker.stream.limits.pace import STALLED_S
from worker.stream.port.refusal_log import RefusalLog
from worker.trusted_proxies import client_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http import HTTPStatus

    from worker.api.accounts import Accounts
    from worker.api.port.table import Entry
    from worker.trusted_proxies import TrustedProxies

_SWEEP_S: Final = 1.0  # deadlines of seconds are met within this time
_CHECKED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PortLimits:
    """The limits of one connection and of all.

    Attributes:
        connections_max: in total, half as many per address. Default: by the limit on descriptors.
        head_timeout_s: for a request's line and headers to arrive.
        body_timeout_s: for its body to arrive.
        stalled_s: in which a client has to read a part of its answer.
    """

    connections_max: int | None = None
    head_timeout_s: float = HEAD_TIMEOUT_S
    body_timeout_s: float = 20.0
    stalled_s: float = STALLED_S


_DEFAULT: Final = PortLimits()


class Port:
    """Limits the connections, and enforces their deadlines. Used in one event loop.

    Attributes:
        limits: of connections.
        clock: for their deadlines; it leaves out the time in which this process did not run.
        triage, lanes, table, probes: see their classes.
    """

    def __init__(
        self,
        accounts: Accounts,
        proxies: TrustedProxies,
        *,
        count_refused: Callable[[HTTPStatus], None],
        report_refused: Callable[[str, HTTPStatus, int], None],
        limits: PortLimits = _DEFAULT,
    ) -> None:
        """Set the limits.

        Args:
            accounts: whose requests have precedence.
            proxies: whose X-Forwarded-For headers are trusted.
            count_refused: called with the status of each request that is refused here.
            report_refused: called with the address, the status and the number of such requests, at
                most once per second and status.
            limits: of connections.
        """
        self._loop = asyncio.get_running_loop()
        self._proxies = proxies
        self._count_refused = count_refused
        self._refusals = RefusalLog(report_refused)
        self._sweeps = False
        self.limits = limits
        self.clock = AttendedClock(self._loop.time)
        self.triage = Triage(accounts, proxies)
        self.lanes = Lanes()
        self.table = ConnectionTable(self.lanes.shed, limits.connections_max)
        self.probes = ProbeAnswers(self._loop.time)

    def opened(self, connection: Entry) -> bool:
        """Add a connection; False if there is no room for it."""
        if not self._sweeps:
            self._sweeps = True
            self._loop.call_later(_SWEEP_S, self._sweep)
        return self.table.add(connection)

    def owner_of(self, peer: str) -> str | None:
        """The client by which a peer's connections are counted; None for a trusted proxy."""
        return None if self._proxies.trusts(peer) else client_of(peer)

    def refused(self, address: str, status: HTTPStatus) -> None:
        """Count and report a request that was refused here."""
        self._count_refused(status)
        self._refusals.add(address, status, self._loop.time())

    def _sweep(self) -> None:
        self._check(iter(self.table.all()))

    def _check(self, unchecked: Iterator[Entry]) -> None:
        """Check a few connections; between them and the next ones, others are served."""
        attended = self.clock()
        several = list(itertools.islice(unchecked, _CHECKED_AT_ONCE))
        for connection in several:
            if connection in self.table:  # it may have been closed meanwhile
                connection.check(attended)
        if several:
            self._loop.call_soon(self._check, unchecked)
            return
        now = self._loop.time()
        self._refusals.flush(now)
        self._sweeps = len(self.table) > 0
        if self._sweeps:
            self._loop.call_later(_SWEEP_S, self._sweep)
        else:
            self._refusals.flush(now, everything=True)
