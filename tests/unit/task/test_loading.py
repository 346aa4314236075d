"""Loading the task's function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worker.task import loading
from worker.task.messages import Run


@pytest.fixture(autouse=True)
def import_state(monkeypatch):
    """Loading extends sys.path and sys.modules of a process that runs one task."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "worker_task", raising=False)
    yield
    sys.modules.pop("worker_task", None)


def run(file, *, module=None, name="run"):
    return Run(
        file=str(file),
        module=module,
        name=name,
        is_async=None,
        parameters=None,
        inputs={},
        launch_options={},
    )


def test_a_file_is_loaded_and_can_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_task.py").write_text("VALUE = 7")
    (tmp_path / "task.py").write_text("import neighbour_of_task as n\ndef run(): return n.VALUE")
    assert loading.load(run(tmp_path / "task.py"))() == 7


def test_a_module_is_loaded_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "module_of_task.py").write_text("def run(): return 7")
    monkeypatch.chdir(tmp_path)
    assert loading.load(run("", module="module_of_task"))() == 7


def test_a_file_beside_the_task_does_not_replace_a_module_that_is_installed(tmp_path):
    """The task's folder comes last on the module path, then the entries of PYTHONPATH."""
    for name in ("wave", "worker", "playwright"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this file must not run')")
    (tmp_path / "task.py").write_text("import wave, worker.errors, playwright\ndef run(): ...")
    assert callable(loading.load(run(tmp_path / "task.py")))


def test_modules_in_pythonpath_are_found_after_those_of_the_task(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/first_of_two.py").write_text("VALUE = 1")
    (tmp_path / "other/second_of_two.py").write_text("VALUE = 2")
    (tmp_path / "second_of_two.py").write_text("VALUE = 3")
    (tmp_path / "task.py").write_text(
        "import first_of_two, second_of_two\n"
        "def run(): return first_of_two.VALUE, second_of_two.VALUE"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    assert loading.load(run(tmp_path / "task.py"))() == (1, 3)


def test_a_target_that_is_not_callable_is_an_error(tmp_path):
    (tmp_path / "task.py").write_text("run = 7")
    with pytest.raises(TypeError, match="run is not a function"):
        loading.load(run(tmp_path / "task.py"))


def no_parameter(): ...


def page_and_a_default(page, other=1): ...


def both(page, inputs): ...


def any_parameter(**parameters): ...


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (no_parameter, ()),
        (page_and_a_default, ("page",)),
        (both, ("inputs", "page")),
        (any_parameter, ("inputs", "page")),
    ],
)
def test_parameters_of_a_function(function, parameters):
    assert loading.parameters(function) == parameters


@pytest.mark.parametrize("module", [None, "failing_task"])
def test_a_traceback_begins_with_the_tasks_first_frame(tmp_path, monkeypatch, module):
    file = tmp_path / "failing_task.py"
    file.write_text("def inner():\n    raise LookupError('nothing there')\ninner()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LookupError) as raised:
        loading.load(run(file, module=module))
    error = raised.value.with_traceback(raised.tb.tb_next)  # without this test's own frame
    lines = loading.traceback_text(error, 1000).splitlines()
    assert lines[1].startswith(f'  File "{file}", line 3')
    assert str(Path(loading.__file__)) not in "\n".join(lines)
    assert lines[-1] == "LookupError: nothing there"
