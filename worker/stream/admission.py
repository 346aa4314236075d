"""The tokens that were used: each is remembered until it expires, when nobody would take it."""

from __future__ import annotations

import time
from typing import Final

_TIDY_AT: Final = 256


class UsedTokens:
    """A set of `jti`s that does not grow for ever."""

    def __init__(self) -> None:
        self._expiries: dict[str, int] = {}
        self._tidy_at = _TIDY_AT

    def __contains__(self, jti: object) -> bool:
        return jti in self._expiries

    def add(self, jti: str, expires_at: int) -> None:
        """Remember one; `expires_at` is in seconds since 1970."""
        if len(self._expiries) >= self._tidy_at:
            now = time.time()
            self._expiries = {key: at for key, at in self._expiries.items() if at >= now}
            self._tidy_at = max(_TIDY_AT, 2 * len(self._expiries))
        self._expiries[jti] = expires_at

    def items(self) -> list[tuple[str, int]]:
        """Each with its expiry."""
        return list(self._expiries.items())
