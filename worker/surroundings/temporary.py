"""The folder for temporary files: TMPDIR, if a session's sockets and config file can be there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "worker-"
_DEFAULTS: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - their own names are the point
_SOCKET_PATH_MAX_BYTES: Final = 107  # unix(7): sun_path, without the byte that ends it
# The longest one in a session's folder is Chromium's own (its process_singleton_posix.cc).
_LONGEST_SOCKET: Final = "/worker-12345678/tmp/.org.chromium.Chromium.123456/SingletonSocket"
TMPDIR_MAX_BYTES: Final = _SOCKET_PATH_MAX_BYTES - len(_LONGEST_SOCKET)


def parent(environ: Mapping[str, str]) -> Path:
    """Where temporary folders of sessions are created.

    It is TMPDIR. If that is not set, or if its path is longer than TMPDIR_MAX_BYTES or contains
    characters that a config file cannot (line breaks, bytes that are not UTF-8), it is /tmp.

    Args:
        environ: the environment.

    Raises:
        SettingError: the folder does not exist or cannot be written to.
    """
    configured = environ.get("TMPDIR")
    if configured and not _writable(Path(configured)):
        raise SettingError(
            f"TMPDIR: {configured!r} is not a folder that this process can write to; "
            "create it, set TMPDIR to another folder, or unset it"
        )
    if configured and _suitable(folder := Path(configured).absolute()):
        return folder
    for folder in _DEFAULTS:
        if _writable(folder):
            return folder
    raise SettingError(
        f"no temporary folder: {_DEFAULTS[0]} cannot be written to; set TMPDIR to a folder that "
        f"this process can write to, with a path of at most {TMPDIR_MAX_BYTES} bytes; "
        "with `docker run --read-only`, add `--tmpfs /tmp`"
    )


def make(folder: Path) -> Path:
    """Create a private folder (0700) in the result of `parent`.

    Raises:
        SettingError: it cannot be created.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    except OSError as error:
        raise SettingError(
            f"cannot create a temporary folder in {folder}: {error.strerror}; set TMPDIR to "
            "another folder"
        ) from error


def variables(folder: Path) -> dict[str, str]:
    """The variables of a task whose temporary folder this is.

    It is also the home directory, if there is none: no HOME, and no entry of the user in
    /etc/passwd. Playwright's driver does not start without one.
    """
    has_home = os.path.expanduser("~") != "~"  # noqa: PTH111 - Path.expanduser() raises
    return {"TMPDIR": str(folder)} | ({} if has_home else {"HOME": str(folder)})


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _suitable(folder: Path) -> bool:
    text = str(folder)
    return text.isprintable() and len(text.encode()) <= TMPDIR_MAX_BYTES
