"""supervisord's config: words reach a program as they are."""

from __future__ import annotations

import configparser
import shlex

from hypothesis import given
from hypothesis import strategies as st

from worker.process.supervisord_config import Program, quote, write_config

words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


@given(words)
def test_quoting(word):
    """Supervisord splits a command as shlex does, and gets the word back."""
    assert shlex.split(quote(word)) == [word]


def test_comment_signs_and_percents(tmp_path):
    """A `;`, `#` or `%` in a path is no comment and no expansion."""
    word = "/home/me/100% #1 ; project/python"
    program = Program(name="p", command=[word], restart=True)
    write_config(tmp_path, [program])
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read(tmp_path / "supervisord.conf")
    command = parser["program:p"]["command"].replace("%%", "%")
    assert shlex.split(command) == [word]
