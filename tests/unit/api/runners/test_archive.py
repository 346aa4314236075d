"""Files from a container: only regular files, with names inside the folder."""

from __future__ import annotations

import contextlib
import io
import itertools
import tarfile
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.api.runners.archive import Archive, EndsTooEarly
from worker.api.runners.files import ENTRIES_MAX


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


def content_of(archive: bytes, name: str, chunk_bytes: int = 100) -> bytes | None:
    with contextlib.closing(Archive(chunks(archive, chunk_bytes))) as opened:
        file = opened.find(name)
        if file is None:
            return None
        return b"".join(iter(lambda: file.read(1000), b""))


def names(archive: bytes) -> list[str]:
    with contextlib.closing(Archive(chunks(archive, 10_000))) as opened:
        return [each.name for each in opened.files()]


@given(st.binary(max_size=5000), st.integers(1, 3000))
def test_find(content, size):
    """A file's content is unchanged, whatever the sizes of the stream's chunks."""
    made = tar(("a/", None), ("a/other", b"o" * 700), ("a/b/x", content), ("a/z", b"z"))
    assert content_of(made, "a/b/x", size) == content


@pytest.mark.parametrize("name", ["a", "a/link", "a/folder", "a/none", "none", "a/in", "link/x"])
def test_only_regular_files_are_found(name):
    made = tar(("a/", None), ("a/link", "/etc/passwd"), ("a/folder", None), ("a/in/x", b"x"))
    assert content_of(made, name) is None


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["ü/日本", "n" * 300, "/".join(["part"] * 15), "two\nlines"])
def test_names(kind, name):
    """Names of every length and alphabet, as both kinds of writers represent them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as made:
        info = tarfile.TarInfo(f"a/{name}")
        info.size = 4
        made.addfile(info, io.BytesIO(b"text"))
    assert names(buffer.getvalue()) == [name]
    assert content_of(buffer.getvalue(), f"a/{name}") == b"text"


# -- hostile archives


def header(name: bytes = b"a/x", size: bytes = b"00000000000", kind: bytes = b"0") -> bytes:
    """A member's header with a valid checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def extended(data: bytes, kind: bytes = b"x", size: int | None = None) -> bytes:
    """An extension header with its data."""
    length = len(data) if size is None else size
    return header(b"pax", b"%011o" % length, kind) + padded(data)


GOOD = header(b"a/good", b"00000000004") + padded(b"good")
PAX_SIZE = b"20 size=99999999999\n"

HOSTILE = {
    "empty": (b"", []),
    "zeros": (bytes(10_000), []),
    "text": (b"not an archive" * 100, []),
    "cut in a header": (GOOD + header()[:100], ["good"]),
    "cut in a file": (GOOD + header(size=b"00000001000"), ["good", "x"]),
    "wrong checksum": (GOOD + header()[:-1] + b"x" + GOOD, ["good"]),
    "negative size": (GOOD + header(size=b"\xff" * 12) + GOOD, ["good"]),
    "signed size": (GOOD + header(size=b"-0000000001") + GOOD, ["good"]),
    "huge size": (GOOD + header(size=b"\x80" + b"\xff" * 11) + GOOD, ["good"]),
    "size of 8 EiB": (GOOD + header(size=b"\x80\0\0\0\x7f" + b"\xff" * 7), ["good", "x"]),
    "no size": (GOOD + header(size=b"x" * 11) + GOOD, ["good"]),
    "sparse": (GOOD + header(kind=b"S") + GOOD, ["good"]),
    "huge extension": (extended(b"x" * 1_000_000) + header() + GOOD, ["good"]),
    "extension without its data": (extended(b"", size=0o7777777777) + GOOD, []),
    "extension of no records": (extended(b"path=x") + header() + GOOD, ["good"]),
    "record of no length": (extended(b"0 path=x\n") + header() + GOOD, ["good"]),
    "record of a long length": (extended(b"9" * 5000 + b" path=x\n") + header() + GOOD, ["good"]),
    "record past its end": (extended(b"99 path=x\n") + header() + GOOD, ["good"]),
    "record with a huge size": (
        extended(b"40 size=" + b"9" * 31 + b"\n") + header() + GOOD,
        ["good"],
    ),
    "record with a negative size": (extended(b"11 size=-5\n") + header() + GOOD, ["good"]),
    "sparse record": (extended(b"22 GNU.sparse.major=1\n") + header() + GOOD, ["good"]),
    "global record": (extended(b"12 path=a/y\n", b"g") + header() + GOOD, ["good", "x"]),
    "long link": (extended(b"x" * 1000, b"K") + header() + GOOD, ["good", "x"]),
    "long name": (extended(b"a/" + b"n" * 2000, b"L") + header() + GOOD, ["good"]),
    "huge name": (extended(b"a/" + b"n" * 100_000, b"L") + header() + GOOD, ["good"]),
    "name of no text": (header(b"a/\xff") + GOOD, ["good"]),
    "name upward": (header(b"a/../x") + header(b"/etc/passwd") + GOOD, ["good"]),
    "hidden name": (header(b"a/.x") + GOOD, ["good"]),
    "no name": (header(b"") + header(b"a") + header(b"a/") + GOOD, ["good"]),
    "special files": (b"".join(header(kind=b"%d" % kind) for kind in range(1, 7)) + GOOD, ["good"]),
    "extensions only": (extended(b"12 path=a/y\n") * 100, []),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name):
    """The files before and, where it can be understood, after the hostile part are listed."""
    archive, expected = HOSTILE[name]
    tracemalloc.start()
    assert names(archive) == expected
    assert content_of(archive, "a/good") == (b"good" if "good" in expected else None)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2 << 20


def test_file_that_is_cut_short():
    """It is an error of its reader, not the file's end."""
    with pytest.raises(EndsTooEarly):
        content_of(header(size=b"00000001000") + b"some", "a/x")


@given(st.binary(max_size=2000))
def test_any_bytes(content):
    assert names(content) == []
    assert names(GOOD + content)[:1] == ["good"]


def endless(member: bytes, count: list[int]) -> Iterator[bytes]:
    while True:
        count[0] += len(member)
        yield member


def test_entries_are_limited():
    """An archive that does not end is read up to the limit of entries."""
    received = [0]
    with contextlib.closing(Archive(endless(header(b"a/.hidden"), received))) as archive:
        assert archive.files() == []
    assert received[0] == ENTRIES_MAX * 512


def test_size_is_limited():
    """A file of 100 GB, as a sparse one in a container is, is not read for a list."""
    received = [0]
    members = itertools.chain(
        [header(b"a/big", b"\x80" + (100 << 30).to_bytes(11)), GOOD],
        endless(bytes(1 << 20), received),
    )
    archive = Archive(each for each in members)
    assert [each.name for each in archive.files()] == ["big"]
    assert received[0] == 0
