"""A cache of what can be read from the engine again, with a limit of entries and of bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 32 << 20

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps the newest entries within both limits."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size_bytes = 0

    def get(self, key: K) -> V | None:
        """The entry's value; None if there is none."""
        found = self._entries.get(key)
        return None if found is None else found[0]

    def add(self, key: K, value: V, *, size_bytes: int) -> None:
        """Add or replace an entry; the oldest ones are removed where a limit requires it."""
        self.remove(key)
        self._entries[key] = (value, size_bytes)
        self._size_bytes += size_bytes
        while len(self._entries) > self._entries_max or self._size_bytes > self._bytes_max:
            self.remove(next(iter(self._entries)))

    def remove(self, key: K) -> None:
        """Remove an entry, if it exists."""
        _, size_bytes = self._entries.pop(key, (None, 0))
        self._size_bytes -= size_bytes
