"""supervisord's config: arguments reach a program unchanged."""

from __future__ import annotations

import configparser
import shlex

from hypothesis import given
from hypothesis import strategies as st

from worker.process.program import Program
from worker.process.supervisord_config import config_text, quote

words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


@given(words)
def test_a_quoted_word_is_split_into_the_same_word(word: str) -> None:
    assert shlex.split(quote(word)) == [word]  # supervisord splits commands with shlex


def test_comment_and_expansion_characters_are_escaped() -> None:
    word = "/home/me/100% #1 ; project/python"
    programs = [Program(name="p", command=[word], restart=True)]
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(config_text("password", programs))
    command = parser["program:p"]["command"].replace("%%", "%")
    assert shlex.split(command) == [word]
