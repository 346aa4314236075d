"""The token plugin: websockify asks it where a token leads; each token leads there once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from websockify.token_plugins import BasePlugin

from worker.stream.admission import UsedTokens
from worker.stream.tokens import Grant, InvalidToken, Role, verify

if TYPE_CHECKING:
    from collections.abc import Mapping

UNIX_SOCKET: Final = "unix_socket"  # websockify's word for a target that is one


class StreamTokenPlugin(BasePlugin):  # type: ignore[misc]  # websockify is untyped
    """Knows the task's key, and which tokens were used."""

    def __init__(self, task_id: str, key: bytes, sockets: Mapping[Role, str]) -> None:
        super().__init__(sockets[Role.VIEW])
        self._task_id = task_id
        self._key = key
        self._sockets = sockets
        self.used = UsedTokens()

    def lookup(self, token: str) -> tuple[str, str] | None:
        """Return websockify's question's answer: where this token leads; None for nowhere."""
        try:
            grant = self.check(token)
        except InvalidToken:
            return None
        return UNIX_SOCKET, self.display_socket(grant.role)

    def check(self, token: str) -> Grant:
        """Check a token without using it up.

        Raises:
            InvalidToken: it is bad, expired or used.
        """
        grant = verify(token, self._key, self._task_id)
        if grant.jti in self.used:
            raise InvalidToken("used")
        return grant

    def spend(self, grant: Grant) -> None:
        """Use a token up.

        Raises:
            InvalidToken: somebody was faster.
        """
        if grant.jti in self.used:
            raise InvalidToken("used")
        self.used.add(grant.jti, grant.expires_at)

    def display_socket(self, role: Role) -> str:
        """The x11vnc that a role is connected to."""
        return self._sockets[role]
