"""The events `stream.ready` and `stream.lost`."""

from __future__ import annotations

import pytest

from worker.session.stream_status import StreamStatus


class Conversation:
    """A status whose events are recorded."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.status = StreamStatus(
            lambda: self.events.append("ready"),
            lambda name, why: self.events.append(f"lost {name}: {why}"),
        )

    def play(self, steps: str) -> list[str]:
        """Steps: `open`, `-name` for a loss, `+name` for its return."""
        for step in steps.split():
            if step == "open":
                self.status.opened()
            elif step[0] == "-":
                self.status.lost(step[1:], "why")
            else:
                self.status.back(step[1:])
        return self.events


@pytest.mark.parametrize(
    ("steps", "events"),
    [
        ("open", ["ready"]),
        ("open -a +a", ["ready", "lost a: why", "ready"]),
        ("open -a -b +a +b", ["ready", "lost a: why", "lost b: why", "ready"]),
        ("open -a +a -b +b", ["ready", "lost a: why", "ready", "lost b: why", "ready"]),
        ("-a open", []),
        ("-a open +a", ["ready"]),
        ("-a +a open", ["ready"]),
        ("-a -b +a open +b -b", ["ready", "lost b: why"]),
    ],
)
def test_events_follow_the_programs(steps: str, events: list[str]) -> None:
    """Ready means that no program is down; nothing is lost before it was ready."""
    assert Conversation().play(steps) == events
