"""Changes of an engine's availability are reported."""

from __future__ import annotations

import pytest

from worker.api.runners.availability import Availability
from worker.api.runners.protocol import RunnerUnavailable


def test_changes_are_reported_once():
    """One event for the loss and one for the recovery."""
    reported = []
    availability = Availability(lambda event, **fields: reported.append((event, fields)))
    for answers in (True, False, False, True, True):
        with availability.track():
            if not answers:
                raise RunnerUnavailable("away")
    assert reported == [("runner.lost", {"why": "away"}), ("runner.found", {})]


def test_other_errors_pass_through():
    with pytest.raises(KeyError), Availability(lambda *_, **__: None).track():
        raise KeyError
