"""Reads small files of the API's state folder."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from worker.api.runners import files

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
    file = files.regular_file(os.open(path, _READ))
    if file is None:
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES} bytes", str(path))
    return content
