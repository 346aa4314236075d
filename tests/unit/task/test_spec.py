"""What a task's process gets."""

from __future__ import annotations

from pathlib import Path

from worker.task.messages import Run, ToTask
from worker.task.spec import TaskSpec, run_message, start_child
from worker.task.target import Command, Function
from worker.wire import Decoder, encode

FUNCTION = Function(
    text="task.py",
    file=Path("/tasks/task.py"),
    module=None,
    name="run",
    is_async=True,
    parameters=frozenset({"page", "inputs"}),
)


def spec(target):
    return TaskSpec(
        target=target,
        inputs={"n": 1},
        environ={},
        launch_options={"headless": False},
        log=Path("/tasks/task.log"),
        log_max_bytes=1 << 20,
    )


def test_the_first_message_has_the_function_and_its_inputs():
    message = run_message(spec(FUNCTION), FUNCTION)
    assert message == Run(
        file="/tasks/task.py",
        module=None,
        name="run",
        is_async=True,
        parameters=("inputs", "page"),
        inputs={"n": 1},
        launch_options={"headless": False},
    )
    decoder: Decoder[ToTask] = Decoder(ToTask)
    assert decoder.decode(encode(message)) == message


def test_no_process_is_started_early_for_a_command():
    assert start_child(spec(Command(argv=("true",)))) is None
