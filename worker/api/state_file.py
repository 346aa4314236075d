"""Reads small files of the API's state folder."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 16 << 20
_READ: Final = (
    os.O_RDONLY | os.O_NONBLOCK
)  # opening a FIFO would wait; links are the owner's choice


def read(path: Path) -> bytes:
    """The content of a regular file, which a link may lead to.

    Raises:
        OSError: it is not a regular file of at most MAX_BYTES, or cannot be read.
    """
    descriptor = os.open(path, _READ)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES} bytes", str(path))
    return content
