"""A network namespace: ports and abstract Unix sockets that only a test's processes have."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_SIOCSIFFLAGS = 0x8914  # linux/sockios.h
_IFF_UP = 1  # linux/if.h
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@contextlib.contextmanager
def entered(ports: range) -> Iterator[None]:
    """Run this thread, and what it starts, in a new namespace with a loopback interface; as root.

    Args:
        ports: those that are chosen for a socket without a port.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        _PORTS.write_text(f"{ports.start} {ports.stop - 1}")
        yield
    finally:
        libc.setns(before, _CLONE_NEWNET)
        os.close(before)
