"""Limits how many requests each client may send per second. Pure: the caller gives the time.

Each client has a rate of its own, and all clients share a total. When the total is short, those
that have sent the most are refused first: of the tokens that are kept for all, a client may use
only those above a reserve, which grows with what it has sent in the last minute.

    total   0                              half of the burst                        burst
            ├── a client's first request ────────────────────────────────────────────▶
            │          ├── a client that has sent a few ─────────────────────────────▶
            │                     ├── a client that has used its own rate for long ──▶

So clients that send more than an equal share of the total take nothing from those that send less,
whose reserve is smaller. A request takes constant time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

CLIENTS_MAX: Final = 4096
REMEMBERED_S: Final = 60.0  # after which a request counts for 1/e
_RESERVE_MAX: Final = 0.5  # of the burst of all clients, for the others than the busiest one
_STEEPNESS: Final = 16.0  # the first request of a client already makes about a quarter of it


class _Bucket:
    """A token bucket: it gains `per_s` tokens per second, up to `burst`."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens, self._at = burst, now

    def refill(self, per_s: float, burst: float, now: float) -> float:
        """Add what was gained since the last call; returns the tokens."""
        self._tokens = min(burst, self._tokens + (now - self._at) * per_s)
        self._at = now
        return self._tokens

    def take(self) -> None:
        self._tokens -= 1


class _Client(_Bucket):
    """A client's bucket, and how much it has sent in the last minute."""

    __slots__ = ("_sent", "_sent_at")

    def __init__(self, burst: float, now: float) -> None:
        super().__init__(burst, now)
        self._sent, self._sent_at = 0.0, now

    def sent(self, now: float) -> float:
        """How many of its requests were allowed, earlier ones counting for less."""
        self._sent *= math.exp(min(0.0, self._sent_at - now) / REMEMBERED_S)
        self._sent_at = now
        return self._sent

    def take(self) -> None:
        super().take()
        self._sent += 1


class Rates:
    """The rate of each client.

    The clients that have sent nothing for longest are forgotten, above `CLIENTS_MAX`. The total is
    limited all the same, and is then given to the first that come.
    """

    def __init__(self, *, per_s: float, burst: int, all_per_s: float, all_burst: int) -> None:
        """Set the limits.

        Args:
            per_s: requests of one client per second, in the long run.
            burst: requests of one client at once.
            all_per_s: requests of all clients per second, in the long run.
            all_burst: requests of all clients at once.
        """
        self._per_s, self._burst = per_s, burst
        self._all_per_s, self._all_burst = all_per_s, all_burst
        self._most_sent = burst + per_s * REMEMBERED_S
        self._all: _Bucket | None = None
        self._clients: OrderedDict[Hashable, _Client] = OrderedDict()

    def take(self, client: Hashable, now: float) -> bool:
        """Whether the client may send a request now, which is then counted.

        Args:
            client: any key.
            now: in seconds of a monotonic clock.
        """
        if self._all is None:
            self._all = _Bucket(self._all_burst, now)
        bucket = self._client(client, now)
        left = bucket.refill(self._per_s, self._burst, now)
        left_of_all = self._all.refill(self._all_per_s, self._all_burst, now)
        if left < 1 or left_of_all < 1 + self._reserve(bucket.sent(now)):
            return False
        bucket.take()
        self._all.take()
        return True

    def _client(self, client: Hashable, now: float) -> _Client:
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = _Client(self._burst, now)
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        return bucket

    def _reserve(self, sent: float) -> int:
        """The tokens of the total that are kept for clients that have sent less."""
        part = math.log1p(_STEEPNESS * sent) / math.log1p(_STEEPNESS * self._most_sent)
        return int(_RESERVE_MAX * (self._all_burst - 1) * min(1.0, part))
