"""Files from a container: the engine's tar stream, read without storing it.

The task chose the members' names, types and sizes, so the stream is hostile input. Reading it takes
the same memory whatever it contains, and ends at limits; what cannot be understood ends the
archive. The format is that of pax(1) with GNU's long names, as engines write it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from worker.api.runners.files import ENTRIES_MAX, is_valid_name, listed
from worker.api.runners.protocol import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCAN_MAX_BYTES: Final = 2 << 30
"""No more of an archive is read for a list, or to find a file in it."""
_EXTENSION_MAX_BYTES: Final = 64 << 10
_SIZE_MAX: Final = (1 << 63) - 1
_BLOCK: Final = 512
_SEPARATOR: Final = "/"
_REGULAR: Final = frozenset({b"0", b"\0", b"7"})
_WITHOUT_DATA: Final = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
_PAX: Final = b"x"
_PAX_GLOBAL: Final = b"g"
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
_GNU_SPARSE: Final = b"S"
_SPARSE_KEYS: Final = b"GNU.sparse."
# Of a header: offset and size of its fields.
_NAME, _SIZE, _CHECKSUM, _TYPE, _MAGIC, _PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(148, 156),
    slice(156, 157),
    slice(257, 263),
    slice(345, 500),
)
_USTAR: Final = b"ustar\0"
_BINARY_NUMBER: Final = 0x80
_OCTAL: Final = 8


class EndsTooEarly(OSError):
    """An archive ends before one of its files does."""


class Archive:
    """A tar stream while it is received. Reading blocks: use a thread, and close it at the end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._pipe = _Pipe(chunks)

    def files(self) -> Sequence[Artifact]:
        """The regular files of an archived folder, sorted by name; see the limits of `files`."""
        return listed(
            Artifact(name=name, size_bytes=member.size)
            for member in self._members()
            if member.is_regular and is_valid_name(name := _below_folder(member.name))
        )

    def find(self, name: str) -> MemberFile | None:
        """The content of the regular file of this name, which begins with the archive's folder."""
        for member in self._members():
            if member.name == name:
                return MemberFile(self._pipe, member.size) if member.is_regular else None
        return None

    def close(self) -> None:
        """Stop receiving."""
        cast("Any", self._chunks).close()

    def _members(self) -> Iterator[_Member]:
        """The members up to the limits; the data of each is skipped before the next one."""
        extension = _Extension()
        for _ in range(ENTRIES_MAX):
            header = self._header()
            if header is None:
                return
            kind, name, size = header
            if kind in (_PAX, _LONG_NAME):
                data = self._pipe.read(size) if size <= _EXTENSION_MAX_BYTES else b""
                extension = extension.with_header(kind, data, complete=len(data) == size)
                left = size - len(data)
            elif kind in (_PAX_GLOBAL, _LONG_LINK):
                left = size
            else:
                member = extension.member(kind, name, size)
                end = self._pipe.received + member.size
                yield member
                left = end - self._pipe.received
                size, extension = member.size, _Extension()
            if not self._skip(left + -size % _BLOCK):
                return

    def _header(self) -> tuple[bytes, bytes, int] | None:
        """Type, name and size of the next member; None at the end, or if it is no header."""
        block = self._pipe.read(_BLOCK)
        if len(block) < _BLOCK or not _has_checksum(block):
            return None
        kind = block[_TYPE]
        size = 0 if kind in _WITHOUT_DATA else _number(block[_SIZE])
        if size is None or size > _SIZE_MAX or kind == _GNU_SPARSE:
            return None
        name = _text(block[_NAME])
        if block[_MAGIC] == _USTAR and (prefix := _text(block[_PREFIX])):
            name = prefix + b"/" + name
        return kind, name, size

    def _skip(self, size: int) -> bool:
        """Read so much; False if that exceeds the limit, or the stream has ended."""
        if self._pipe.received + size > SCAN_MAX_BYTES:
            return False
        return self._pipe.skip(size)


class MemberFile:
    """The content of one member."""

    def __init__(self, pipe: _Pipe, size: int) -> None:
        self._pipe = pipe
        self.left_bytes = size

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end.

        Raises:
            EndsTooEarly: the archive ends before the file does.
        """
        content = self._pipe.read(min(size, self.left_bytes))
        if not content and self.left_bytes and size:
            raise EndsTooEarly(errno.EIO, "the archive ends too early")
        self.left_bytes -= len(content)
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    name: str
    size: int
    is_regular: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extension:
    """What the headers before a member state about it; `unclear`: it cannot be used."""

    name: bytes | None = None
    size: int | None = None
    unclear: bool = False

    def with_header(self, kind: bytes, data: bytes, *, complete: bool) -> _Extension:
        if not complete:
            return _Extension(name=self.name, size=self.size, unclear=True)
        if kind == _LONG_NAME:
            return _Extension(name=_text(data), size=self.size, unclear=self.unclear)
        records = _pax_records(data)
        if records is None:
            return _Extension(name=self.name, size=self.size, unclear=True)
        size = self.size
        if (text := records.get(b"size")) is not None:
            size = int(text) if text.isdigit() and len(text) < len(str(_SIZE_MAX)) else None
        unclear = self.unclear or (size is None and b"size" in records)
        return _Extension(
            name=records.get(b"path", self.name),
            size=size,
            unclear=unclear or any(key.startswith(_SPARSE_KEYS) for key in records),
        )

    def member(self, kind: bytes, name: bytes, size: int) -> _Member:
        has_size = self.size is not None and kind not in _WITHOUT_DATA
        return _Member(
            # As os.listdir returns names; what is not UTF-8 is no valid name.
            name=(self.name or name).decode(errors="surrogateescape"),
            size=self.size if has_size and self.size is not None else size,
            is_regular=kind in _REGULAR and not self.unclear,
        )


class _Pipe:
    """Chunks as a file object, without seek; counts the bytes that were read from it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.received = 0

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end of the stream."""
        parts = []
        while size > 0 and (part := self._next(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> bool:
        """Read so many bytes and drop them; False if the stream ends before."""
        while size > 0 and (part := self._next(size)):
            size -= len(part)
        return size <= 0

    def _next(self, size: int) -> memoryview:
        """At most so many bytes; empty at the end of the stream."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        part, self._rest = self._rest[:size], self._rest[size:]
        self.received += len(part)
        return part


def _below_folder(name: str) -> str:
    """The name without the archived folder's; empty if it is not below a folder."""
    folder, _, rest = name.partition(_SEPARATOR)
    return rest if folder else ""


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int | None:
    """An octal or, with the highest bit set, a binary number; None if it is negative or neither."""
    if field[0] == _BINARY_NUMBER:
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", _OCTAL) if b"-" not in digits and b"_" not in digits else None
    except ValueError:
        return None


def _has_checksum(block: bytes) -> bool:
    """Whether a block is a header; the block of zeros at an archive's end is none."""
    stored = _number(block[_CHECKSUM])
    spaces = len(block[_CHECKSUM]) * ord(" ")
    return stored == sum(block) - sum(block[_CHECKSUM]) + spaces and any(block)


def _pax_records(data: bytes) -> dict[bytes, bytes] | None:
    """Records of length, key and value; None if the data is something else."""
    records = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > len(str(_EXTENSION_MAX_BYTES)):
            return None
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if len(record) != int(length) or not equals or not record.endswith(b"\n"):
            return None
        records[key] = value
    return records
