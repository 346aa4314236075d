"""The command line; the only place that maps errors to exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from worker.errors import ExtraMissing, InputError, SettingError, UsageError, WorkerError
from worker.outcome import EXIT_RAISED, EXIT_SIGNAL_BASE, EXIT_SUCCESS, EXIT_USAGE
from worker.surroundings import inherited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite

    from worker.session.plan import Plan
    from worker.settings.run import RunSettings

_LAST_EVENTS_S = 1.0
_RUN_OPTIONS = (
    ("--task-id", "ID", "id of the task (default: a new UUID)"),
    ("--timeout-s", "S", "time limit; a task that exceeds it fails with 124 (default: 3600)"),
    ("--host", "HOST", "address that the stream listens on (default: 127.0.0.1)"),
    ("--port", "PORT", "port of the stream; 0 selects a free port (default: 6080)"),
    ("--artifacts-dir", "DIR", "folder of result.json and task.log (default: artifacts/<task id>)"),
    ("--hold-s", "S", "display and stream stay up this long after the task (default: 0)"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit code."""
    inherited.normalize()
    signals = _EarlySignals()
    try:
        return _dispatch(sys.argv[1:] if argv is None else list(argv), signals)
    except WorkerError as error:
        print(f"worker: {error}", file=sys.stderr)
        return error.exit_code
    except _NotWritten as error:
        return _not_written(error.cause)


class _NotWritten(Exception):
    """The output of a command could not be written to stdout."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


def _print(text: object) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        raise _NotWritten(error) from None


def _not_written(error: OSError) -> int:
    inherited.discard(sys.stdout, sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return (
            EXIT_SIGNAL_BASE + signal.SIGPIPE
        )  # without a message, as other programs that are killed by SIGPIPE
    print(f"worker: cannot write to stdout: {error.strerror}", file=sys.stderr)
    return EXIT_RAISED


class _EarlySignals:
    """Records the first signal that requests the end before the event loop runs.

    SIGHUP and SIGQUIT have the effect of SIGTERM, also later: each sends that signal. A SIGHUP
    that is ignored at the start, by nohup(1), stays ignored.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._record)
        for number in (signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._terminate)

    def _record(self, number: int, _frame: object) -> None:
        self.first = self.first or number

    def _terminate(self, _number: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGTERM)


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        if file is None:
            _print(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{message}; see `{self.prog} --help`")


def _dispatch(argv: list[str], signals: _EarlySignals) -> int:
    own, command = _split(argv)
    parser = _parser()
    arguments = parser.parse_args(own)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if command is not None and arguments.command != "run":
        raise SettingError("only `worker run` accepts a command after `--`")
    if arguments.command == "run":
        return _run(arguments, command, signals)
    if arguments.command == "serve":
        return _serve(arguments, signals)
    others = {
        "api-key": _api_key,
        "doctor": _doctor,
        "stream-key": _stream_key,
        "stream-url": _stream_url,
    }
    return others[arguments.command](arguments)


def _split(argv: list[str]) -> tuple[list[str], list[str] | None]:
    if "--" not in argv:
        return argv, None
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]


def _parser() -> _Parser:
    parser = _Parser(prog="worker", description="Runs one browser task on a live display.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a task",
        usage="worker run [options] TARGET [--input NAME=VALUE]...\n"
        "       worker run [options] -- COMMAND [ARG]...",
        description="TARGET is path/file.py, path/file.py:function or package.module:function "
        "(default function: run). It may have the parameters `page`, a Playwright Page, and "
        "`inputs`, a dict.",
        epilog="Each option is also a WORKER_ variable, for example WORKER_TIMEOUT_S.",
    )
    run.add_argument("target", nargs="?", metavar="TARGET", help="the function to run")
    run.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", help="one input, as text"
    )
    run.add_argument("--inputs", metavar="JSON", help="all inputs, as a JSON object")
    for option, metavar, text in _RUN_OPTIONS:
        run.add_argument(option, metavar=metavar, help=text)
    url = commands.add_parser(
        "stream-url",
        help="print a URL that opens a task's stream once",
        description="Signs the URL with WORKER_STREAM_SECRET or WORKER_STREAM_KEY. If neither is "
        "set, requests it from the local worker, which must be in debug mode.",
    )
    url.add_argument(
        "--task-id", metavar="ID", help="id of the task (default: the local worker's task)"
    )
    url.add_argument("--role", choices=("view", "control"), default="view")
    url.add_argument("--ttl-s", type=float, default=60.0, metavar="S", help="default: 60")
    url.add_argument("--host", metavar="HOST", help="address of the stream")
    url.add_argument("--port", metavar="PORT", help="port of the stream")
    key = commands.add_parser(
        "stream-key",
        help="print a task's own stream key",
        description="Derives the key from WORKER_STREAM_SECRET; the worker of that task gets it as "
        "WORKER_STREAM_KEY.",
    )
    key.add_argument("task_id", metavar="TASK_ID", help="id of the task")
    _add_api_commands(commands)
    _add_doctor(commands)
    return parser


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    commands.add_parser(
        "doctor",
        help="report what is missing on this machine and how to fix it",
        description="Prints one line per check. Exit code 1 if a task cannot run.",
    )


