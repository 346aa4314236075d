"""Whether an engine or a cluster answers is said when it changes."""

from __future__ import annotations

import pytest

from worker.api.runners.availability import Availability
from worker.api.runners.protocol import RunnerUnavailable


def test_said_once():
    """Lost is said once, found once, and nothing while all is well."""
    said = []
    availability = Availability(lambda event, **fields: said.append((event, fields)))
    for answers in (True, False, False, True, True):
        with availability.track():
            if not answers:
                raise RunnerUnavailable("away")
    assert said == [("runner.lost", {"why": "away"}), ("runner.found", {})]


def test_nothing_else_is_swallowed():
    """A mistake of ours is not taken for an engine that is away."""
    with pytest.raises(KeyError), Availability(lambda *_, **__: None).track():
        raise KeyError
