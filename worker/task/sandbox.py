"""Chromium's own sandbox: whether this kernel lets a process of ours build one."""

from __future__ import annotations

import errno
import os
from typing import Final

from worker.linux import sandbox_errno

_MEND: Final = (
    "in a container, give it docker/seccomp.json (`--security-opt seccomp=FILE`); "
    "on a host, allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, "
    "on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`)"
)


def refusal() -> str | None:
    """Why Chromium's sandbox cannot work here, with what to do about it; None when it can."""
    if os.geteuid() == 0:
        return "Chromium never sandboxes itself for root; run as another user"
    number = sandbox_errno()
    if number == 0:
        return None
    if number in {errno.ENOSPC, errno.EUSERS}:
        return "no user namespace is left; raise the sysctl user.max_user_namespaces"
    return f"user namespaces are refused ({os.strerror(number)}); {_MEND}"