def _add_api_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    serve = commands.add_parser("serve", help="serve the API and its dashboard")
    serve.add_argument("--host", metavar="HOST", help="WORKER_API_HOST (default: 127.0.0.1)")
    serve.add_argument("--port", metavar="PORT", help="WORKER_API_PORT (default: 8000)")
    key = commands.add_parser(
        "api-key",
        help="create, list or revoke keys of the API",
        description="Without an option: create a key of ACCOUNT and print it. It is shown once; "
        "only its hash is kept.",
    )
    key.add_argument("account", nargs="?", metavar="ACCOUNT", help="owner of the key")
    key.add_argument("--control", action="store_true", help="the key may control a task's browser")
    other = key.add_mutually_exclusive_group()
    other.add_argument(
        "--revoke",
        nargs="?",
        const="",
        metavar="KEY",
        help="revoke the account's key that begins with KEY, or all of its keys",
    )
    other.add_argument("--list", action="store_true", help="list the keys")
    other.add_argument(
        "--callback-secret",
        action="store_true",
        help="print the key that signs the account's callbacks",
    )


def _options(arguments: argparse.Namespace, *names: str) -> dict[str, object]:
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


# -- run


def _run(arguments: argparse.Namespace, command: list[str] | None, signals: _EarlySignals) -> int:
    import gc  # noqa: PLC0415 - slow, not for `worker --help`

    gc.disable()  # loaded modules are no garbage; collections take a tenth of the start-up time
    from worker.session import preflight  # noqa: PLC0415 - the same
    from worker.settings import load  # noqa: PLC0415 - the same
    from worker.settings.run import RunSettings  # noqa: PLC0415 - the same

    names = [option.removeprefix("--").replace("-", "_") for option, _, _ in _RUN_OPTIONS]
    options = _options(arguments, *names)
    inputs = _inputs(arguments)
    if inputs:
        options["inputs"] = inputs
    chosen = load(RunSettings, options)
    if arguments.input:
        merged = {**chosen.inputs, **dict(_pair(text) for text in arguments.input)}
        chosen = chosen.model_copy(update={"inputs": merged})
    if (arguments.target is None) == (command is None):
        raise UsageError("give either a TARGET or a command after `--`; see `worker run --help`")
    ready = preflight.make(chosen, arguments.target, command)
    return _live(ready, signals)


def _live(ready: Plan, signals: _EarlySignals) -> NoReturn:
    from worker.session import prelaunch  # noqa: PLC0415 - slow, only for a valid `run`

    prelaunched = prelaunch.prelaunch(ready)
    # These imports overlap with the start of the launched processes.
    import gc  # noqa: PLC0415

    from worker.attended import event_loop  # noqa: PLC0415
    from worker.events import Events  # noqa: PLC0415
    from worker.session import session  # noqa: PLC0415

    gc.freeze()
    gc.enable()

    events = Events(ready.task_id)

    async def live() -> int:
        stop = session.Stop(signals.first)
        ended = await session.run(ready, prelaunched, events, stop)
        return ended.exit_code

    exit_code = event_loop.run(live())
    events.flush(_LAST_EVENTS_S)
    # The interpreter's finalization would take 60 ms and has nothing left to do. stderr holds only
    # whole lines that are written; a flush could wait for a thread whose reader does not read.
    os._exit(exit_code)


def _inputs(arguments: argparse.Namespace) -> dict[str, Any]:
    import json  # noqa: PLC0415 - only for `run`

    if arguments.inputs is None:
        return {}
    try:
        inputs = json.loads(arguments.inputs)
    except ValueError as error:
        raise InputError(f"--inputs is not JSON: {error}") from error
    if not isinstance(inputs, dict):
        raise InputError('--inputs must be a JSON object, for example \'{"query": "shoes"}\'')
    return inputs


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--input {text!r} is not NAME=VALUE")
    return name, value


# -- the API


def _serve(arguments: argparse.Namespace, signals: _EarlySignals) -> int:
    from worker.settings import load_serve  # noqa: PLC0415 - the same
    from worker.surroundings import temporary  # noqa: PLC0415 - slow, not for `worker --help`

    given = {"api_host": arguments.host, "api_port": arguments.port}
    chosen = load_serve({name: value for name, value in given.items() if value is not None})
    if chosen.runner == "local":
        temporary.parent(os.environ)  # its workers would fail one by one
    try:
        from worker.api import serve  # noqa: PLC0415 - the extra may be absent
    except ModuleNotFoundError as error:
        raise ExtraMissing("api", str(error.name)) from error
    inherited.keep_private()
    serve.run(chosen, lambda: signals.first is not None)
    return EXIT_SUCCESS


