"""The settings as Markdown tables, and the blocks of the READMEs that hold them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.settings.loading import every_class
from worker.settings.shared import SharedSettings, option, variable

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_HEADER: Final = ("| variable | option | default | unit | description |", "|---|---|---|---|---|")
_BLOCK: Final = r"(?s)<!-- settings: (\w+) -->\n(.*?)\n<!-- /settings -->"
_FOLDERS: Final = ("docker", "scripts", "tests", "worker")
_UNITS: Final = {"s": "s", "bytes": "bytes"}


def table(kind: type[SharedSettings]) -> str:
    """The settings of one program, or what one runner adds to the API's, as a Markdown table."""
    rows = list(_HEADER)
    for name, field in _own_fields(kind).items():
        cells = (_code(variable(name)), _code(option(kind, name)), _default(field), _unit(name))
        rows.append(f"| {' | '.join(cells)} | {field.description} |")
    return "\n".join(rows)


def readmes(checkout: Path) -> list[Path]:
    """Every README.md of a checkout."""
    folders = [checkout / name for name in _FOLDERS]
    found = [path for folder in folders for path in folder.rglob("README.md")]
    return [checkout / "README.md", *sorted(found)]


def blocks(readme: str) -> list[tuple[str, str]]:
    """The settings tables in a README's text, each with the name of its class."""
    return re.findall(_BLOCK, readme)


def updated(readme: str) -> str:
    """A README's text with current settings tables."""
    tables = {kind.__name__: table(kind) for kind in every_class()}

    def block(found: re.Match[str]) -> str:
        return f"<!-- settings: {found[1]} -->\n{tables[found[1]]}\n<!-- /settings -->"

    return re.sub(_BLOCK, block, readme)


def _own_fields(kind: type[SharedSettings]) -> dict[str, FieldInfo]:
    """A program's fields, shared ones last; of a runner's class only what it adds to the API's."""
    (parent,) = kind.__bases__
    inherited = next((each.model_fields for each in every_class() if each is parent), {})
    names = [name for name in kind.model_fields if name not in inherited]
    names.sort(key=lambda name: name in SharedSettings.model_fields)
    return {name: kind.model_fields[name] for name in names}


def _default(field: FieldInfo) -> str:
    default = field.get_default()
    if isinstance(default, bool):
        return _code(str(default).lower())
    if isinstance(default, int | float):
        return _code(f"{default:.15g}")
    return _code(str(default)) if isinstance(default, str | Path) else ""


def _unit(name: str) -> str:
    return _UNITS.get(name.rpartition("_")[2], "")


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""
