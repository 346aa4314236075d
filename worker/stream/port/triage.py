"""Sorts requests by their heads, before a thread is started for one.

A flood of requests must not delay the others, which may come from the same address. So each
request is sorted by what it shows: probes are answered at once; a viewer with a valid token has its
own capacity; everything else shares a capacity and a rate, per client and in total.

This only decides whether a request is served, and how soon. The request handler parses the head
again and checks everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from worker.stream import tokens
from worker.stream.port.rates import Rates
from worker.trusted_proxies import client_of

if TYPE_CHECKING:
    from worker.stream.service import StreamService

_REQUEST: Final = re.compile(
    rb"(?P<method>GET|HEAD) (?:http://[^/?# ]*)?"  # the absolute form is for proxies, and allowed
    rb"(?P<path>/[^?# ]*)(?:\?(?P<query>[^# ]*))? HTTP/1\.[01]\r?\n"
)
_TOKEN: Final = re.compile(rb"(?:^|&)token=(?P<token>[A-Za-z0-9._-]+)")
_FORWARDED: Final = re.compile(rb"\nX-Forwarded-For[ \t]*:([^\r\n]*)", re.IGNORECASE)

ANSWERED_PATHS: Final = frozenset({"/healthz", "/readyz"})
_METRICS_PATH: Final = "/metrics"


class Kind(Enum):
    """What a request shows before it is served."""

    PROBE = auto()
    METRICS = auto()
    VIEWER = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as sorted.

    Attributes:
        kind: what it shows.
        address: of the client, behind trusted proxies.
        path: as sent; "" if the request line is not one that is served.
        head_only: whether the method is HEAD.
    """

    kind: Kind
    address: str
    path: str = ""
    head_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Limits on requests that show no valid token, on those that use one token, and on metrics.

    A page of noVNC loads about 70 files. The same token is sent again by a viewer that was refused.
    """

    pages: Rates
    streams: Rates
    per_token: Rates
    metrics: Rates

    @classmethod
    def default(cls) -> RequestLimits:
        """The documented limits."""
        return cls(
            pages=Rates(per_s=50, burst=300, all_per_s=200, all_burst=1200),
            streams=Rates(per_s=50, burst=100, all_per_s=200, all_burst=400),
            per_token=Rates(per_s=10, burst=64, all_per_s=200, all_burst=400),
            metrics=Rates(per_s=5, burst=20, all_per_s=50, all_burst=200),
        )


class Triage:
    """Sorts the requests of one stream server."""

    def __init__(self, service: StreamService, limits: RequestLimits) -> None:
        self._service = service
        self._limits = limits
        self._key = bytes.fromhex(service.config.key_hex)

    def read(self, head: bytes, peer: str, now: float) -> Request:
        """Sort a request.

        Args:
            head: everything up to the empty line.
            peer: the address of the connection.
            now: in seconds of a monotonic clock.
        """
        address = self._address(head, peer)
        line = _REQUEST.match(head)
        if line is None:
            return Request(kind=Kind.OTHER, address=address)
        path = line["path"].decode("latin-1")
        head_only = line["method"] == b"HEAD"
        return Request(
            kind=self._kind(path, line["query"] or b"", now),
            address=address,
            path=path,
            head_only=head_only,
        )

    def allows(self, request: Request, now: float) -> bool:
        """Whether the rate of such requests allows this one, which is then counted."""
        match request.kind:
            case Kind.OTHER:
                # A flood of bad tokens must not close the debug page.
                is_stream = request.path.startswith("/tasks/")
                rates = self._limits.streams if is_stream else self._limits.pages
                return rates.take(client_of(request.address), now)
            case Kind.METRICS:
                return self._limits.metrics.take(client_of(request.address), now)
            case _:
                return True

    def _address(self, head: bytes, peer: str) -> str:
        proxies = self._service.proxies
        if not proxies.trusts(peer):
            return peer
        forwarded = [value.decode("latin-1") for value in _FORWARDED.findall(head)]
        return proxies.viewer(peer, forwarded)

    def _kind(self, path: str, query: bytes, now: float) -> Kind:
        if path in ANSWERED_PATHS:
            return Kind.PROBE
        if path == _METRICS_PATH:
            return Kind.METRICS
        found = _TOKEN.search(query)
        if found is not None and self._is_usable(found["token"].decode(), now):
            return Kind.VIEWER
        return Kind.OTHER

    def _is_usable(self, token: str, now: float) -> bool:
        """Whether a viewer may be admitted with it; a signature is checked in 5 µs."""
        if not tokens.is_signed(token, self._key):
            return False
        try:
            grant = tokens.verify(token, self._key, self._service.config.task_id)
        except tokens.InvalidToken:
            return False
        return not self._service.admission.is_used(grant.jti) and self._limits.per_token.take(
            grant.jti, now
        )
