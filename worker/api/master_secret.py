"""The master secret, from which stream keys and callback signatures are derived."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.api import state_file
from worker.errors import SettingError
from worker.settings.shared import SECRET_MIN_BYTES

if TYPE_CHECKING:
    from worker.settings.serve import ServeSettings

_FILE: Final = "stream-secret"


def read(settings: ServeSettings) -> bytes:
    """The configured secret, or one that is generated once and kept in the state folder.

    Raises:
        SettingError: the runner requires a configured secret, or the state folder is unusable.
    """
    if settings.stream_secret is not None:
        return settings.stream_secret.get_secret_value().encode()
    if settings.runner == "kubernetes":
        raise SettingError(
            "WORKER_STREAM_SECRET: must be set, to the same value in every replica; make one with "
            "`openssl rand -hex 32`"
        )
    folder = settings.state_dir.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _kept(folder)
    except OSError as error:
        raise SettingError(
            f"WORKER_STATE_DIR: cannot use {folder}: {error.strerror}; set another folder"
        ) from error


def _kept(folder: Path) -> bytes:
    """The folder's secret; processes that generate it concurrently agree on one (link(2))."""
    file = folder / _FILE
    if not file.exists():
        descriptor, draft = tempfile.mkstemp(dir=folder, prefix=".secret-")  # 0600
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(SECRET_MIN_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            file.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    kept = state_file.read(file)
    if len(kept) < SECRET_MIN_BYTES:
        raise SettingError(
            f"{file} contains no valid secret; remove the file to have one generated"
        )
    return kept


def callback_secret(master: bytes, account: str) -> str:
    """The key that signs an account's callbacks, as text; it may be given to that account."""
    return hmac.digest(master, f"callback:{account}".encode(), hashlib.sha256).hex()
