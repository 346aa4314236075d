"""Files from a container: the engine's tar stream, read without storing it."""

from __future__ import annotations

import tarfile
from typing import IO, TYPE_CHECKING, Any, Final, cast

from worker.api.runners.files import is_valid_name
from worker.api.runners.protocol import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEPARATOR: Final = "/"


class Archive:
    """A tar stream while it is received. Reading blocks: use a thread, and close it at the end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        # The task chose the members' names and types: both are hostile input.
        self._tar = tarfile.open(fileobj=cast("IO[bytes]", _Pipe(chunks)), mode="r|")  # noqa: SIM115

    def files(self) -> list[Artifact]:
        """The regular files of an archived folder, sorted by name."""
        found = []
        for member in self._tar:
            _, _, name = member.name.partition(_SEPARATOR)
            if member.isreg() and is_valid_name(name):
                found.append(Artifact(name=name, size_bytes=member.size))
        return sorted(found, key=lambda artifact: artifact.name)

    def only_file(self) -> IO[bytes] | None:
        """The content of an archived file; None if it is not a regular file."""
        member = self._tar.next()
        return self._tar.extractfile(member) if member is not None and member.isreg() else None

    def close(self) -> None:
        """Stop receiving."""
        self._tar.close()
        cast("Any", self._chunks).close()


class _Pipe:
    """Chunks as a file object, without seek."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts = [self._rest]
        got = len(self._rest)
        while got < size and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            got += len(chunk)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]
