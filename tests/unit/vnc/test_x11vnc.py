"""x11vnc's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.vnc.x11vnc import accepts, command

AUTHORITY, SOCKET = Path("/folder/Xauthority"), Path("/folder/x11vnc.sock")


def words(*, control: bool) -> list[str]:
    return command(":7", AUTHORITY, SOCKET, control=control)


def test_a_view_only_x11vnc_takes_no_input_and_sends_no_copied_text() -> None:
    assert {"-viewonly", "-nosel"} <= set(words(control=False))


def test_an_x11vnc_for_control_takes_input_and_shares_the_clipboard_only() -> None:
    found = words(control=True)
    assert not {"-viewonly", "-nosel"} & set(found)
    assert "-noprimary" in found


@pytest.mark.parametrize("control", [False, True])
def test_x11vnc_listens_on_its_unix_socket_only(control: bool) -> None:
    found = words(control=control)
    for option, value in (("-rfbport", "0"), ("-rfbportv6", "0"), ("-unixsock", str(SOCKET))):
        assert found[found.index(option) + 1] == value
    assert not {"-localhost", "-allow"} & set(found)  # these refuse the Unix socket's clients


@pytest.mark.parametrize("control", [False, True])
def test_x11vnc_reads_no_file_and_runs_no_command_of_the_user(control: bool) -> None:
    assert {"-norc", "-nocmds", "-noremote"} <= set(words(control=control))


def test_a_socket_that_does_not_exist_accepts_no_connection(tmp_path: Path) -> None:
    assert not accepts(tmp_path / "x11vnc.sock")
