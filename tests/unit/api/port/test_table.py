"""The number of open connections."""

from __future__ import annotations

import pytest

from worker.api.port.table import STALLED_MAX, ConnectionTable, Use


class Entry:
    """A connection."""

    def __init__(self, owner: str | None, use: Use = Use.INCOMPLETE) -> None:
        self.owner, self.use = owner, use
        self.evicted = self.aborted = False

    def evict(self) -> None:
        self.evicted = True

    def abort(self) -> None:
        self.aborted = True

    def check(self, now: float) -> None:
        pass


def added(table: ConnectionTable, *entries: Entry) -> list[bool]:
    return [table.add(entry) for entry in entries]


def nothing_waits() -> bool:
    return False


def test_oldest_idle_connection_of_an_address_makes_room() -> None:
    table = ConnectionTable(nothing_waits, 8)
    busy, *idle = [Entry("a", Use.BUSY), Entry("a"), Entry("a"), Entry("a")]
    other = Entry("b")
    assert added(table, busy, *idle, other, Entry("a")) == [True] * 6
    assert not busy.evicted
    assert idle[0].evicted
    assert not other.evicted


def test_connections_of_less_use_make_room_first() -> None:
    table = ConnectionTable(nothing_waits, 8)
    uses = (Use.IDLE_ACCOUNT, Use.BUSY, Use.IDLE, Use.INCOMPLETE)
    entries = [Entry("a", use) for use in uses]
    added(table, *entries, *(Entry("a", Use.BUSY) for _ in range(3)))
    assert [entry.use for entry in entries if not entry.evicted] == [Use.BUSY]
    assert not table.add(Entry("a"))


def test_address_without_an_idle_connection_gets_no_more() -> None:
    table = ConnectionTable(nothing_waits, 8)
    entries = [Entry("a", Use.BUSY) for _ in range(5)]
    assert added(table, *entries) == [True] * 4 + [False]
    assert table.add(Entry("b"))
    table.remove(entries[0])
    table.remove(entries[4])
    assert table.add(Entry("a"))


def test_in_a_full_table_the_address_with_the_most_makes_room() -> None:
    table = ConnectionTable(nothing_waits, 8)
    entries = [Entry(owner) for owner in "abbbcccc"]
    added(table, *entries)
    assert table.add(Entry("d"))
    assert [entry.owner for entry in entries if entry.evicted] == ["c"]
    assert entries[4].evicted


@pytest.mark.parametrize("use", [Use.INCOMPLETE, Use.IDLE, Use.SENDING])
@pytest.mark.parametrize("addresses", [2, 12, 100])
def test_a_client_with_few_connections_keeps_them(addresses: int, use: Use) -> None:
    """For each use of the connections of larger clients; a new client always gets one."""
    table = ConnectionTable(nothing_waits, 256)
    for number in range(1000):
        table.add(Entry(f"flood {number % addresses}", use))
    one, two = Entry("one"), Entry("two")
    assert added(table, one, two) == [True, True]
    for number in range(1000):
        table.add(Entry(f"flood {number % addresses}", use))
    assert not one.evicted
    assert not two.evicted
    assert len(table) <= 256


def test_busy_clients_with_many_connections_get_no_more() -> None:
    """They take none from a client with few, and it gets another one."""
    table = ConnectionTable(nothing_waits, 8)
    one, two = Entry("one"), Entry("two", Use.IDLE)
    busy = [Entry(owner, Use.BUSY) for owner in "aaabbb"]
    assert added(table, one, two, *busy, Entry("a")) == [True] * 8 + [False]
    assert not one.evicted
    assert not two.evicted
    assert table.add(Entry("three"))


def test_a_waiting_request_makes_room() -> None:
    waiting = [1]
    table = ConnectionTable(lambda: bool(waiting) and bool(waiting.pop()), 2)
    busy = [Entry(owner, Use.BUSY) for owner in "abcd"]
    assert added(table, *busy) == [True, True, True, False]


def test_a_trusted_proxy_may_use_all() -> None:
    table = ConnectionTable(nothing_waits, 4)
    assert all(added(table, *(Entry(None, Use.BUSY) for _ in range(4))))


def test_stalled_connections() -> None:
    """Of too many, the client with the most loses the one that has waited for longest."""
    table = ConnectionTable(nothing_waits, 4 * STALLED_MAX)
    one = Entry("a")
    many = [Entry("b") for _ in range(STALLED_MAX)]
    added(table, one, *many)
    for entry in (one, *many[:-1]):
        table.stalled(entry)
    table.resumed(many[0])
    table.stalled(many[-1])
    assert not any(entry.aborted for entry in (one, *many))
    table.stalled(many[0])
    assert [entry for entry in (one, *many) if entry.aborted] == [many[1]]
