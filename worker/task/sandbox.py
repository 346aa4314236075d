"""Whether Chromium's own sandbox works here: the kernel may refuse the namespaces that it needs."""

from __future__ import annotations

import errno
import os
from typing import Final

from worker.linux import sandbox_errno

_REMEDY: Final = (
    "in a container, give it docker/seccomp.json (`--security-opt seccomp=FILE`); "
    "on a host, allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, "
    "on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`)"
)


def refusal() -> str | None:
    """Why Chromium's sandbox does not work here, and what to do; None if it works."""
    if os.geteuid() == 0:
        return "Chromium has no sandbox as root; run as another user"
    return refusal_text(sandbox_errno())


def refusal_text(number: int) -> str | None:
    """The text for an errno of clone(2) or chroot(2); None for 0."""
    if number == 0:
        return None
    if number in {errno.ENOSPC, errno.EUSERS}:
        return "no user namespace is left; raise the sysctl user.max_user_namespaces"
    return f"user namespaces are refused ({os.strerror(number)}); {_REMEDY}"
