"""How many requests of each client are served at once."""

from __future__ import annotations

from worker.api.port.lanes import RUNNING_MAX, WAITING_MAX, Lanes, Waiting


class Requests:
    """Requests that note what becomes of them."""

    def __init__(self, lanes: Lanes, client: str) -> None:
        self.lanes, self.client = lanes, client
        self.started = self.refused = 0
        self.wanted = True

    def send(self, count: int) -> None:
        for _ in range(count):
            self.lanes.enter(self.client, Waiting(self._start, self._refuse))

    def end(self, count: int) -> None:
        for _ in range(count):
            self.lanes.leave(self.client)

    def _start(self) -> bool:
        self.started += self.wanted
        return self.wanted

    def _refuse(self) -> None:
        self.refused += 1


def test_one_client_does_not_delay_another() -> None:
    lanes = Lanes()
    flood, other = Requests(lanes, "flood"), Requests(lanes, "other")
    flood.send(RUNNING_MAX + WAITING_MAX + 5)
    assert (flood.started, flood.refused) == (RUNNING_MAX, 5)
    other.send(1)
    assert other.started == 1


def test_waiting_requests_follow() -> None:
    lanes = Lanes()
    requests = Requests(lanes, "a")
    requests.send(RUNNING_MAX + 3)
    requests.end(2)
    assert requests.started == RUNNING_MAX + 2
    requests.end(RUNNING_MAX + 1)
    assert requests.started == RUNNING_MAX + 3
    assert not lanes._lanes


def test_requests_of_closed_connections_are_passed_over() -> None:
    lanes = Lanes()
    requests = Requests(lanes, "a")
    requests.send(RUNNING_MAX + 9)
    requests.wanted = False
    requests.end(RUNNING_MAX)
    assert requests.started == RUNNING_MAX
    assert not lanes._lanes


def test_the_client_with_the_most_waiting_loses_one() -> None:
    lanes = Lanes()
    few, many = Requests(lanes, "few"), Requests(lanes, "many")
    few.send(RUNNING_MAX + 1)
    many.send(RUNNING_MAX + 3)
    assert lanes.shed()
    assert (few.refused, many.refused) == (0, 1)
    for _ in range(3):
        assert lanes.shed()
    assert not lanes.shed()
