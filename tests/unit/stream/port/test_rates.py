"""The rates at which clients may send requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from fakes import FakeAccounts

from worker.api.port.triage import Triage
from worker.stream.port.rates import CLIENTS_MAX, Rates
from worker.stream.port.triage import RequestLimits
from worker.trusted_proxies import TrustedProxies

FLOOD_PER_S = 500
FLOOD_S = 90
RARE_EVERY_S = 15  # as Prometheus asks for metrics


def all_rates() -> Iterator[tuple[str, Rates]]:
    """Every rate of both ports."""
    limits = RequestLimits.default()
    for field in dataclasses.fields(limits):
        yield f"stream {field.name}", getattr(limits, field.name)
    for name, value in vars(Triage(FakeAccounts({}), TrustedProxies([]))).items():
        if isinstance(value, Rates):
            yield f"API {name.lstrip('_')}", value


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


@pytest.mark.parametrize("clients", [1, 12, 256])
@pytest.mark.parametrize("name", [name for name, _ in all_rates()])
def test_flood_of_some_clients_refuses_no_rare_request(name: str, clients: int) -> None:
    """Requests of a client that sends few are allowed, also if others send many."""
    rates = dict(all_rates())[name]
    asked: list[bool] = []
    flooded = 0
    for number in range(FLOOD_PER_S * FLOOD_S):
        flooded += rates.take(number % clients, number / FLOOD_PER_S)
        if number % (FLOOD_PER_S * RARE_EVERY_S) == FLOOD_PER_S:
            asked.append(rates.take("rare", number / FLOOD_PER_S))
    assert all(asked)
    assert flooded <= rates._all_burst + rates._all_per_s * FLOOD_S


@pytest.mark.parametrize("clients", [12, 256])
def test_total_is_shared_equally(clients: int) -> None:
    """A client that sends a hundred times as much as another one gets the same part."""
    rates = Rates(per_s=20, burst=100, all_per_s=10, all_burst=200)
    greedy = modest = 0
    for number in range(100 * FLOOD_S):
        now = number / 100
        greedy += sum(rates.take(("greedy", each), now) for each in range(0, clients, 8))
        if number % 10 == 0:
            modest += rates.take(("modest", 1), now)
    part = greedy / len(range(0, clients, 8))
    assert modest >= 0.8 * min(part, FLOOD_S * 10)


def test_a_client_alone_has_its_own_rate() -> None:
    """As all clients have together behind a proxy that is not trusted."""
    for _, rates in all_rates():
        assert taken(rates, "proxy", 0, 2 * rates._burst) == rates._burst
        each_s = [taken(rates, "proxy", now, 2 * rates._per_s) for now in range(1, FLOOD_S)]
        assert each_s == [rates._per_s] * len(each_s)


def test_more_clients_than_are_remembered() -> None:
    """The total stays limited, and is not used up for long."""
    rates = Rates(per_s=20, burst=100, all_per_s=100, all_burst=400)
    flood = range(3 * CLIENTS_MAX)
    assert sum(rates.take(number, 0) for number in flood) == 400
    assert len(rates._clients) == CLIENTS_MAX
    assert sum(rates.take(number, 1) for number in flood) == 100
    assert taken(rates, "rare", 2, 1) == 1
