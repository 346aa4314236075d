"""Limits how many requests each client may send per second. Pure: the caller gives the time."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

CLIENTS_MAX: Final = 1024


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


class Rates:
    """The rate of each client.

    The clients that have sent nothing for longest are forgotten; with the limit for all clients
    together, a client does not gain from being forgotten.
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
        self._all: _Bucket | None = None
        self._clients: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, client: Hashable, now: float) -> bool:
        """Whether the client may send a request now, which is then counted.

        Args:
            client: any key.
            now: in seconds of a monotonic clock.
        """
        if self._all is None:
            self._all = _Bucket(self._all_burst, now)
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = _Bucket(self._burst, now)
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        left = bucket.refill(self._per_s, self._burst, now)
        if min(left, self._all.refill(self._all_per_s, self._all_burst, now)) < 1:
            return False
        bucket.take()
        self._all.take()
        return True
