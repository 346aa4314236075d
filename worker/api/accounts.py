"""Accounts and their API keys; only the keys' hashes are stored."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from worker.api import state_file
from worker.errors import SettingError
from worker.events import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.settings.serve import ServeSettings

KEY_PREFIX: Final = "wk_"
ACCOUNT_PATTERN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_KEY_BYTES: Final = 32
_SHOWN_CHARS: Final = 11
_KEY_MAX_BYTES: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account; `control`: whether its key opens streams with the role `control`."""

    name: str
    control: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key as stored; `prefix` is its first characters, which identify it in lists."""

    account: str
    prefix: str
    sha256: str
    control: bool
    created_at: str


class Accounts:
    """The keys of a file, read again when it changes.

    Attributes:
        error: why no key is valid: the file cannot be read. None otherwise.
    """

    def __init__(self, file: Path) -> None:
        self.error: SettingError | None = None
        self._file = file
        self._seen: tuple[int, ...] | None = None
        self._by_digest: dict[bytes, Account] = {}

    def check(self) -> None:
        """Read the file now.

        Raises:
            SettingError: it exists and cannot be read.
        """
        self._refresh()
        if self.error is not None:
            raise self.error

    def names(self) -> list[str]:
        """The accounts that have a key, those with the oldest keys first.

        Raises:
            SettingError: the file exists and cannot be read.
        """
        self.check()
        return list(dict.fromkeys(account.name for account in self._by_digest.values()))

    def authenticate(self, key: str) -> Account | None:
        """The account of a key.

        The time depends on the digest only, from which nothing can be learned about stored keys.
        """
        text = key.encode("utf-8", "surrogateescape")
        if len(text) > _KEY_MAX_BYTES:
            return None
        self._refresh()
        return self._by_digest.get(hashlib.sha256(text).digest())

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            self._seen, self._by_digest, self.error = seen, {}, None
            keys = _read(self._file)
        except FileNotFoundError:
            self._seen, self._by_digest, self.error = None, {}, None
        except SettingError as error:
            self.error = error
        except OSError as error:
            self._seen, self._by_digest, self.error = None, {}, _unreadable(self._file, error)
        else:
            self._by_digest = {
                bytes.fromhex(key.sha256): Account(name=key.account, control=key.control)
                for key in keys
            }


def keys_file(settings: ServeSettings) -> Path:
    """The file of the API keys, as an absolute path."""
    chosen = settings.api_keys_file or settings.state_dir / "api-keys.json"
    return chosen.expanduser().absolute()


def create(file: Path, account: str, *, control: bool) -> str:
    """Create a key and store its hash; returns the key, which cannot be read again later.

    Args:
        file: the file with the keys; it is created if it does not exist.
        account: the account that the key is for.
        control: whether the key opens streams with the role `control`.

    Raises:
        SettingError: the account's name is invalid, or the file cannot be read or written.
    """
    _check_name(account)
    text = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    key = Key(
        account=account,
        prefix=text[:_SHOWN_CHARS],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        control=control,
        created_at=rfc3339(datetime.now(UTC)),
    )
    with _update(file) as keys:
        keys.append(key)
    return text


def revoke(file: Path, account: str, prefix: str | None = None) -> int:
    """Delete an account's keys, or those with this prefix; returns their number.

    Raises:
        SettingError: the file cannot be read or written.
    """
    with _update(file) as keys:
        kept = [
            key
            for key in keys
            if key.account != account or (prefix and not _has_prefix(key.prefix, prefix))
        ]
        removed = len(keys) - len(kept)
        keys[:] = kept
    return removed


def listed(file: Path) -> list[Key]:
    """All stored keys.

    Raises:
        SettingError: it cannot be read.
    """
    try:
        return _read(file)
    except FileNotFoundError:
        return []


def _has_prefix(prefix: str, given: str) -> bool:
    """Whether a key has this prefix; `given` may be a whole key or its shown part."""
    return given[:_SHOWN_CHARS] == prefix


def _check_name(account: str) -> None:
    if not ACCOUNT_PATTERN.fullmatch(account):
        raise SettingError(
            f"{account!r} cannot name an account: use letters, digits, `.`, `_` and `-`, at most 63"
        )


def _read(file: Path) -> list[Key]:
    try:
        keys = [Key(**key) for key in json.loads(state_file.read(file))["keys"]]
        for key in keys:
            bytes.fromhex(key.sha256)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SettingError(
            f"{file} is not a file of API keys: {error}; move it away and create new keys"
        ) from error
    return keys


def _unreadable(file: Path, error: OSError) -> SettingError:
    return SettingError(
        f"cannot read the API keys in {file}: {error.strerror}; make it a file that this user can "
        "read, or set WORKER_API_KEYS_FILE"
    )


@contextlib.contextmanager
def _update(file: Path) -> Iterator[list[Key]]:
    """The file's keys, to be changed in place; written atomically, by one process at a time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file.with_name(file.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = listed(file)
            yield keys
            _write(file, keys)
    except OSError as error:
        raise SettingError(f"cannot write the API keys to {file}: {error.strerror}") from error


def _write(file: Path, keys: list[Key]) -> None:
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=".api-keys-")  # 0600
    try:
        with os.fdopen(descriptor, "w") as stream:
            json.dump({"keys": [asdict(key) for key in keys]}, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)  # noqa: PTH105 - the draft is a string
    except BaseException:
        os.unlink(draft)  # noqa: PTH108 - the same
        raise
