"""Hosts and ports: listening, and how URLs spell them."""

from __future__ import annotations

import os
import socket
from typing import Final

from worker.errors import PortInUse, SettingError

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def listen(host: str, port: int, *, backlog: int = 1) -> socket.socket:
    """Listen for TCP connections.

    Args:
        host: a name or address of this machine.
        port: 0 selects a free port.
        backlog: the maximum number of connections that wait to be accepted.

    Raises:
        SettingError: the host cannot be resolved.
        PortInUse: the address is not of this machine, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (socket.gaierror, UnicodeError) as error:
        raise SettingError(f"--host: cannot resolve {host!r}: {error}") from error
    # A name of both families, such as localhost, is listened on by IPv4.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    try:
        return socket.create_server(address[:2], family=family, backlog=backlog)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise PortInUse(host, port, why) from error


def netloc(host: str, port: int) -> str:
    """Host and port as a URL spells them: an IPv6 address is in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_on_this_machine(url: str) -> bool:
    """Whether a URL is that of a Unix socket or of a loopback address: a proxy cannot reach it."""
    import ipaddress  # noqa: PLC0415 - not for `worker run`
    from urllib.parse import urlsplit  # noqa: PLC0415 - the same

    parts = urlsplit(url)
    if "unix" in parts.scheme:
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname in LOOPBACK_HOSTS


def get(host: str, port: int, path: str, *, timeout_s: float) -> tuple[int, bytes]:
    """The status and body of a GET request, made directly: the variables of proxies are ignored.

    Raises:
        OSError: no HTTP server answers.
    """
    import http.client  # noqa: PLC0415 - 10 ms that `worker run` need not wait for

    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
