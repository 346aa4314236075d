"""The rates at which clients may send requests."""

from __future__ import annotations

from worker.stream.port.rates import CLIENTS_MAX, Rates


def taken(rates: Rates, client: str, now: float, count: int) -> int:
    """How many of so many requests are allowed."""
    return sum(rates.take(client, now) for _ in range(count))


def test_burst_then_rate() -> None:
    rates = Rates(per_s=2, burst=5, all_per_s=100, all_burst=100)
    assert taken(rates, "a", 0, 10) == 5
    assert taken(rates, "a", 1, 10) == 2
    assert taken(rates, "a", 1000, 10) == 5


def test_clients_have_their_own_rates() -> None:
    rates = Rates(per_s=1, burst=3, all_per_s=100, all_burst=100)
    assert taken(rates, "a", 0, 10) == 3
    assert taken(rates, "b", 0, 10) == 3


def test_all_clients_together() -> None:
    """A refused request costs the client nothing of its own rate."""
    rates = Rates(per_s=1, burst=3, all_per_s=2, all_burst=4)
    assert sum(taken(rates, client, 0, 3) for client in "abc") == 4
    assert taken(rates, "c", 1, 3) == 2


def test_forgotten_clients() -> None:
    """The number of clients that are remembered is limited; the total is limited all the same."""
    rates = Rates(per_s=1, burst=1, all_per_s=1, all_burst=CLIENTS_MAX + 1)
    for number in range(CLIENTS_MAX + 1):
        assert rates.take(number, 0)
    assert len(rates._clients) == CLIENTS_MAX
    assert not rates.take(0, 0)
