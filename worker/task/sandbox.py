"""Whether Chromium's own sandbox works here: the kernel may refuse the namespaces that it needs."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
from typing import Final

# linux/sched.h; the flags of Chromium's zygote (sandbox/linux/services/namespace_sandbox.cc).
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_NAMESPACES: Final = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNET

_CLONE_CALLS: Final = {"x86_64": 56, "aarch64": 220}  # asm/unistd.h

_REMEDY: Final = (
    "in a container, give it docker/seccomp.json (`--security-opt seccomp=FILE`); "
    "on a host, allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, "
    "on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`)"
)


def refusal() -> str | None:
    """Why Chromium's sandbox does not work here, and what to do; None if it works."""
    if os.geteuid() == 0:
        return "Chromium has no sandbox as root; run as another user"
    return refusal_text(_clone_errno())


def refusal_text(number: int) -> str | None:
    """The text for an errno of clone(2) or chroot(2); None for 0."""
    if number == 0:
        return None
    if number in {errno.ENOSPC, errno.EUSERS}:
        return "no user namespace is left; raise the sysctl user.max_user_namespaces"
    return f"user namespaces are refused ({os.strerror(number)}); {_REMEDY}"


def _clone_errno() -> int:
    """Call clone(2) as the zygote does, for a child that ends at once; 0 if nothing is refused.

    AppArmor, in Ubuntu, allows the namespaces but gives them no capabilities; then chroot(2) fails.
    """
    call = _CLONE_CALLS.get(platform.machine())
    if call is None:
        return 0  # unknown architecture: Chromium reports a refusal itself
    libc = ctypes.CDLL(None, use_errno=True)
    pid = libc.syscall(ctypes.c_long(call), ctypes.c_long(_NAMESPACES | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0 if libc.chroot(b"/") == 0 else ctypes.get_errno())
    if pid < 0:
        return ctypes.get_errno()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
