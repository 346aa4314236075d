"""Artifacts: what a task leaves, readable whatever it holds."""

from __future__ import annotations

import json

from worker import artifacts


def test_half_a_surrogate_pair(tmp_path):
    """An output that has no UTF-8 is written all the same, as JSON's own escape."""
    kept = artifacts.prepare(tmp_path)
    kept.write_result(json.dumps({"output": "naïve \ud83d"}, ensure_ascii=False))
    text = kept.result.read_text(encoding="utf-8")
    assert "naïve \\ud83d" in text
    assert json.loads(text)["output"] == "naïve \ud83d"
