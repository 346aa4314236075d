"""The settings tables of the READMEs are the ones that the fields' descriptions give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from worker import cli
from worker.settings import table, tables
from worker.settings.docker import DockerSettings
from worker.settings.loading import every_class
from worker.settings.run import RunSettings
from worker.settings.serve import ServeSettings
from worker.settings.shared import Option

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def blocks():
    readmes = tables.readmes(ROOT)
    return [block for readme in readmes for block in tables.blocks(readme.read_text())]


def test_each_class_has_exactly_one_table(blocks):
    assert Counter(name for name, _ in blocks) == {kind.__name__: 1 for kind in every_class()}


@pytest.mark.parametrize("kind", every_class())
def test_a_readme_has_the_current_table(kind, blocks):
    """`python -m worker.settings` updates it."""
    assert dict(blocks)[kind.__name__] == table(kind)


def test_columns():
    rows = table(RunSettings).splitlines()
    assert rows[0] == "| variable | option | default | unit | description |"
    timeout = next(row for row in rows if "WORKER_TIMEOUT_S" in row)
    assert timeout.startswith("| `WORKER_TIMEOUT_S` | `--timeout-s` | `3600` | s | ")
    memory = next(row for row in table(DockerSettings).splitlines() if "MEMORY" in row)
    assert memory.startswith("| `WORKER_MEMORY_BYTES` |  | `3221225472` | bytes | ")


def test_a_runner_s_table_has_only_what_it_adds():
    assert "WORKER_STATE_DIR" in table(ServeSettings)
    assert "WORKER_STATE_DIR" not in table(DockerSettings)


def test_update_replaces_the_table_and_keeps_the_text():
    old = "a\n<!-- settings: DockerSettings -->\nold\n<!-- /settings -->\nb\n"
    new = tables.updated(old)
    assert new == old.replace("old", table(DockerSettings))
    assert tables.updated(new) == new


@pytest.mark.parametrize(
    ("command", "kind", "without"),
    [("run", RunSettings, {"--input"}), ("serve", ServeSettings, set())],
)
def test_options_of_the_command_line_are_marked(command, kind, without):
    """The option column lists exactly the options that set a field."""
    commands: Any = cli._parser()._subparsers._group_actions[0].choices
    options = set(commands[command]._option_string_actions) - {"-h", "--help"} - without
    marked = {
        mark
        for field in kind.model_fields.values()
        for mark in field.metadata
        if isinstance(mark, Option)
    }
    assert options == marked
