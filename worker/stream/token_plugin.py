"""websockify's token plugin: maps a stream token to the Unix socket of the x11vnc for its role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import worker.stream.websocket  # noqa: F401 - it keeps numpy out of websockify's imports
from worker.stream.tokens import Grant, InvalidToken, Role, verify

from websockify.token_plugins import BasePlugin  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Mapping

UNIX_SOCKET: Final = "unix_socket"  # websockify's name for a target that is a Unix socket


class Target(tuple[str, str]):  # noqa: SLOT001 - an attribute beside the pair
    """Where a token leads: the pair `("unix_socket", path)`, as websockify has it.

    Attributes:
        grant: what the token grants.
    """

    grant: Grant


class StreamTokenPlugin(BasePlugin):  # type: ignore[misc]  # websockify is untyped
    """Verifies tokens with the task's key.

    Args:
        task_id: the task whose stream the tokens open.
        key: the task's stream key, 32 bytes.
        sockets: the Unix socket of the x11vnc for each role.
    """

    def __init__(self, task_id: str, key: bytes, sockets: Mapping[Role, str]) -> None:
        super().__init__(sockets[Role.VIEW])
        self._task_id = task_id
        self._key = key
        self._sockets = sockets

    def lookup(self, token: str) -> Target | None:
        """Map a token to its target; None when it is invalid or expired (websockify's interface).

        Whether the token was used before is checked at admission, which uses it up.
        """
        try:
            grant = verify(token, self._key, self._task_id)
        except InvalidToken:
            return None
        target = Target((UNIX_SOCKET, self._sockets[grant.role]))
        target.grant = grant
        return target
