"""Sockets of a display that exist before its X server."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from worker.display import reserved, xvfb
from worker.errors import SettingError

NUMBER = 99_000 + os.getpid() % 900  # of no X server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the files of X sockets are."""
    monkeypatch.setattr(reserved, "SOCKETS", str(tmp_path / "x"))
    return tmp_path / "x"


@pytest.fixture(params=[False, True])
def display(request, folder):
    made = reserved.reserve(NUMBER, with_file=request.param)
    yield made
    reserved.release(made)
    assert not list(folder.glob("*"))


def test_inherited(display):
    """The number is that of the sockets; they are not inherited any further."""
    descriptors = [each.fileno() for each in display]
    for each in descriptors:
        os.set_inheritable(each, True)
    found = reserved.inherited(descriptors)
    assert (found.number, found.descriptors) == (NUMBER, tuple(descriptors))
    assert not any(map(os.get_inheritable, descriptors))
    command = xvfb.command(Path(os.devnull), found)
    assert f":{NUMBER}" in command
    assert ",".join(map(str, descriptors)) in command


def test_a_display_is_reserved_once(display):
    with pytest.raises(OSError, match="in use"):
        reserved.reserve(NUMBER, with_file=len(display) > 1)


def test_file_of_an_ended_process_is_replaced(folder):
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(reserved.path(NUMBER))
    reserved.release(reserved.reserve(NUMBER, with_file=True))


@pytest.mark.parametrize("kind", ["file", "running"])
def test_file_of_another_process_is_kept(folder, kind):
    """The abstract socket is not kept either."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as running:
        if kind == "file":
            (folder / f"X{NUMBER}").touch()
        else:
            running.bind(reserved.path(NUMBER))
            running.listen()
        for _ in range(2):
            with pytest.raises(OSError, match="in use"):
                reserved.reserve(NUMBER, with_file=True)
    assert (folder / f"X{NUMBER}").exists()


def test_other_descriptors(folder):
    """Each socket must listen as the same display."""
    folder.mkdir()
    first = reserved.reserve(NUMBER, with_file=False)
    second = reserved.reserve(NUMBER + 1, with_file=False)
    with socket.socket(socket.AF_UNIX) as silent, socket.create_server(("127.0.0.1", 0)) as tcp:
        silent.bind(f"\0{reserved.path(NUMBER + 2)}")
        numbers = [each.fileno() for each in (*first, *second, silent, tcp)]
        for wrong in (numbers[:2], numbers[2:3], numbers[3:], [1 << 20]):
            with pytest.raises(SettingError, match="WORKER_DISPLAY_FDS"):
                reserved.inherited(wrong)
    for each in (first, second):
        reserved.release(each)