def _api_key(arguments: argparse.Namespace) -> int:
    from worker.api import accounts, master_secret  # noqa: PLC0415 - slow, not for `worker --help`
    from worker.settings import load  # noqa: PLC0415 - the same
    from worker.settings.serve import ServeSettings  # noqa: PLC0415 - the same

    chosen = load(ServeSettings, {})
    file = accounts.keys_file(chosen)
    if arguments.list:
        for key in accounts.listed(file):
            if arguments.account in (None, key.account):
                role = "control" if key.control else "view"
                _print(f"{key.account}\t{key.prefix}…\t{role}\t{key.created_at}")
        return EXIT_SUCCESS
    if arguments.account is None:
        raise SettingError("ACCOUNT is missing; see `worker api-key --help`")
    if arguments.revoke is not None:
        count = accounts.revoke(file, arguments.account, arguments.revoke)
        if not count:
            raise SettingError(f"{arguments.account} has no such key; see `worker api-key --list`")
        print(f"revoked {count} of {arguments.account}", file=sys.stderr)
    elif arguments.callback_secret:
        _print(master_secret.callback_secret(master_secret.read(chosen), arguments.account))
    else:
        _print(accounts.create(file, arguments.account, control=arguments.control))
        print("This key is shown once; only its hash is kept.", file=sys.stderr)
    return EXIT_SUCCESS


# -- doctor


def _doctor(_arguments: argparse.Namespace) -> int:
    from worker.doctor import report  # noqa: PLC0415 - slow, not for `worker --help`
    from worker.settings import load  # noqa: PLC0415 - the same
    from worker.settings.run import RunSettings  # noqa: PLC0415 - the same

    findings = []
    for finding in report.examine(load(RunSettings, {})):
        _print(finding)
        findings.append(finding)
    return EXIT_SUCCESS if report.can_run(findings) else EXIT_RAISED


# -- stream-key, stream-url


def _stream_key(arguments: argparse.Namespace) -> int:
    from worker.settings import load  # noqa: PLC0415 - slow, not for `worker --help`
    from worker.settings.run import RunSettings  # noqa: PLC0415 - the same
    from worker.stream import tokens  # noqa: PLC0415 - the same

    chosen = load(RunSettings, {"task_id": arguments.task_id})
    if chosen.stream_secret is None:
        raise SettingError(
            "WORKER_STREAM_SECRET: must be set, to the master secret from which the task's key "
            "is derived"
        )
    master = chosen.stream_secret.get_secret_value().encode()
    _print(tokens.derive_key(master, chosen.task_id).hex())
    return EXIT_SUCCESS


def _stream_url(arguments: argparse.Namespace) -> int:
    from worker.net import netloc  # noqa: PLC0415 - slow, not for `worker --help`
    from worker.session import preflight  # noqa: PLC0415 - the same
    from worker.settings import load  # noqa: PLC0415 - the same
    from worker.settings.run import RunSettings  # noqa: PLC0415 - the same
    from worker.stream import tokens  # noqa: PLC0415 - the same

    chosen = load(RunSettings, _options(arguments, "task_id", "host", "port"))
    if not arguments.ttl_s > 0:
        raise SettingError("--ttl-s: must be more than 0")
    if chosen.stream_secret is None and chosen.stream_key is None:
        _print(_url_of_local_worker(chosen, arguments.role))
        return EXIT_SUCCESS
    if "task_id" not in chosen.model_fields_set:
        raise SettingError("--task-id: must be set, to the task whose stream is wanted")
    key = preflight.stream_key(chosen)
    role = tokens.Role(arguments.role)
    token = tokens.mint(key, chosen.task_id, role, ttl_s=arguments.ttl_s)
    base = chosen.stream_base_url or f"ws://{netloc(chosen.host, chosen.port)}"
    _print(tokens.stream_url(base, chosen.task_id, token))
    return EXIT_SUCCESS


def _url_of_local_worker(chosen: RunSettings, role: str) -> str:
    import json  # noqa: PLC0415 - only here
    from http import HTTPStatus  # noqa: PLC0415 - only here

    from worker.net import get, netloc  # noqa: PLC0415 - slow, not for `worker --help`

    worker = netloc(chosen.host, chosen.port)
    try:
        status, body = get(chosen.host, chosen.port, f"/debug/stream-url?role={role}", timeout_s=5)
        url = str(json.loads(body)["stream_url"]) if status == HTTPStatus.OK else ""
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(
            f"no worker in debug mode answers at {worker}; start one, or set WORKER_STREAM_SECRET "
            "or WORKER_STREAM_KEY to sign a URL without it"
        ) from error
    if status != HTTPStatus.OK:
        raise SettingError(
            f"the worker at {worker} returned no stream URL (HTTP {status}); set "
            "WORKER_STREAM_SECRET or WORKER_STREAM_KEY for the worker and for this command"
        )
    if "task_id" in chosen.model_fields_set and f"/tasks/{chosen.task_id}/" not in url:
        raise SettingError(f"the worker at {worker} runs another task than {chosen.task_id}")
    return url


if __name__ == "__main__":
    sys.exit(main())
