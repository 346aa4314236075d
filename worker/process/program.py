"""A program of the display stack: its command, and what happens when it starts and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path


def _no_action(_pid: int) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that supervisord runs.

    Attributes:
        name: unique; events and metrics use it.
        command: the program and its arguments.
        restart: whether it is started again when it ends.
        stdout: a file or FIFO for its stdout; default: none.
        stop_signal: sent to stop it, for example `TERM`.
        ready: returns when it accepts work; raises StartFailed when it does not in time.
        on_start: called with its process id each time that supervisord has started it.
        on_up: called with its process id each time that it is ready.
        on_down: called with its process id each time that it has ended, ready or not.
    """

    name: str
    command: Sequence[str]
    restart: bool
    stdout: Path | None = None
    stop_signal: str = "TERM"
    ready: Callable[[], Awaitable[object]] | None = None
    on_start: Callable[[int], None] = _no_action
    on_up: Callable[[int], None] = _no_action
    on_down: Callable[[int], None] = _no_action
