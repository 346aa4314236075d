"""The command line of a Python process of this package."""

from __future__ import annotations

import sys
from typing import Final

OPTIONS: Final = ("-I", "-X", "utf8")
"""`-I`: no module comes from the working directory, PYTHONPATH or the user's site-packages, and no
PYTHON… variable changes the interpreter. `-X utf8`: text is UTF-8, whatever the locale."""


def command(module: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command line that runs a module.

    Args:
        module: its dotted name.
        arguments: its arguments.
        options: further options of the interpreter.
    """
    return [sys.executable, *OPTIONS, *options, "-m", module, *arguments]
