"""What a process inherits is set to the same state everywhere."""

from __future__ import annotations

import io
import os
import signal

import pytest

from worker.surroundings import inherited


@pytest.fixture
def signals():
    """Restore the signal dispositions and the mask."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGHUP)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ignored_signals_have_their_default_effect_again_except_sighup(signals):
    for number in (signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    inherited.reset_signals()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_no_signal_is_blocked(signals):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    inherited.reset_signals()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_descriptors_and_files_are_private():
    """Descriptors above 2 are not inherited by programs; new files are the user's only."""
    before = os.umask(0)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    standard = [os.get_inheritable(number) for number in range(3)]
    try:
        os.set_inheritable(descriptor, True)
        inherited.keep_private()
        assert not os.get_inheritable(descriptor)
        assert [os.get_inheritable(number) for number in range(3)] == standard
    finally:
        os.close(descriptor)
        assert os.umask(before) == 0o077


def test_messages_that_cannot_be_written_are_dropped():
    file = os.open("/dev/full", os.O_WRONLY)
    stream = io.TextIOWrapper(
        io.BufferedWriter(inherited._Lossy(file, "w")), encoding="utf-8", line_buffering=True
    )
    stream.write("a message\n")
    stream.close()


def test_discarded_output_is_not_written_later():
    reading, writing = os.pipe()
    os.close(reading)
    stream = open(writing, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor
    stream.write("text")
    inherited.discard(stream, writing)
    stream.close()
