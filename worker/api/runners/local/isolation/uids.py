"""The users of running tasks: one uid for each, from a configured range, unique on the machine."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import linux
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Collection

_LOCKS: Final = Path("/run/worker-uids")


class NoFreeUid(Exception):
    """Every uid of the range is in use."""

    def __str__(self) -> str:
        return "every uid of WORKER_LOCAL_UIDS is in use; give a larger range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uid:
    """A task's uid, and the descriptor of its lock, which the worker inherits."""

    number: int
    lock: int


class Uids:
    """A range of uids, each locked while a task uses it.

    The locks (flock(2)) make the uids unique among several APIs. A worker inherits its lock, so it
    is kept while the API is restarted.
    """

    def __init__(self, numbers: range, locks: Path = _LOCKS) -> None:
        """Use a range.

        Raises:
            SettingError: a user or group of the machine has a number of the range.
            OSError: the folder of the locks cannot be used.
        """
        taken = [(user.pw_uid, f"user {user.pw_name}") for user in pwd.getpwall()]
        taken += [(group.gr_gid, f"group {group.gr_name}") for group in grp.getgrall()]
        for number, owner in taken:
            if number in numbers:
                raise SettingError(
                    f"WORKER_LOCAL_UIDS: {number} is the {owner}, whose files a task could access "
                    "and whose processes would be killed; give a range that is not used"
                )
        locks.mkdir(mode=0o700, exist_ok=True)
        self.numbers, self._locks = numbers, locks
        self._held: dict[int, Uid] = {}

    def take(self, stored: Collection[int]) -> Uid:
        """Lock a uid that no process has.

        Args:
            stored: the uids of tasks that are not cleaned up yet.

        Raises:
            NoFreeUid: there is none.
        """
        running = linux.uids_in_use()
        for number in self.numbers:
            if number not in self._held and number not in stored and number not in running:
                uid = self.hold(number)
                if uid is not None:
                    return uid
        raise NoFreeUid

    def hold(self, number: int) -> Uid | None:
        """Lock a certain uid; None if another API, or a worker, holds its lock."""
        if number in self._held:
            return self._held[number]
        path = self._locks / str(number)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return self._held.setdefault(number, Uid(number=number, lock=lock))

    def release(self, number: int) -> None:
        """Unlock a uid."""
        uid = self._held.pop(number, None)
        if uid is not None:
            os.close(uid.lock)
