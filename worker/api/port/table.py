"""The open connections of the API's port: of limited number, in total and per address."""

from __future__ import annotations

import resource
from collections import Counter
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS_MAX: Final = 512
STALLED_MAX: Final = 64
_FEW_PARTS: Final = 32  # of the limit: so many connections of a client are few
_RESERVED_DESCRIPTORS: Final = 128  # for everything else that the API opens


class Use(IntEnum):
    """What a connection is used for; the first ones make room for others first."""

    INCOMPLETE = auto()
    """A request has not arrived, or is refused."""
    IDLE = auto()
    """It waits for another request."""
    IDLE_ACCOUNT = auto()
    """The same, after one with a valid key."""
    SENDING = auto()
    """The client has not read an answer, to a request without a valid key."""
    BUSY = auto()
    """A request is served."""


class Entry(Protocol):
    """A connection, for the table.

    Attributes:
        owner: the client by which it is counted; None for a trusted proxy's, which are those of
            many clients.
        use: what it is used for.
    """

    @property
    def owner(self) -> str | None: ...

    @property
    def use(self) -> Use: ...

    def evict(self) -> None:
        """Close, without waiting for the peer, to make room; it is in the table no more."""

    def abort(self) -> None:
        """Close at once."""

    def check(self, now: float) -> None:
        """Enforce the deadlines; called every second with the time of the port's clock."""


class ConnectionTable:
    """The open connections, oldest first."""

    def __init__(self, shed: Callable[[], bool], limit: int | None = None) -> None:
        """Limit the connections.

        Args:
            shed: refuses a request that waits; False if none does.
            limit: in total; half as many per address. Default: by the limit on descriptors.
        """
        self._shed = shed
        self._limit = limit or _default_limit()
        # Several at once: the search for one takes longer than an answer.
        self._evicted_at_once = max(1, self._limit // 64)
        self._entries: dict[Entry, None] = {}  # in the order of their insertion
        self._stalled: dict[Entry, None] = {}
        self._by_owner: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    def all(self) -> list[Entry]:
        """The connections, oldest first."""
        return list(self._entries)

    def add(self, entry: Entry) -> bool:
        """Add a connection; False if there is no room for it.

        Room is made by the connections of the least use, the oldest ones of the client with the
        most of them, or, if all are busy, by a request that waits. A client that has few, and no
        more than an equal share, loses none while others can lose some.
        """
        owner = entry.owner
        if owner is not None and self._by_owner[owner] >= self._limit // 2:
            own = [each for each in self._entries if each.owner == owner]
            room = self._evict(own) or self._shed()
        elif len(self._entries) >= self._limit:
            room = self._make_room(is_large=self._is_large(owner))
        else:
            room = True
        if room:
            self._entries[entry] = None
            self._by_owner[owner] += 1
        return room

    def remove(self, entry: Entry) -> None:
        """Remove a connection that was added, or was not."""
        self._stalled.pop(entry, None)
        if entry in self._entries:
            del self._entries[entry]
            self._by_owner[entry.owner] -= 1
            if not self._by_owner[entry.owner]:
                del self._by_owner[entry.owner]

    def stalled(self, entry: Entry) -> None:
        """A large part of an answer waits to be sent; of too many, one is aborted.

        It is the one that has waited for longest, of the client with the most of them.
        """
        self._stalled[entry] = None
        if len(self._stalled) > STALLED_MAX:
            longest = _oldest_of_the_largest(list(self._stalled))[0]
            del self._stalled[longest]
            longest.abort()

    def resumed(self, entry: Entry) -> None:
        """A connection is stalled no more."""
        self._stalled.pop(entry, None)

    def _is_large(self, owner: str | None) -> bool:
        """Whether a client has many connections, or more than an equal share of them."""
        equal = len(self._entries) // max(1, len(self._by_owner))
        return self._by_owner[owner] > min(equal, max(1, self._limit // _FEW_PARTS))

    def _make_room(self, *, is_large: bool) -> bool:
        """Make room for a client; only for one that is not large, by those of such clients."""
        large = {owner for owner in self._by_owner if self._is_large(owner)}
        if large:
            of_large = [entry for entry in self._entries if entry.owner in large]
            if self._evict(of_large) or self._shed():
                return True
            if is_large:
                return False
        return self._evict(list(self._entries)) or self._shed()

    def _evict(self, entries: list[Entry]) -> bool:
        """Evict some of these connections; False if all are busy."""
        by_use: dict[Use, list[Entry]] = {}
        for entry in entries:
            by_use.setdefault(entry.use, []).append(entry)
        least = min(by_use, default=Use.BUSY)
        if least is Use.BUSY:
            return False
        for entry in _oldest_of_the_largest(by_use[least])[: self._evicted_at_once]:
            self.remove(entry)
            entry.evict()
        return True


def _oldest_of_the_largest(entries: list[Entry]) -> list[Entry]:
    """The entries, oldest first, of the client that has the most of these."""
    [(owner, _)] = Counter(entry.owner for entry in entries).most_common(1)
    return [entry for entry in entries if entry.owner == owner]


def _default_limit() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(16, min(CONNECTIONS_MAX, (descriptors - _RESERVED_DESCRIPTORS) // 2))
