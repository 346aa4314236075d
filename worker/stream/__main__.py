"""The stream server's process: `python -m worker.stream CONTROL_SOCKET`, run by supervisord."""

from __future__ import annotations

import sys
from pathlib import Path

from worker.linux import hide_from_peers
from worker.stream import messages
from worker.stream.messages import State, StreamConfig
from worker.stream.server import StreamServer


def main() -> int:
    """Get the configuration from the session and serve."""
    hide_from_peers()
    # PyJWT loads it when it is there, 35 ms and 8 MB; HS256 needs none of it.
    sys.modules.setdefault("cryptography", None)  # type: ignore[arg-type]  # as if not installed
    import jwt  # noqa: F401, PLC0415 - now, so that the first viewer need not wait for it

    channel = messages.connect(Path(sys.argv[1]))
    configured = messages.configured(channel)
    if configured is None:
        return 1  # the session ends, or does not know this process
    listener, message = configured
    fields = message["config"]
    for name in ("allowed_origins", "trusted_proxies"):
        fields[name] = tuple(fields[name])
    with listener, channel:
        server = StreamServer(StreamConfig(**fields), State(message["state"]), listener, channel)
        for jti, expires_at in message["used"]:
            server.token_plugin.used.add(jti, expires_at)
        server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
