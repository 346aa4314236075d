"""What files occupy: bytes of the disk and inodes, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What files occupy.

    Attributes:
        size_bytes: of allocated blocks; a sparse file's holes count nothing.
        files: names: those of files, folders, links and the rest; and deleted files.
        why_incomplete: why there may be more; empty: there is not.
    """

    size_bytes: int = 0
    files: int = 0
    why_incomplete: str = ""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            size_bytes=self.size_bytes + other.size_bytes,
            files=self.files + other.files,
            why_incomplete=self.why_incomplete or other.why_incomplete,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimit:
    """What the tasks of one account may occupy; None: without a limit."""

    max_bytes: int | None = None
    max_files: int | None = None

    def __bool__(self) -> bool:
        return self.max_bytes is not None or self.max_files is not None

    def reached(self, used: Usage) -> str | None:
        """Which limit leaves nothing for another task, as text; None: neither."""
        return self._text(used, 0)

    def exceeded(self, used: Usage) -> str | None:
        """Which limit is exceeded, as text; None: neither."""
        return self._text(used, 1)

    def _text(self, used: Usage, over: int) -> str | None:
        if self.max_bytes is not None and used.size_bytes >= self.max_bytes + over:
            used_mib, max_mib = used.size_bytes / _MIB, self.max_bytes / _MIB
            return (
                f"the files of this account's tasks occupy {used_mib:.1f} MiB of the disk, and its "
                f"limit (WORKER_ACCOUNT_MAX_BYTES) is {max_mib:.1f} MiB"
            )
        if self.max_files is not None and used.files >= self.max_files + over:
            return (
                f"this account's tasks have {used.files} files and folders, and its limit "
                f"(WORKER_ACCOUNT_MAX_FILES) is {self.max_files}"
            )
        return None
