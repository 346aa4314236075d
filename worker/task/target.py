"""Targets: which function or program a task is, checked without running any of it."""

from __future__ import annotations

import ast
import contextlib
import importlib.machinery
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

DEFAULT_FUNCTION: Final = "run"
PARAMETERS: Final = frozenset({"page", "inputs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A Python function.

    Attributes:
        text: as the user wrote it.
        file: the file that defines the function.
        module: the dotted name to import it by; None to run the file itself.
        name: the function's name in it.
        is_async: whether it is an `async def`; None if only running the file shows it.
        parameters: which of PARAMETERS it takes; None if only running the file shows it.
    """

    text: str
    file: Path
    module: str | None
    name: str
    is_async: bool | None
    parameters: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Any program, with its arguments."""

    argv: tuple[str, ...]

    @property
    def text(self) -> str:
        """The command line, for events and the debug page."""
        return " ".join(self.argv)


Target = Function | Command


def command(argv: Sequence[str]) -> Command:
    """Check a COMMAND.

    Raises:
        TargetError: there is no such program.
    """
    if not argv:
        raise TargetError("no command after `--`; give one, for example `-- python task.py`")
    if shutil.which(argv[0]) is None:
        raise TargetError(f"command not found: {argv[0]}; give a path, or install it")
    return Command(argv=tuple(argv))


def function(text: str) -> Function:
    """Check a TARGET: `path/file.py[:function]` or `package.module[:function]`.

    Raises:
        TargetError: there is no such file, module or function, it cannot be parsed, or the
            function has a parameter that is not one of PARAMETERS.
    """
    place, name = _split(text)
    module = None
    if place.endswith(".py"):
        file = Path(place)
        if not file.is_file():
            raise TargetError(f"no such file: {place}; give TARGET as path/file.py:function")
    else:
        module = place
        file = _find_module(place)
    definition = _find_definition(file, name)
    is_async, parameters = _signature(definition, f"{place}:{name}")
    return Function(
        text=text,
        file=file.resolve(),
        module=module,
        name=name,
        is_async=is_async,
        parameters=parameters,
    )


def _split(text: str) -> tuple[str, str]:
    place, colon, name = text.rpartition(":")
    if not colon:
        place, name = text, DEFAULT_FUNCTION
    if not place or not name.isidentifier():
        raise TargetError(
            f"invalid target {text!r}; TARGET is path/file.py:function or package.module:function"
        )
    return place, name


def task_path(file: Path | None) -> list[str]:
    """The folders where a task's own modules are found, after everything that is installed.

    They come last on the module path, so no file there replaces a module of the standard library.

    Args:
        file: the target's file; None for a module, which is looked up in the working directory.
    """
    own = Path.cwd() if file is None else file.parent
    # An empty entry is the working directory, as in Python itself.
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [os.path.abspath(entry) for entry in entries if entry or len(entries) > 1]  # noqa: PTH100 - as sys.path has it
    return [str(own), *others]


def _find_module(dotted: str) -> Path:
    """The file of a module, found without importing its packages."""
    names = dotted.split(".")
    spec = _find_top_level(names[0])
    for index in range(1, len(names)):
        locations = None if spec is None else spec.submodule_search_locations
        spec = None if locations is None else _find_spec(".".join(names[: index + 1]), locations)
    if spec is None:
        raise TargetError(
            f"no such file or module: {dotted}; TARGET is path/file.py:function or "
            "package.module:function"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise TargetError(
            f"{dotted} is not a module with a .py file; name a module that has one, or the file"
        )
    return Path(spec.origin)


def _find_top_level(name: str) -> ModuleSpec | None:
    """A module as the task's process finds it: what is installed comes first."""
    installed = None
    with contextlib.suppress(ValueError):  # an empty name, or `__main__`, which has no spec
        installed = importlib.util.find_spec(name)
    if installed is not None and installed.loader is not None:
        return installed
    # A package comes before a folder without __init__.py, wherever they are on the path.
    return _find_spec(name, [*sys.path, *task_path(None)]) or installed


def _find_spec(name: str, path: Sequence[str]) -> ModuleSpec | None:
    return importlib.machinery.PathFinder.find_spec(name, path)


def _find_definition(file: Path, name: str) -> ast.AST:
    try:
        source = file.read_bytes()
        tree = ast.parse(source, filename=str(file))
    except OSError as error:
        raise TargetError(f"cannot read {file}: {error.strerror}") from error
    except SyntaxError as error:
        raise TargetError(f"syntax error in {file}, line {error.lineno}: {error.msg}") from error
    except ValueError as error:
        raise TargetError(f"cannot read {file}: {error}") from error
    found: ast.AST | None = None
    names: list[str] = []
    for node in _top_level(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.append(node.name)
        if name in _bound_names(node):
            found = node
    if found is None:
        choice = f"choose one of: {', '.join(names)}" if names else "it defines no function"
        raise TargetError(f"no function {name} in {file}; {choice}")
    return found


def _top_level(tree: ast.AST) -> list[ast.AST]:
    """The statements that can bind module-level names, also inside `if`, `try` and `with`."""
    nodes: list[ast.AST] = []
    scopes = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    for child in ast.iter_child_nodes(tree):
        nodes.append(child)
        if not isinstance(child, scopes):
            nodes += _top_level(child)
    return nodes


def _bound_names(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {(alias.asname or alias.name).split(".")[0] for alias in aliases}
    return set()


def _signature(node: ast.AST, text: str) -> tuple[bool | None, frozenset[str] | None]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None, None  # imported or assigned: only running the file shows what it is
    if node.decorator_list:
        return None, None  # a decorator may return anything
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    required += [
        argument
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    for argument in required:
        if argument.arg not in PARAMETERS:
            raise TargetError(
                f"{text} has a required parameter {argument.arg!r}; a task's function takes `page` "
                "and `inputs`, or one of them; read other values from `inputs`"
            )
    if any(argument.arg in PARAMETERS for argument in arguments.posonlyargs):
        raise TargetError(f"{text} has a positional-only `page` or `inputs`; remove the `/`")
    names = {argument.arg for argument in [*positional, *arguments.kwonlyargs]}
    parameters = PARAMETERS if arguments.kwarg else frozenset(names & PARAMETERS)
    return isinstance(node, ast.AsyncFunctionDef), parameters
