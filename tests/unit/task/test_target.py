"""Targets are checked without running any of the task's code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.errors import TargetError
from worker.task import target

SOURCE = """
raise SystemExit("this file must not run")

async def run(page, inputs): ...
def plain(inputs): ...
def nothing(): ...
def any_parameter(**parameters): ...
def optional(page, more=1, *, other=None): ...
def unknown(page, browser): ...
def keyword(*, browser): ...
def positional(page, /): ...

assigned = run
from os import path as imported
@decorator
def decorated(): ...
if True:
    def conditional(page): ...
class Callable: ...
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("name", "is_async", "parameters"),
    [
        ("run", True, {"page", "inputs"}),
        ("plain", False, {"inputs"}),
        ("nothing", False, set()),
        ("any_parameter", False, {"page", "inputs"}),
        ("optional", False, {"page"}),
        ("conditional", False, {"page"}),
    ],
)
def test_a_definition_shows_whether_it_is_async_and_its_parameters(
    file, name, is_async, parameters
):
    found = target.function(f"{file}:{name}")
    assert (found.name, found.file, found.module) == (name, file, None)
    assert (found.is_async, found.parameters) == (is_async, parameters)


@pytest.mark.parametrize(
    ("variable", "entries"),
    [
        (None, []),
        ("", []),
        ("/a:b", ["/a", "/here/b"]),
        ("/a:", ["/a", "/here"]),
    ],
)
def test_module_path_of_a_task(monkeypatch, variable, entries):
    """The folder of the task's file, then the entries of PYTHONPATH, as absolute paths."""
    monkeypatch.setattr(os, "getcwd", lambda: "/here")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if variable is not None:
        monkeypatch.setenv("PYTHONPATH", variable)
    assert target.task_path(Path("/tasks/a.py")) == ["/tasks", *entries]


def test_a_module_of_the_standard_library_comes_before_one_of_the_task(tmp_path, monkeypatch):
    """The check finds the module that the task's process would import."""
    (tmp_path / "wave.py").write_text("def run(): ...")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match=r"no function run in .*/wave\.py; choose one of: .*open"):
        target.function("wave")


@pytest.mark.parametrize("name", ["assigned", "imported", "decorated", "Callable"])
def test_what_only_running_the_file_shows_is_none(file, name):
    found = target.function(f"{file}:{name}")
    assert (found.is_async, found.parameters) == (None, None)


def test_the_default_function_is_run(file):
    assert target.function(str(file)).name == "run"


def test_a_module_is_found_from_the_working_directory(file, monkeypatch):
    (file.parent / "package").mkdir()
    (file.parent / "package" / "__init__.py").write_text("raise SystemExit('must not run')")
    (file.parent / "package" / "module.py").write_text(SOURCE)
    monkeypatch.chdir(file.parent)
    found = target.function("package.module:plain")
    assert found.module == "package.module"
    assert found.file == file.parent / "package" / "module.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid target"),
        (":run", "invalid target"),
        ("FILE:no-name", "invalid target"),
        ("nowhere.py", "no such file: nowhere.py"),
        ("no.such.module", "no such file or module: no.such.module"),
        ("namespace", "not a module with a .py file"),
        ("FILE:other", "no function other in .*; choose one of: run, plain"),
        ("FILE:unknown", "required parameter 'browser'"),
        ("FILE:keyword", "required parameter 'browser'"),
        ("FILE:positional", "remove the `/`"),
    ],
)
def test_an_invalid_target_is_reported(file, text, message, monkeypatch):
    (file.parent / "namespace").mkdir()
    monkeypatch.chdir(file.parent)
    with pytest.raises(TargetError, match=message):
        target.function(text.replace("FILE", str(file)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"def run(:", "syntax error in .*, line 1"),
        (b"\0", "null bytes"),
        (b"\xff", "cannot read|syntax error"),
        (b"", "it defines no function"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_reported(tmp_path, source, message):
    (tmp_path / "broken.py").write_bytes(source)
    with pytest.raises(TargetError, match=message):
        target.function(str(tmp_path / "broken.py"))


def test_a_command_must_exist():
    assert target.command(["sh", "-c", "exit 0"]).text == "sh -c exit 0"
    with pytest.raises(TargetError, match="no command after"):
        target.command([])
    with pytest.raises(TargetError, match="command not found: no-such-program"):
        target.command(["no-such-program"])
