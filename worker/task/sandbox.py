"""Chromium's own sandbox: whether this kernel lets a process of ours build one."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
from typing import Final

# linux/sched.h; the zygote starts so (Chromium: sandbox/linux/services/namespace_sandbox.cc).
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_NAMESPACES: Final = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNET

_CLONE_CALLS: Final = {"x86_64": 56, "aarch64": 220}  # asm/unistd.h

_MEND: Final = (
    "in a container, give it docker/seccomp.json (`--security-opt seccomp=FILE`); "
    "on a host, allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, "
    "on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`)"
)


def refusal() -> str | None:
    """Why Chromium's sandbox cannot work here, with what to do about it; None when it can."""
    if os.geteuid() == 0:
        return "Chromium never sandboxes itself for root; run as another user"
    number = _refusing_errno()
    if number == 0:
        return None
    if number in {errno.ENOSPC, errno.EUSERS}:
        return "no user namespace is left; raise the sysctl user.max_user_namespaces"
    return f"user namespaces are refused ({os.strerror(number)}); {_MEND}"


def _refusing_errno() -> int:
    """Do what the zygote does, in a child that ends at once; 0 when nothing is refused.

    The chroot is where a kernel shows that the namespace is there but powerless (AppArmor, Ubuntu).
    """
    call = _CLONE_CALLS.get(platform.machine())
    if call is None:
        return 0  # not known here; Chromium itself will say
    libc = ctypes.CDLL(None, use_errno=True)
    pid = libc.syscall(ctypes.c_long(call), ctypes.c_long(_NAMESPACES | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0 if libc.chroot(b"/") == 0 else ctypes.get_errno())
    if pid < 0:
        return ctypes.get_errno()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
