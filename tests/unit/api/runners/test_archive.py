"""Files from a container: only regular files, with names inside the folder."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from worker.api.runners.archive import Archive


def chunks(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def tar(*members: tuple[str, bytes | str | None]) -> bytes:
    """A tar file: bytes make a file, text a link, None a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            made.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def test_files():
    """Lists regular files by their names below the folder; no links, folders or hidden files."""
    content = tar(
        ("artifacts/", None),
        ("artifacts/sub/", None),
        ("artifacts/sub/b.txt", b"12"),
        ("artifacts/a.txt", b"1"),
        ("artifacts/b\nb", b""),
        ("artifacts/link", "/etc/passwd"),
        ("artifacts/.draft", b""),
        ("artifacts/../../etc/passwd", b"x"),
    )
    with contextlib.closing(Archive(chunks(content, 100))) as archive:
        assert [(each.name, each.size_bytes) for each in archive.files()] == [
            ("a.txt", 1),
            ("b\nb", 0),
            ("sub/b.txt", 2),
        ]


@given(st.binary(max_size=5000), st.integers(1, 3000))
def test_only_file(content, size):
    """A file's content is unchanged, whatever the sizes of the stream's chunks."""
    with contextlib.closing(Archive(chunks(tar(("x", content)), size))) as archive:
        file = archive.only_file()
        assert file is not None
        assert file.read() == content


def test_only_link():
    """A link in place of the file is not followed."""
    with contextlib.closing(Archive(chunks(tar(("x", "/etc/passwd")), 512))) as archive:
        assert archive.only_file() is None
