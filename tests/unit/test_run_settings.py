"""A run's settings are read in a process of their own, and mean the same as read here."""

from __future__ import annotations

import pytest

from worker import run_settings
from worker.errors import SessionError, SettingError


def test_same_as_here(monkeypatch):
    """What comes out of the other process is what reading them here gives."""
    monkeypatch.setenv("WORKER_STREAM_KEY", "ab" * 32)
    options = {"task_id": "a", "port": "0", "inputs": {"ä": [1, None]}, "artifacts_dir": "x"}
    assert run_settings.Reading(options).result() == run_settings.load(options)


def test_mistake():
    """A user's mistake is the same error as here."""
    with pytest.raises(SettingError, match="--port: "):
        run_settings.Reading({"port": "no port"}).result()


def test_secrets_are_not_shown(monkeypatch):
    """No log and no traceback shows them."""
    monkeypatch.setenv("WORKER_STREAM_KEY", "ab" * 32)
    monkeypatch.setenv("WORKER_STREAM_SECRET", "s" * 40)
    shown = repr(run_settings.Reading({}).result())
    assert "abab" not in shown
    assert "ssss" not in shown


def test_reader_that_breaks(capfd):
    """An end without a word is an error that says so; why is on stderr."""
    reading = run_settings.Reading({"inputs": {"cannot be handed over": lambda: None}})
    with pytest.raises(SessionError, match="the process that reads the settings ended with 1"):
        reading.result()
    assert "Traceback" in capfd.readouterr().err
