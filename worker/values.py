"""Values: what the text of a setting may be, and what it means.

Each function takes a text and returns a value, or makes one that does; what cannot be taken raises
a `ValueError` that says what is wanted and, unless it is secret, nothing of what was given.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_MIN_BYTES: Final = 32
_YES: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO: Final = frozenset({"0", "false", "f", "no", "n", "off"})


class Secret:
    """A text that no log and no traceback shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        """Nothing of it."""
        return "Secret(…)"


def text(value: str) -> str:
    """Any text."""
    return value


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """Texts that a regular expression matches as a whole; `what` says it in words."""

    def read(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {what}")
        return value

    return read


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Whole numbers from `least` on, up to `most` if there is one."""
    wanted = f"must be a whole number, {least} or more"
    if most is not None:
        wanted = f"must be a whole number from {least} to {most}"

    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(wanted) from None
        if number < least or (most is not None and number > most):
            raise ValueError(wanted)
        return number

    return read


def seconds(*, zero: bool) -> Callable[[str], float]:
    """Durations in seconds, `zero` among them or not."""
    wanted = f"must be a number of seconds, {'0 or more' if zero else 'more than 0'}"

    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError(wanted) from None
        if not (number > 0 or (zero and number == 0)):  # also what is no number at all
            raise ValueError(wanted)
        return number

    return read


def flag(value: str) -> bool:
    """Yes or no."""
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise ValueError("must be true or false")


def one_of(*choices: str) -> Callable[[str], str]:
    """One of a few words."""

    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return value

    return read


def path(value: str) -> Path:
    """A file or folder."""
    return Path(value)


def parts(value: str) -> tuple[str, ...]:
    """Texts between commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def networks(value: str) -> tuple[str, ...]:
    """Addresses and networks between commas, as texts."""
    found = parts(value)
    for each in found:
        try:
            ip_network(each, strict=False)
        except ValueError:
            raise ValueError(
                f"{each!r} is neither an address nor a network such as 10.0.0.0/8"
            ) from None
    return found


def json_object(value: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - of a text, not of a type
    return found


def master_secret(value: str) -> Secret:
    """A secret that is long enough to derive keys from."""
    if len(value.encode()) < SECRET_MIN_BYTES:
        raise ValueError(
            f"must be at least {SECRET_MIN_BYTES} bytes; make one with `openssl rand -hex 32`"
        )
    return Secret(value)


def hex_key(value: str) -> Secret:
    """A key in hex digits."""
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) != SECRET_MIN_BYTES:
        raise ValueError(f"must be {2 * SECRET_MIN_BYTES} hex digits")
    return Secret(value)
