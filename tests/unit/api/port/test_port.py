"""What the connections of the API's port share."""

from __future__ import annotations

import asyncio

from worker.api.port.port import Port
from worker.api.port.table import Use
from worker.trusted_proxies import TrustedProxies


class Connection:
    """Has been idle for so long that it is closed when it is checked."""

    owner = None
    use = Use.INCOMPLETE

    def __init__(self, port, checked):
        self._port, self._checked = port, checked

    def check(self, _now):
        self._checked.append(self)
        self._port.table.remove(self)


async def test_many_connections_are_checked_a_few_at_a_time():
    """Others are served meanwhile; one that is closed before its turn is not checked."""
    port = Port(
        None, TrustedProxies(()), count_refused=lambda _: None, report_refused=lambda *_: None
    )
    checked: list[Connection] = []
    connections = [Connection(port, checked) for _ in range(50)]
    for each in connections:
        assert port.opened(each)
    port._sweep()
    assert 0 < len(checked) < 10
    port.table.remove(connections[-1])
    turns = 0
    while len(port.table):
        turns += 1
        await asyncio.sleep(0)
    assert checked == connections[:-1]
    assert turns > 5
