"""Sorts requests by their heads, before they are served.

Requests with a valid API key are limited by account, and those without by address and rate, in two
groups: pages, and everything else. So a flood of invalid requests delays no valid one, even from
the same address. Probes are always answered.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from worker.api.authentication import PROTECTED_PREFIX
from worker.stream.port.rates import Rates
from worker.trusted_proxies import client_of

if TYPE_CHECKING:
    from worker.api.accounts import Accounts
    from worker.trusted_proxies import TrustedProxies

    Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

PROBE_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_PAGE_PREFIXES: Final = ("/page/", "/live/", "/novnc/", "/docs")
_PAGE_PATHS: Final = frozenset({"/", "/openapi.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """A request as sorted.

    Attributes:
        client: whose requests are served a few at a time.
        address: of the client, behind trusted proxies.
        allowed: whether the rate of such requests allows this one.
        has_key: whether it has a valid API key.
        probe: whether it is a probe.
    """

    client: Hashable
    address: str
    allowed: bool
    has_key: bool = False
    probe: bool = False


class Triage:
    """Sorts the requests to the API."""

    def __init__(self, accounts: Accounts, proxies: TrustedProxies) -> None:
        self._accounts = accounts
        self._proxies = proxies
        # A dashboard with its live view loads about 80 files.
        self._pages = Rates(per_s=20, burst=400, all_per_s=100, all_burst=1600)
        self._others = Rates(per_s=20, burst=100, all_per_s=100, all_burst=400)
        self._accounts_rate = Rates(per_s=200, burst=3000, all_per_s=2000, all_burst=30_000)
        self._probes = Rates(per_s=20, burst=50, all_per_s=50, all_burst=300)

    def sort(self, method: str, path: str, headers: Headers, *, peer: str, now: float) -> Sorted:
        """Sort a request.

        Args:
            method: in capitals.
            path: percent-decoded.
            headers: with names in lower case.
            peer: the address of the connection.
            now: in seconds of a monotonic clock.
        """
        address = self._address(headers, peer)
        limited = client_of(address)
        if path in PROBE_PATHS and method == "GET":
            allowed = self._probes.take(limited, now)
            return Sorted(client=("probe", limited), address=address, allowed=allowed, probe=True)
        if path.startswith(PROTECTED_PREFIX) and method != "OPTIONS":
            key = dict(headers).get(b"x-api-key", b"").decode("latin-1")
            account = self._accounts.authenticate(key) if key else None
            if account is not None:
                return Sorted(
                    client=("account", account.name),
                    address=address,
                    allowed=self._accounts_rate.take(account.name, now),
                    has_key=True,
                )
            rates = self._others
        else:
            rates = self._pages if _is_page(path) else self._others
        allowed = rates.take(limited, now)
        return Sorted(client=("address", limited), address=address, allowed=allowed)

    def _address(self, headers: Headers, peer: str) -> str:
        if not self._proxies.trusts(peer):
            return peer
        forwarded = [
            value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"
        ]
        return self._proxies.viewer(peer, forwarded)


def _is_page(path: str) -> bool:
    return path in _PAGE_PATHS or path.startswith((*_PAGE_PREFIXES, PROTECTED_PREFIX))
