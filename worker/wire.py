"""Messages between the processes of one worker: frozen dataclasses, one JSON object each.

The object holds the dataclass's name as `type`, and its fields. A peer may be a task, so decoding
accepts exactly the declared types and raises `InvalidMessage` for everything else.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from typing import Any, Final, Generic, TypeVar, cast

_TYPE: Final = "type"

M = TypeVar("M")


class InvalidMessage(Exception):
    """The bytes are not a message of the expected types."""


def encode(message: Any) -> bytes:
    """Encode a dataclass as JSON without line breaks.

    Raises:
        ValueError: a field holds a value that JSON cannot represent.
    """
    document = {_TYPE: type(message).__name__, **_fields(message)}
    return json.dumps(document, separators=(",", ":"), default=_fields).encode()


class Decoder(Generic[M]):
    """Decodes the messages of one direction.

    Args:
        messages: the union of the dataclasses that may arrive. Fields are str, int, float, bool,
            None, enums, dataclasses, tuples and dicts of these, or Any.
    """

    def __init__(self, messages: object) -> None:
        union = typing.get_args(messages) or (messages,)
        self._types = {kind.__name__: kind for kind in union}

    def decode(self, data: bytes) -> M:
        """Decode one message.

        Raises:
            InvalidMessage: the data is not one of the messages; the text holds none of the data.
        """
        try:
            document = json.loads(data)
            kind = self._types[document.pop(_TYPE)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidMessage(f"not a message: {type(error).__name__}") from None
        return cast("M", _build(kind, document))


def _fields(message: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(message):
        raise TypeError(f"{type(message).__name__} has no JSON form")
    return {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}


def _build(kind: type, document: object) -> Any:
    hints = typing.get_type_hints(kind)
    if not isinstance(document, dict) or document.keys() != hints.keys():
        raise InvalidMessage(f"{kind.__name__}: wrong fields")
    try:
        return kind(**{name: _convert(hint, document[name]) for name, hint in hints.items()})
    except InvalidMessage as error:
        raise InvalidMessage(f"{kind.__name__}: {error}") from None


def _convert(hint: Any, value: Any) -> Any:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return _first_match(arguments, value)
        case origin if origin is tuple and isinstance(value, list):
            return tuple(_convert(arguments[0], item) for item in value)
        case origin if origin is dict and isinstance(value, dict):
            return {key: _convert(arguments[1], item) for key, item in value.items()}
        case None:
            return _convert_plain(hint, value)
    raise InvalidMessage(f"expected {hint}")


def _first_match(options: tuple[Any, ...], value: Any) -> Any:
    for option in options:
        try:
            return _convert(option, value)
        except InvalidMessage:
            continue
    raise InvalidMessage("no option of a union matches")


def _convert_plain(hint: Any, value: Any) -> Any:
    if hint is Any or type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if dataclasses.is_dataclass(hint):
        return _build(cast("type", hint), value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            raise InvalidMessage(f"not a {hint.__name__}") from None
    raise InvalidMessage(f"expected {getattr(hint, '__name__', hint)}")
