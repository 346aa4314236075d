"""A fuzz case: the bytes of one connection, and how they are delivered."""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PLACEHOLDERS: Final = (b"@VIEW@", b"@CONTROL@")  # replaced by a fresh token of that role
_DELIVERY: Final = re.compile(r"-d(\d+)\.bin$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one connection sends; `delivery` is the seed for its cuts, pauses and end."""

    data: bytes
    delivery: int


def read(path: Path) -> Case:
    """Read a case of the corpus; a file's name may end in `-d<delivery>.bin`."""
    data = path.read_bytes()
    named = _DELIVERY.search(path.name)
    return Case(data=data, delivery=int(named[1]) if named else zlib.crc32(data))


def write(case: Case, folder: Path, kind: str) -> Path:
    """Write a case to a file named after `kind`; return its path."""
    digest = hashlib.sha256(case.data).hexdigest()[:8]
    path = folder / f"{kind}-{digest}-d{case.delivery}.bin"
    path.write_bytes(case.data)
    return path
