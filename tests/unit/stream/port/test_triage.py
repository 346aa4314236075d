"""How requests are sorted by their heads."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stream import tokens
from worker.stream.port.rates import Rates
from worker.stream.port.triage import Kind, RequestLimits, Triage
from worker.trusted_proxies import TrustedProxies

KEY = tokens.random_key()
TASK = "a-task"
PEER = "192.0.2.1"
PROXY = "10.0.0.7"


class Used(set[str]):
    """The tokens that were used, as Admission has them."""

    def is_used(self, jti: str) -> bool:
        return jti in self


def triage(used: Used | None = None, limits: RequestLimits | None = None) -> Triage:
    """A triage; by default with limits of two requests each."""
    service = SimpleNamespace(
        config=SimpleNamespace(task_id=TASK, key_hex=KEY.hex()),
        admission=used or Used(),
        proxies=TrustedProxies([PROXY]),
    )
    two = {"per_s": 0.0, "burst": 2, "all_per_s": 0.0, "all_burst": 9}
    limits = limits or RequestLimits(
        pages=Rates(**two),
        streams=Rates(**two),
        per_token=Rates(**two),
        metrics=Rates(**two),
    )
    return Triage(service, limits)


def head(target: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{method} {target} {version}", *headers, "", ""]).encode("latin-1")


def stream(token: str) -> str:
    return f"/tasks/{TASK}/websockify?token={token}"


@pytest.mark.parametrize(
    ("request_head", "kind"),
    [
        (head("/healthz"), Kind.PROBE),
        (head("/readyz?x=1", method="HEAD"), Kind.PROBE),
        (head("http://worker:6080/healthz"), Kind.PROBE),
        (head("/healthz", method="POST"), Kind.OTHER),
        (head("/healthz", version="HTTP/2.0"), Kind.OTHER),
        (head("/healthz/"), Kind.OTHER),
        (head("/%68ealthz"), Kind.OTHER),
        (head("/metrics"), Kind.METRICS),
        (head("/"), Kind.OTHER),
        (head("*", method="OPTIONS"), Kind.OTHER),
        (head(stream("a.b.c")), Kind.OTHER),
        (head(stream("")), Kind.OTHER),
        (b"\r\n\r\n", Kind.OTHER),
        (b"\xff", Kind.OTHER),
    ],
)
def test_kinds(request_head: bytes, kind: Kind) -> None:
    assert triage().read(request_head, PEER, 0.0).kind is kind


def test_valid_token() -> None:
    assert triage().read(head(stream(tokens.mint(KEY, TASK))), PEER, 0.0).kind is Kind.VIEWER


@pytest.mark.parametrize(
    "token",
    [
        tokens.mint(KEY, "another-task"),
        tokens.mint(tokens.random_key(), TASK),
        tokens.mint(KEY, TASK, ttl_s=-1),
        tokens.mint(KEY, TASK)[:-1],
        "." + tokens.mint(KEY, TASK),
        "x" * 10_000,
    ],
)
def test_invalid_token(token: str) -> None:
    assert triage().read(head(stream(token)), PEER, 0.0).kind is Kind.OTHER


def test_used_token() -> None:
    token = tokens.mint(KEY, TASK)
    used = Used({tokens.verify(token, KEY, TASK).jti})
    assert triage(used).read(head(stream(token)), PEER, 0.0).kind is Kind.OTHER


def test_token_that_is_sent_often() -> None:
    """A token of which a viewer makes no use has no precedence for long."""
    sort, now = triage(), time.monotonic()
    kinds = [sort.read(head(stream(tokens.mint(KEY, TASK))), PEER, now).kind for _ in range(3)]
    assert kinds == [Kind.VIEWER] * 3
    token = stream(tokens.mint(KEY, TASK))
    kinds = [sort.read(head(token), PEER, now).kind for _ in range(3)]
    assert kinds == [Kind.VIEWER, Kind.VIEWER, Kind.OTHER]


def test_others_share_a_rate_and_viewers_do_not() -> None:
    sort = triage()
    bad = sort.read(head(stream("bad")), PEER, 0.0)
    assert [sort.allows(bad, 0.0) for _ in range(3)] == [True, True, False]
    assert sort.allows(sort.read(head("/page/debug-page.js"), PEER, 0.0), 0.0)
    assert sort.allows(sort.read(head(stream("bad")), "192.0.2.2", 0.0), 0.0)
    viewer = sort.read(head(stream(tokens.mint(KEY, TASK))), PEER, 0.0)
    assert all(sort.allows(viewer, 0.0) for _ in range(9))
    probe = sort.read(head("/healthz"), PEER, 0.0)
    assert all(sort.allows(probe, 0.0) for _ in range(9))


@pytest.mark.parametrize("addresses", [12, 256])
@pytest.mark.parametrize("target", ["/", "/tasks/x/websockify?token=bad", "/nothing", "/metrics"])
def test_flood_from_some_addresses_refuses_no_other(target: str, addresses: int) -> None:
    """The first requests of all others are allowed, and every viewer with a valid token."""
    sort = triage(limits=RequestLimits.default())
    request, viewer = head(target), head(stream(tokens.mint(KEY, TASK)))
    for number in range(6000):
        now = number / 1000
        sort.allows(sort.read(request, f"192.0.2.{number % addresses}", now), now)
        if now % 2 == 1:
            assert sort.allows(sort.read(request, f"198.51.100.{now:g}", now), now)
            assert sort.read(viewer, "192.0.2.1", now).kind is Kind.VIEWER


def test_tokens_that_are_sent_often_limit_no_other() -> None:
    """The total of all valid tokens is shared as well."""
    sort = triage(limits=RequestLimits.default())
    often = [head(stream(tokens.mint(KEY, TASK))) for _ in range(40)]
    for number in range(5000):
        sort.read(often[number % len(often)], PEER, number / 1000)
    viewer = head(stream(tokens.mint(KEY, TASK)))
    assert sort.read(viewer, "192.0.2.2", 5.0).kind is Kind.VIEWER


def test_clients_behind_a_trusted_proxy_are_told_apart() -> None:
    sort = triage()
    assert sort.read(head("/", "x-forwarded-for: 6.6.6.6, 203.0.113.9"), PROXY, 0.0).address == (
        "203.0.113.9"
    )
    assert sort.read(head("/", "X-Forwarded-For: 203.0.113.9"), PEER, 0.0).address == PEER


@given(st.binary(max_size=300))
def test_no_head_raises(data: bytes) -> None:
    sort = triage()
    for text in (data, b"GET /x?token=" + data + b" HTTP/1.1\r\nX-Forwarded-For:" + data):
        assert sort.read(text, PROXY, 0.0).address
